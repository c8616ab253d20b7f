from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest

from llmops.index import Hit
from llmops.release import _loading
from support.hash_embedder import HashEmbedder


@pytest.mark.parametrize("access", [(), ("staff", "team:legal")])
def test_a_release_searches_with_the_tags_that_its_retrieval_names(
    monkeypatch: pytest.MonkeyPatch, access: tuple[str, ...]
) -> None:
    asked: list[dict[str, Any]] = []

    def search(*arguments: object, **options: Any) -> list[Hit]:
        asked.append(options)
        return []

    pool = SimpleNamespace(connection=contextlib.nullcontext, close=lambda: None)
    registry = SimpleNamespace(prompt_text=lambda pin: "Answer from {context}", fetch=lambda pin: None)
    for name, stand_in in {
        "search": search,
        "registry_of": lambda *arguments: registry,
        "open_pool": lambda *arguments, **options: pool,
        "require_generation": lambda *arguments: None,
        "require_matching": lambda *arguments: None,
        "_embedder": lambda folder, endpoints: HashEmbedder(),
    }.items():
        monkeypatch.setattr(_loading, name, stand_in)
    manifest: Any = SimpleNamespace(
        release_id="r", assistant="guide", prompt=None, embedder="pin", index=SimpleNamespace(generation="g"),
        generator={"kind": "extractive"},
        retrieval={"kind": "hybrid", "top_k": 3, **({"access": list(access)} if access else {})},
    )  # fmt: skip
    environment: Any = SimpleNamespace(
        database_url=SimpleNamespace(get_secret_value=lambda: "postgresql://"), endpoints={}
    )

    _loading.build_chain(environment, manifest).chain.answer("What is a salary?")

    assert [options["access"] for options in asked] == [access]
    assert asked[0]["top_k"] == 3
