"""What two releases differ in is told field by field, by dotted names."""

from __future__ import annotations

from typing import Any

import pytest

from llmops.manifest import ArtifactPin, IndexPin, Manifest, PromptPin
from llmops.release import Difference, differences

BASE = Manifest(
    assistant="guide",
    environment="dev",
    code_digest="c",
    commit="1" * 40,
    dirty=False,
    prompt=PromptPin(uri="prompts:/guide/1", text_hash="t"),
    generator={"kind": "chat", "options": {"temperature": 0.0, "stop": ["END"]}},
    embedder=ArtifactPin(uri="models:/e/1", files={"model.onnx": "a", "vocab.txt": "b"}, fingerprint="f"),
    index=IndexPin(generation="g", chunker={"digest": "d"}),
    retrieval={"kind": "hybrid"},
    guardrails={},
    evaluation_digest="e",
    prices_digest="p",
    gate_digest="g",
    committers=("a@example.org",),
    authors=("anna",),
)


def found(**changes: Any) -> list[tuple[str, Any, Any]]:
    """Return field, before and after of every difference that the changes make."""
    after = BASE.model_copy(update=changes)
    there, back = differences(BASE, after), differences(after, BASE)
    assert sorted(back, key=_field) == sorted(
        (Difference(d.field, d.after, d.before) for d in there), key=_field
    )
    return [(each.field, each.before, each.after) for each in there]


def _field(difference: Difference) -> str:
    return difference.field


def test_a_release_differs_in_nothing_from_itself() -> None:
    assert found() == []
    assert differences(BASE, Manifest.model_validate_json(BASE.model_dump_json())) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"dirty": True}, [("dirty", False, True)]),
        ({"commit": None}, [("commit", "1" * 40, None)]),
        ({"generator": {"kind": "chat", "options": {"temperature": 0.5, "stop": ["END"]}}},
         [("generator.options.temperature", 0.0, 0.5)]),
        ({"generator": {"kind": "chat", "options": {"temperature": 0.0, "stop": ["END"], "seed": 7}}},
         [("generator.options.seed", None, 7)]),
        ({"generator": {"kind": "chat", "options": {"stop": ["END"]}}},
         [("generator.options.temperature", 0.0, None)]),
        ({"authors": ("anna", "bert")}, [("authors", ["anna"], ["anna", "bert"])]),
    ],
    ids=["value", "value removed", "nested", "nested added", "nested removed", "list as a whole"],
)  # fmt: skip
def test_a_field_is_named_with_both_its_values(changes: dict[str, Any], expected: list[Any]) -> None:
    assert found(**changes) == expected


def test_a_name_with_dots_is_kept_as_it_is() -> None:
    files = {"model.onnx": "z", "vocab.txt": "b"}
    pin = ArtifactPin(uri="models:/e/1", files=files, fingerprint="f")
    assert found(embedder=pin) == [("embedder.files.model.onnx", "a", "z")]


def test_fields_come_in_the_order_of_the_manifest_and_added_ones_last() -> None:
    changed = found(dirty=True, code_digest="d", retrieval={"kind": "hybrid", "depth": 9}, gate_digest="h")
    assert [field for field, _, _ in changed] == ["code_digest", "dirty", "gate_digest", "retrieval.depth"]


def test_an_empty_mapping_is_a_value() -> None:
    assert found(guardrails={"topics": {}}) == [("guardrails", {}, None), ("guardrails.topics", None, {})]
    assert found(generator={}) == [
        ("generator.kind", "chat", None),
        ("generator.options.temperature", 0.0, None),
        ("generator.options.stop", ["END"], None),
        ("generator", None, {}),
    ]


def test_a_part_that_is_gone_is_told_leaf_by_leaf() -> None:
    assert found(index=None) == [("index.generation", "g", None), ("index.chunker.digest", "d", None)]


@pytest.mark.parametrize(
    ("before", "after", "fields"),
    [
        ({}, {"seed": None}, ["generator.seed"]),
        ({"seed": 1}, {"seed": True}, ["generator.seed"]),
        ({"top": 1}, {"top": 1.0}, ["generator.top"]),
        ({"a.b": 1}, {"a": {"b": 1}}, ["generator.a.b", "generator.a.b"]),
    ],
    ids=["null or absent", "number or truth", "whole number or not", "dot or nesting"],
)
def test_releases_with_different_ids_always_differ_in_something(
    before: dict[str, Any], after: dict[str, Any], fields: list[str]
) -> None:
    one, other = (BASE.model_copy(update={"generator": {"kind": "chat", **each}}) for each in (before, after))
    assert one.release_id != other.release_id
    assert [each.field for each in differences(one, other)] == fields
