"""The manifest: equal content has one id, and what was changed or damaged is refused."""

import json
import math
from typing import Any

import pytest
from pydantic import ValidationError

from llmops.errors import IntegrityError
from llmops.manifest import (
    ArtifactPin,
    IndexPin,
    Manifest,
    PromptPin,
    canonical_json,
    content_hash,
    parse_manifest,
)


def _manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "assistant": "guide",
        "environment": "dev",
        "code_digest": "c" * 64,
        "commit": "d" * 40,
        "dirty": False,
        "prompt": PromptPin(uri="prompts:/p/1", text_hash="a" * 64),
        "generator": {"kind": "chat", "model": "m", "temperature": 0.2},
        "embedder": ArtifactPin(uri="models:/e/1", files={"a": "1", "b": "2"}, fingerprint="f"),
        "index": IndexPin(generation="g1", chunker={"kind": "structure", "max_tokens": 200}),
        "retrieval": {"kind": "hybrid", "top_k": 8},
        "guardrails": {},
        "evaluation_digest": "e" * 64,
        "prices_digest": "d" * 64,
        "gate_digest": "9" * 64,
        "committers": None,
        "authors": ("a person",),
    }
    return Manifest(**{**values, **changes})


def _reversed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _reversed(value[key]) for key in reversed(value)}
    return [_reversed(item) for item in value] if isinstance(value, list) else value


def test_the_id_does_not_depend_on_the_order_of_keys() -> None:
    manifest = _manifest()
    values = manifest.model_dump(mode="json")
    turned = json.dumps(_reversed(values), indent=2)
    assert turned.index('"authors"') < turned.index('"assistant"')
    assert parse_manifest(turned, manifest.release_id) == manifest
    assert len(manifest.release_id) == 64


def test_the_id_of_the_same_content_never_changes() -> None:
    value = {"b": [1, 0.5, None, True], "a": "ä"}
    assert content_hash(value) == "4a43f482637497e930fdcf4b1493bb240385e1a9f4c8b34d21e009e38306a16c"
    assert canonical_json(value) == '{"a":"ä","b":[1,0.5,null,true]}'


@pytest.mark.parametrize(
    "change",
    [
        {"dirty": True},
        {"authors": ("another",)},
        {"retrieval": {"kind": "hybrid", "top_k": 9}},
        {"generator": {"kind": "chat", "model": "m", "temperature": None}},
        {"embedder": None, "index": None},
    ],
)
def test_every_difference_is_another_release(change: dict[str, Any]) -> None:
    assert _manifest(**change).release_id != _manifest().release_id


def test_a_changed_manifest_is_refused() -> None:
    release_id = _manifest().release_id
    changed = _manifest(dirty=True)
    with pytest.raises(IntegrityError, match="it was changed after it was made") as raised:
        parse_manifest(changed.model_dump_json(), release_id)
    assert release_id in str(raised.value)
    assert changed.release_id in str(raised.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "text: Invalid JSON"),
        ('{"assistant": "guide"', "text: Invalid JSON"),
        ("[]", "text: "),
        (_manifest().model_dump_json().replace('"dirty":false', '"dirty":"perhaps"'), "dirty: "),
        (_manifest().model_dump_json().replace('"dirty"', '"filthy"'), "filthy: Extra inputs"),
        (
            _manifest().model_dump_json().replace('"schema_version":2', '"schema_version":1'),
            "schema_version: ",
        ),
    ],
)
def test_a_damaged_manifest_is_refused(text: str, named: str) -> None:
    release_id = _manifest().release_id
    with pytest.raises(IntegrityError, match="is damaged") as raised:
        parse_manifest(text, release_id)
    assert release_id in str(raised.value)
    assert named in str(raised.value)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        canonical_json({"a": [number]})
    for key in ("generator", "retrieval"):
        with pytest.raises(ValidationError, match="Out of range float"):
            _manifest(**{key: {"kind": "x", "deep": [{"number": number}]}})
    with pytest.raises(ValidationError, match="Out of range float"):
        IndexPin(generation="g", chunker={"number": number})


def test_a_stored_number_that_is_not_finite_is_refused() -> None:
    manifest = _manifest(generator={"temperature": None})
    text = manifest.model_dump_json().replace('"temperature":null', '"temperature":NaN')
    with pytest.raises(IntegrityError, match=r"generator: .*Out of range float"):
        parse_manifest(text, manifest.release_id)
