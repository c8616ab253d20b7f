"""A fake endpoint of embeddings, and embedders made from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmops.embedding import Embedder, OpenAIPlace, save_remote
from llmops.settings import EndpointAccess
from llmops.training import packaged_tokenizer
from support.fake_embeddings import FakeEmbeddings

QUICK = EndpointAccess(timeout_seconds=3, attempts=3)
TEXTS = ["one pool", "two tables of a lake", "three indexes", "one pool again"]


@pytest.fixture(scope="session")
def tokenizer() -> bytes:
    return packaged_tokenizer()


@pytest.fixture
def fake() -> Iterator[FakeEmbeddings]:
    with FakeEmbeddings() as running:
        assert isinstance(running, FakeEmbeddings)
        yield running


class Made:
    """Registers the fake as an embedder in a folder and loads it."""

    def __init__(self, folder: Path, tokenizer: bytes) -> None:
        self.folder = folder
        self._tokenizer = tokenizer

    def save(
        self, fake: FakeEmbeddings, access: EndpointAccess = QUICK, name: str = "embedder", **fields: Any
    ) -> Path:
        place = OpenAIPlace(**{"url": fake.url, "model": "hash", "dimension": 32, **fields})
        return save_remote(place, self.folder / name, self._tokenizer, {fake.host: access})

    def load(self, fake: FakeEmbeddings, access: EndpointAccess = QUICK, **fields: Any) -> Embedder:
        return Embedder.load(self.save(fake, **fields), endpoints={fake.host: access})

    def ready(self, fake: FakeEmbeddings, access: EndpointAccess = QUICK, **fields: Any) -> Embedder:
        """Load, and have the probe looked at, so that the next request is the test's own."""
        embedder = self.load(fake, access, **fields)
        embedder.embed(["ready"])
        fake.history.clear()
        fake.most = 0
        return embedder


@pytest.fixture
def made(tmp_path: Path, tokenizer: bytes) -> Made:
    return Made(tmp_path, tokenizer)
