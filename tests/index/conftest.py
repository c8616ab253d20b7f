from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from index.corpus import Corpus
from llmops.index import Generation, create_generation, generation_id, sync
from llmops.index._sync import SyncCounts
from llmops.manifest import ArtifactPin
from support.hash_embedder import HashEmbedder
from support.services import FreshDatabase

CHUNKER = "c" * 12


@dataclass
class Index:
    """One generation over one chunks table, written by the worker's role."""

    database: FreshDatabase
    corpus: Corpus
    embedder: HashEmbedder
    generation: Generation

    @property
    def id(self) -> str:
        return self.generation.id

    @property
    def url(self) -> str:
        return self.database.url("llmops_worker")

    def sync(self, **options: Any) -> SyncCounts:
        return sync(self.url, self.id, self.corpus.table, self.embedder, **options)

    def write(self, documents: Mapping[str, str], **options: Any) -> SyncCounts:
        self.corpus.write(documents, **options)
        return self.sync()


def a_generation(embedder: HashEmbedder, *, assistant: str = "guide", chunker: str = CHUNKER) -> Generation:
    return Generation(
        id=generation_id(assistant, embedder.fingerprint, chunker, "dev"),
        assistant=assistant,
        embedder=ArtifactPin(uri="models:/dev.guide.embedder/1", files={}, fingerprint=embedder.fingerprint),
        fingerprint=embedder.fingerprint,
        dimension=embedder.dimension,
        chunker=chunker,
    )


@pytest.fixture
def corpus(database: FreshDatabase, tmp_path: Path) -> Corpus:
    return Corpus(tmp_path / "lake", database.url("llmops_worker"))


@pytest.fixture
def index(database: FreshDatabase, corpus: Corpus) -> Index:
    embedder = HashEmbedder()
    generation = a_generation(embedder)
    create_generation(database.url("llmops_worker"), generation)
    return Index(database, corpus, embedder, generation)
