"""What the demo says of its stages, from what their tasks returned."""

from __future__ import annotations

from llmops.cli._phrases import changes, index_line, losses


def test_a_merge_is_told_by_what_it_wrote_and_what_is_missing_counts_as_none() -> None:
    assert changes({"inserted": 3, "deleted": 1}) == "3 new, 0 changed, 1 gone"


def test_a_training_is_told_by_its_steps_and_its_loss() -> None:
    told = losses({"steps": 120.0, "loss_first": 2.345, "loss_last": 0.5})
    assert told == "120 steps, loss 2.35 -> 0.50"


def test_an_index_is_told_with_the_follower_only_where_it_embedded_something() -> None:
    built = {"generation": "g1", "chunks": 10, "embedded": 4, "reused": 3}
    assert index_line(built) == (
        "index g1: 10 chunks; 4 embedded in this run, 3 from the cache, 3 by the index follower"
    )
    assert index_line({**built, "reused": 6}).endswith("6 from the cache")
