"""An assistant whose embedder is behind an endpoint: registered, indexed, searched; real stores, a fake endpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from index.corpus import Corpus
from llmops.assistant import Assistant
from llmops.chain import HybridRetrieval
from llmops.corpus import Chunker
from llmops.embedding import Embedder
from llmops.errors import BudgetExceeded, EmbedderMismatch, MissingInput
from llmops.index import Generation, find_generation
from llmops.manifest import IndexPin
from llmops.release import (
    build_chain,
    chunkers_in_use,
    ensure_embedder,
    ensure_generation,
    read_manifest,
    registry_of,
    sync_generation,
)
from llmops.settings import EndpointAccess, Environment
from llmops.training import OnnxEmbedder, OpenAIEmbedder, choice_tags, newest_embedder
from support.fake_embeddings import FakeEmbeddings

KEY = "canary-77e1f0-key"
DOCUMENTS = {
    "pools.md": "A connection pool keeps connections open.\n\nA pool is closed with close.",
    "tables.md": "A table keeps every version of its rows.\n\nVacuum removes old versions.",
    "kilns.md": "The kiln fires clay at night.\n\nGlaze needs a hot kiln.",
}


@pytest.fixture
def fake() -> Iterator[FakeEmbeddings]:
    with FakeEmbeddings(key=KEY) as running:
        assert isinstance(running, FakeEmbeddings)
        yield running


@pytest.fixture
def environment(environment: Environment, fake: FakeEmbeddings, tmp_path: Path) -> Environment:
    """The environment knows the fake's key."""
    file = tmp_path / "key"
    file.write_text(KEY)
    file.chmod(0o600)
    endpoints = {fake.host: EndpointAccess(key_file=str(file), timeout_seconds=5)}
    return environment.model_copy(update={"endpoints": endpoints})


def assistant_with(embedder: Any) -> Assistant:
    return Assistant.model_validate(
        {
            "name": "guide",
            "description": "A guide.",
            "sources": [{"kind": "directory", "name": "docs", "path": "docs"}],
            "embedder": embedder,
            "prompt": "{context} {question} {refusal}",
            "gate": {"rules": [{"metric": "quality", "minimum": 0.5}]},
            "approval": {"approvers": ["reviewer"]},
        }
    )


def remote(fake: FakeEmbeddings, **fields: Any) -> dict[str, Any]:
    return {"kind": "openai", "url": fake.url, "model": "hash", "dimension": 32, **fields}


class Built:
    """An assistant with chunks, and a release with an empty index generation."""

    def __init__(self, environment: Environment, fake: FakeEmbeddings, release: Any) -> None:
        self.environment = environment
        self.assistant = assistant_with(remote(fake, query_prefix="question: "))
        pin = ensure_embedder(environment, self.assistant)
        assert pin is not None
        self.pin = pin
        (self.digest,) = chunkers_in_use(environment, self.assistant)
        url = environment.database_url.get_secret_value()
        self.corpus = Corpus(Path(environment.table_root("guide")), url)
        self.corpus.write(DOCUMENTS, chunker=self.digest)
        self.release = release(
            "{context}",
            embedder=pin,
            index=IndexPin(
                generation="remote1",
                chunker={"digest": self.digest, **Chunker().model_dump(mode="json")},
            ),
            retrieval=HybridRetrieval(mode="dense", top_k=2).model_dump(mode="json"),
        )
        found = ensure_generation(environment, self.release)
        assert found is not None
        self.generation: Generation = found


@pytest.fixture
def built(environment: Environment, fake: FakeEmbeddings, release: Any) -> Built:
    return Built(environment, fake, release)


def test_chunks_are_indexed_and_found_through_the_endpoint(
    built: Built, fake: FakeEmbeddings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    counts = sync_generation(built.environment, built.generation)
    assert (counts.embedded, counts.upserted) == (6, 6)
    used = sum(len(text.split()) for text in fake.texts[1:])  # the first is what registering it asked
    assert f"used {used} tokens, cost unknown" in caplog.text
    loaded = build_chain(
        built.environment, read_manifest(built.environment.database_url.get_secret_value(), built.release)
    )
    try:
        hits = loaded.chain.find("Which kiln fires clay?")
    finally:
        loaded.close()
    assert hits[0].path == "kilns.md"
    assert fake.texts[-1] == "question: Which kiln fires clay?"
    again = sync_generation(built.environment, built.generation)
    assert again.embedded == 0
    assert KEY not in caplog.text


def test_the_files_that_are_registered_hold_no_key_and_make_the_fingerprint(
    built: Built, fake: FakeEmbeddings
) -> None:
    folder = registry_of(built.environment, "guide").fetch(built.pin)
    assert sorted(path.name for path in folder.iterdir()) == ["embedder.json", "tokenizer.json"]
    assert Embedder.load(folder).fingerprint == built.pin.fingerprint
    assert KEY not in "".join(path.read_text() for path in folder.iterdir())


def test_a_changed_model_leaves_the_index_as_it_was(built: Built, fake: FakeEmbeddings) -> None:
    url = built.environment.database_url.get_secret_value()
    sync_generation(built.environment, built.generation)
    before = find_generation(url, built.generation.id)
    built.corpus.write({**DOCUMENTS, "new.md": "Something new."}, chunker=built.digest)
    fake.model = "another"
    with pytest.raises(EmbedderMismatch, match="another model now"):
        sync_generation(built.environment, built.generation)
    assert find_generation(url, built.generation.id) == before


def test_what_was_embedded_before_the_budget_ended_is_not_paid_for_twice(
    built: Built, fake: FakeEmbeddings
) -> None:
    many = {f"{i}.md": f"Text number {i} of the many" for i in range(120)}
    built.corpus.write(many, chunker=built.digest)
    (host,) = built.environment.endpoints
    tight = built.environment.endpoints[host].model_copy(
        update={"max_tokens": 600, "batch_texts": 8, "concurrency": 1}
    )
    environment = built.environment.model_copy(update={"endpoints": {host: tight}})
    runs = 0
    while True:
        runs += 1
        assert runs < 20
        try:
            counts = sync_generation(environment, built.generation)
        except BudgetExceeded:
            continue
        break
    assert runs > 1
    assert counts.upserted == 120
    sent = [text for text in fake.texts if "Text number" in text]
    assert len(sent) == len(set(sent)) == 120


def test_an_embedder_is_registered_once_and_again_when_it_changed(
    environment: Environment, fake: FakeEmbeddings
) -> None:
    first = ensure_embedder(environment, assistant_with(remote(fake)))
    asked = len(fake.history)
    assert ensure_embedder(environment, assistant_with(remote(fake))) == first
    assert len(fake.history) == asked
    second = ensure_embedder(environment, assistant_with(remote(fake, query_prefix="q: ")))
    assert first is not None
    assert second is not None
    assert second.fingerprint != first.fingerprint
    back = assistant_with(remote(fake))
    assert ensure_embedder(environment, back) == first
    assert newest_embedder(registry_of(environment, "guide"), back.embedder) == first


def test_what_was_trained_from_another_choice_is_passed_over(
    environment: Environment, fake: FakeEmbeddings, tmp_path: Path
) -> None:
    registry = registry_of(environment, "guide")
    local, far = OnnxEmbedder(), OpenAIEmbedder.model_validate(remote(fake))

    def register(name: str, **tags: str) -> str:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "embedder.json").write_text(name)
        return registry.register_model("embedder", folder, params={}, metrics={}, tags=tags).uri

    def newest(choice: Any) -> str | None:
        pin = newest_embedder(registry, choice)
        return pin and pin.uri

    assert newest(local) is None
    base = register("base", configured=local.identity)
    trained = register("trained", **choice_tags(registry, base))
    assert (newest(local), newest(far)) == (trained, None)
    there = far.ensure(registry, environment.endpoints).uri
    assert (newest(local), newest(far)) == (trained, there)
    by_hand = register("by hand", base_model="a folder")
    assert (newest(local), newest(far)) == (by_hand, by_hand)


def test_without_a_registered_embedder_it_is_said_what_registers_one(
    environment: Environment, fake: FakeEmbeddings
) -> None:
    with pytest.raises(MissingInput, match="run ingest_documents first"):
        chunkers_in_use(environment, assistant_with(remote(fake)))
