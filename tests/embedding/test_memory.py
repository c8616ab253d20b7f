"""A remembered vector is the vector that would be computed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from llmops.embedding import Embedder, RememberingEmbedder, _memory

TEXTS = ["A pool keeps connections.", "Fog", "A pool keeps connections.", "", "ships in the harbour " * 30]


def test_it_returns_what_a_plain_embedder_returns_and_computes_each_text_once(
    base_embedder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Embedder.load(base_embedder).embed(TEXTS)
    embedder = RememberingEmbedder.load(base_embedder)
    assert isinstance(embedder, RememberingEmbedder)
    computed: list[str] = []
    plain = Embedder._vectors
    monkeypatch.setattr(
        Embedder,
        "_vectors",
        lambda self, texts, meter: (computed.extend(texts), plain(self, texts, meter))[1],
    )
    for _ in range(2):
        assert np.array_equal(embedder.embed(TEXTS), expected)
    assert sorted(computed) == sorted(set(TEXTS))
    assert embedder.embed([]).shape == (0, embedder.dimension)


def test_it_forgets_what_was_used_longest_ago(base_embedder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "_REMEMBERED", 2)
    embedder = RememberingEmbedder.load(base_embedder)
    embedder.embed(["one", "two"])
    embedder.embed(["one", "three"])
    assert list(embedder._memory) == ["one", "three"]


def test_threads_may_share_it(base_embedder: Path) -> None:
    embedder = RememberingEmbedder.load(base_embedder)
    expected = Embedder.load(base_embedder).embed(TEXTS)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: embedder.embed(TEXTS), range(32)))
    assert all(np.array_equal(result, expected) for result in results)
