from __future__ import annotations

from typing import Any

import psycopg
import pytest
from deltalake import DeltaTable

from index.conftest import Index, a_generation
from llmops.index import Generation, create_generation, dump, find_generation, sync
from llmops.index import _sync as sync_module
from llmops.index import _work as work_module
from llmops.index._work import groups
from support.hash_embedder import HashEmbedder


class Cut(RuntimeError):
    """The process is gone."""


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_module, "_BATCH", 6)


def texts(count: int, edition: int = 0, parts: int = 3) -> dict[str, str]:
    return {
        f"{i:02}.md": "\n\n".join(f"Part {part} of document {i}, edition {edition}." for part in range(parts))
        for i in range(count)
    }


def cut_after(monkeypatch: pytest.MonkeyPatch, batches: int) -> list[Any]:
    """Let the next sync write some batches and then end; return the list that the batches are added to."""
    write, written = sync_module.write_batch, []

    def writing(connection: Any, known: Generation, batch: Any, standing: Any) -> Generation:
        if len(written) == batches:
            raise Cut
        written.append(batch)
        return write(connection, known, batch, standing)

    monkeypatch.setattr(sync_module, "write_batch", writing)
    return written


def held(index: Index) -> list[tuple[Any, ...]]:
    with psycopg.connect(index.url) as connection:
        query = f"SELECT path, document_id, text, xmin::text FROM generation_{index.id} ORDER BY document_id, position"
        return connection.execute(query).fetchall()


def oracle(index: Index) -> list[str]:
    """Return the dump of a generation that is built at once from the same table."""
    generation = a_generation(index.embedder, assistant="oracle")
    create_generation(index.url, generation)
    sync(index.url, generation.id, index.corpus.table, index.embedder)
    return list(dump(index.url, generation.id))


def words(index: Index) -> tuple[Any, Any]:
    with psycopg.connect(index.url) as connection:
        kept = connection.execute(f"SELECT word, chunks FROM words_{index.id} ORDER BY word").fetchall()
        counted = connection.execute(
            f"SELECT word, count(*) FROM generation_{index.id}, unnest(tsvector_to_array(search)) AS word "
            "GROUP BY word ORDER BY word"
        ).fetchall()
    return kept, counted


def test_documents_are_grouped_whole_and_one_that_is_larger_than_a_batch_stands_alone() -> None:
    load = {"a": 2, "b": 3, "c": 9, "d": 1, "e": 4, "f": 1, "g": 0}
    assert groups(load, load.__getitem__, 5) == [["a", "b"], ["c"], ["d", "e"], ["f", "g"]]
    assert groups([], load.__getitem__, 5) == []


def test_each_batch_is_a_transaction_of_whole_documents_in_the_order_of_their_ids(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = cut_after(monkeypatch, 99)
    counts = index.write(texts(5) | {"large.md": texts(1, parts=10)["00.md"]})
    assert (counts.embedded, counts.upserted) == (25, 25)
    order = [row[1] for batch in written for row in batch.rows]
    assert order == sorted(order)
    assert all(len(batch.rows) <= 6 or len({row[1] for row in batch.rows}) == 1 for batch in written)
    assert max(len(batch.rows) for batch in written) == 10
    transactions = {row[1]: row[3] for row in held(index)}
    assert all(row[3] == transactions[row[1]] for row in held(index))
    assert len(set(transactions.values())) == len(written)
    assert find_generation(index.url, index.id).fence == len(written)


def test_a_first_load_that_was_cut_goes_on_behind_the_last_batch(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.corpus.write(texts(10))
    cut_after(monkeypatch, 3)
    with pytest.raises(Cut):
        index.sync()
    monkeypatch.undo()
    monkeypatch.setattr(sync_module, "_BATCH", 6)
    known = find_generation(index.url, index.id)
    before = held(index)
    assert (known.watermark, known.target, known.chunks) == (None, index.corpus.table.version(), 18)
    assert known.done_through == before[-1][1]
    assert (known.chunks_done, known.chunks_planned) == (18, 30)
    assert known.chunks_per_second
    assert known.chunks_per_second > 0
    assert not known.vector_index

    looked_at: list[int] = []
    counts = index.sync(progress=lambda done, of: looked_at.append(of))
    assert (counts.upserted, set(looked_at)) == (12, {12})
    assert held(index)[:18] == before
    known = find_generation(index.url, index.id)
    assert (known.watermark, known.target, known.done_through) == (index.corpus.table.version(), None, None)
    assert known.vector_index
    assert list(dump(index.url, index.id)) == oracle(index)
    assert index.sync().upserted == 0


@pytest.mark.parametrize("feed_limit", [0, 20_000])
def test_a_document_that_changes_again_after_its_batch_is_not_skipped(
    index: Index, monkeypatch: pytest.MonkeyPatch, feed_limit: int
) -> None:
    monkeypatch.setattr(work_module, "_FEED_LIMIT", feed_limit)
    index.write(texts(10))
    index.corpus.write(texts(10, edition=1))
    with monkeypatch.context() as cutting:
        cut_after(cutting, 2)
        with pytest.raises(Cut):
            index.sync()
    reached = find_generation(index.url, index.id)
    done = {row[0] for row in held(index) if "edition 1" in row[2]}
    assert done
    assert len(done) < 10
    first, *others = sorted(done)
    changed = texts(10, edition=1) | {first: "Quite another text."}
    gone = others[-1]
    del changed[gone]
    index.corpus.write(changed)
    with monkeypatch.context() as cutting:
        cut_after(cutting, 1)  # and once more on the way
        with pytest.raises(Cut):
            index.sync()
    known = find_generation(index.url, index.id)
    assert (known.target, known.done_through) == (reached.target, reached.done_through)
    index.corpus.write(changed | {"new.md": "One more.", first: "And yet another."})
    index.sync()

    paths = {row[0] for row in held(index)}
    assert gone not in paths
    assert "new.md" in paths
    assert [row[2] for row in held(index) if row[0] == first] == ["And yet another."]
    assert list(dump(index.url, index.id)) == oracle(index)
    kept, counted = words(index)
    assert kept == counted


def test_a_cut_that_left_nothing_to_do_again_keeps_what_was_done(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.corpus.write(texts(10))
    with monkeypatch.context() as cutting:
        cut_after(cutting, 3)
        with pytest.raises(Cut):
            index.sync()
    before = held(index)
    last = max(texts(10), key=lambda path: next((row[1] for row in before if row[0] == path), "~"))
    index.corpus.write(texts(10) | {last: "This one was not there yet."})
    looked_at: list[int] = []
    index.sync(progress=lambda done, of: looked_at.append(of))
    assert max(looked_at) < 30 - 18 + 1
    assert list(dump(index.url, index.id)) == oracle(index)


def test_a_change_set_too_large_for_the_feed_is_read_from_the_table(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.write(texts(8))
    before = held(index)
    monkeypatch.setattr(work_module, "_FEED_LIMIT", 5)
    monkeypatch.setattr(work_module, "_WINDOW", 7)
    monkeypatch.setattr(type(index.corpus.table), "changes", None)  # the whole feed is never asked for
    some = texts(8, edition=1)
    changed = texts(8) | {path: some[path] for path in list(some)[:5]}
    del changed["05.md"]
    index.corpus.write(changed)
    counts = index.sync()
    assert (counts.embedded, counts.upserted, counts.deleted) == (15, 15, 18)
    after = held(index)
    assert [row for row in after if row[0] in ("06.md", "07.md")] == [
        row for row in before if row[0] in ("06.md", "07.md")
    ]
    assert list(dump(index.url, index.id)) == oracle(index)


@pytest.mark.parametrize("feed_limit", [-1, 20_000])
def test_a_table_that_was_emptied_empties_the_generation(
    index: Index, monkeypatch: pytest.MonkeyPatch, feed_limit: int
) -> None:
    monkeypatch.setattr(work_module, "_FEED_LIMIT", feed_limit)
    index.write(texts(5))
    assert index.write({}).deleted == 15
    assert held(index) == []
    assert words(index) == ([], [])
    assert find_generation(index.url, index.id).chunks == 0


def test_after_a_vacuum_everything_is_compared_and_nothing_known_is_embedded(index: Index) -> None:
    index.write(texts(6))
    before = {row[:3]: row[3] for row in held(index)}
    index.corpus.write(texts(6) | {"00.md": "Changed once."})
    index.corpus.write(texts(6) | {"00.md": "Changed twice."})
    table = DeltaTable(index.corpus.table.uri)
    gone = table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False, full=True)
    assert any("_change_data" in file for file in gone)
    index.embedder.history.clear()

    counts = index.sync()

    assert (counts.embedded, counts.upserted, counts.deleted) == (1, 1, 3)
    assert index.embedder.history == ["00\nChanged twice."]
    after = {row[:3]: row[3] for row in held(index)}
    assert {key: after[key] for key in before if key[0] != "00.md"} == {
        key: xmin for key, xmin in before.items() if key[0] != "00.md"
    }
    assert list(dump(index.url, index.id)) == oracle(index)


def test_metadata_and_tags_that_change_are_rows_that_change(index: Index) -> None:
    index.write(texts(3))
    index.embedder.history.clear()
    counts = index.write(texts(3), metadata={"lang": "en"}, access=["staff"])
    assert (counts.embedded, counts.reused, counts.upserted, counts.deleted) == (0, 9, 9, 0)
    assert index.embedder.history == []
    assert list(dump(index.url, index.id)) == oracle(index)


def test_what_postgres_cannot_store_in_metadata_is_replaced(index: Index) -> None:
    counts = index.write(texts(1), metadata={"a\0": "b\0c", "d": "\ud800", "list": ["\0", 5, True]})
    assert counts.upserted == 3
    with psycopg.connect(index.url) as connection:
        row = connection.execute(f"SELECT DISTINCT metadata FROM generation_{index.id}").fetchone()
    r = "\N{REPLACEMENT CHARACTER}"
    assert row == ({f"a{r}": f"b{r}c", "d": r, "list": [r, 5, True]},)
    assert index.sync().upserted == 0


def test_a_generation_of_another_chunker_moves_its_watermark_over_foreign_changes(index: Index) -> None:
    other = a_generation(HashEmbedder(), assistant="other", chunker="d" * 12)
    create_generation(index.url, other)
    index.write(texts(2))
    counts = sync(index.url, other.id, index.corpus.table, index.embedder)
    assert (counts.upserted, counts.version) == (0, index.corpus.table.version())
    assert find_generation(index.url, other.id).watermark == index.corpus.table.version()
