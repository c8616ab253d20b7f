"""From an assistant's file to a manifest: everything an answer depends on, pinned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmops.assistant import Assistant
from llmops.database import connect
from llmops.embedding import Embedder
from llmops.errors import ConfigurationError, MissingInput
from llmops.evaluation import Case, cases_digest, derive_cases, load_cases, save_cases
from llmops.index import Generation, create_generation, generation_id
from llmops.lakehouse import LakeTable
from llmops.manifest import ArtifactPin, IndexPin, Manifest, content_hash
from llmops.prices import load_prices
from llmops.registry import Registry
from llmops.release._code import code_digest, commit, committers, is_dirty
from llmops.release._ledger import current_release
from llmops.release._store import read_manifest, save_manifest
from llmops.settings import Environment, home
from llmops.training import newest_embedder

if TYPE_CHECKING:
    import pyarrow as pa

_DERIVED_CASES = 60
_SEED = 7


def registry_of(environment: Environment, assistant: str) -> Registry:
    """Return the model registry of one assistant in one environment."""
    return Registry(environment.mlflow_url, environment.catalog, assistant, home() / "models")


def assemble(
    environment: Environment, assistant: Assistant, embedder_uri: str | None, authors: Sequence[str]
) -> Manifest:
    """Pin everything the assistant would answer with now, store the manifest and return it.

    ``embedder_uri`` names a registered embedder; None takes the newest of the assistant's own. Authors are ``authors``
    (who started this), who trained the embedder, and who changed the code since production; without any of them
    the notary asks for two approvers. Raises MissingInput where a part is not there yet.
    """
    registry = registry_of(environment, assistant.name)
    pin = None if assistant.retrieval.kind == "none" else own_embedder(registry, assistant, embedder_uri)
    wrote = _committers(environment, assistant.name)
    people = tuple(sorted({name for name in (*authors, *_trainers(registry, pin), *(wrote or ())) if name}))
    cases = evaluation_cases(environment, assistant)
    manifest = Manifest(
        assistant=assistant.name,
        environment=environment.name,
        code_digest=code_digest(),
        commit=commit(),
        dirty=is_dirty(),
        prompt=registry.register_prompt(assistant.prompt),
        generator=assistant.generator.model_dump(mode="json"),
        embedder=pin,
        index=_index(environment, assistant, registry, pin) if pin else None,
        retrieval=assistant.retrieval.model_dump(mode="json"),
        guardrails={},
        evaluation_digest=cases_digest(cases),
        prices_digest=load_prices().digest,
        gate_digest=content_hash(assistant.gate.model_dump(mode="json")),
        committers=wrote,
        authors=people,
    )
    save_manifest(environment.database_url.get_secret_value(), manifest)
    save_cases(cases, _cases_file(environment, manifest))
    return manifest


def ensure_generation(environment: Environment, release_id: str) -> Generation | None:
    """Return the index generation a release names, created empty if it is not there; None without retrieval."""
    url = environment.database_url.get_secret_value()
    manifest = read_manifest(url, release_id)
    if manifest.embedder is None or manifest.index is None:
        return None
    embedder = Embedder.load(registry_of(environment, manifest.assistant).fetch(manifest.embedder))
    generation = Generation(
        id=manifest.index.generation,
        assistant=manifest.assistant,
        embedder=manifest.embedder,
        fingerprint=embedder.fingerprint,
        dimension=embedder.dimension,
        chunker=str(manifest.index.chunker["digest"]),
    )
    create_generation(url, generation)
    return generation


def release_cases(environment: Environment, manifest: Manifest) -> list[Case]:
    """Return the evaluation cases that a manifest pins; raise MissingInput when they are gone."""
    path = _cases_file(environment, manifest)
    if not path.is_file():
        raise MissingInput(f"the evaluation cases of release {manifest.release_id[:12]} are gone from {path}")
    cases = load_cases(path)
    if cases_digest(cases) != manifest.evaluation_digest:
        raise MissingInput(f"{path} no longer holds the cases that release {manifest.release_id[:12]} pins")
    return cases


def own_embedder(registry: Registry, assistant: Assistant, uri: str | None = None) -> ArtifactPin:
    """Return the pin of the embedder at ``uri``, by default the newest of the one that the assistant chooses."""
    pin = registry.pin(uri) if uri else newest_embedder(registry, assistant.embedder)
    if pin is None:
        raise MissingInput(
            f"assistant {assistant.name!r} has no embedder yet: run ingest_documents first, it registers the one of "
            "the assistant's file"
        )
    return pin


def _index(environment: Environment, assistant: Assistant, registry: Registry, pin: ArtifactPin) -> IndexPin:
    digest = assistant.chunker.digest(Embedder.load(registry.fetch(pin)).tokenizer_file)
    generation = generation_id(assistant.name, pin.fingerprint, digest, environment.catalog)
    return IndexPin(
        generation=generation, chunker={"digest": digest, **assistant.chunker.model_dump(mode="json")}
    )


def _committers(environment: Environment, assistant: str) -> tuple[str, ...] | None:
    """Return who changed code, prompt or configuration since the production release; None where nobody can tell.

    The same code has the same committers, however often it is released.
    """
    url = environment.database_url.get_secret_value()
    with connect(url) as connection:
        production = current_release(connection, assistant, "production")
    if production is None:
        return committers(None)
    before = read_manifest(url, production)
    return before.committers if before.commit and before.commit == commit() else committers(before.commit)


def _trainers(registry: Registry, pin: ArtifactPin | None) -> list[str]:
    """Return who trained the pinned embedder: they are authors of every release of it."""
    tags = [model.tags for model in registry.models("embedder") if pin and model.uri == pin.uri]
    return [name for found in tags for name in found.get("trained_by", "").split(",")]


def own_chunks(environment: Environment, assistant: Assistant) -> pa.Table:
    """Return the chunks that the assistant's own chunker made, without those of earlier releases' chunkers."""
    import pyarrow.compute as pc

    registry = registry_of(environment, assistant.name)
    digest = assistant.chunker.digest(
        Embedder.load(registry.fetch(own_embedder(registry, assistant))).tokenizer_file
    )
    chunks = LakeTable(environment.table_root(assistant.name), "chunks").read()
    return chunks.filter(pc.equal(pc.cast(chunks["chunker"], "large_string"), digest))


def evaluation_cases(environment: Environment, assistant: Assistant) -> list[Case]:
    """Return the cases of the assistant's file, or cases derived from about half of its documents.

    The other half, chosen by document id, is left for training. Raises MissingInput without any chunk.
    """
    written = list(assistant.cases())
    if written:
        return written
    if assistant.retrieval.kind == "none":
        raise ConfigurationError(
            f"assistant {assistant.name!r} has neither documents nor evaluation_cases: "
            "write a file of cases and name it under evaluation_cases"
        )
    import pyarrow as pa

    chunks = own_chunks(environment, assistant)
    half = pa.array([int(name[:4], 16) % 2 == 0 for name in chunks["document_id"].to_pylist()], pa.bool_())
    chosen = chunks.filter(half)
    return derive_cases(chosen if chosen.num_rows else chunks, limit=_DERIVED_CASES, seed=_SEED)


def _cases_file(environment: Environment, manifest: Manifest) -> Path:
    return Path(environment.table_root(manifest.assistant)) / "_cases" / f"{manifest.evaluation_digest}.jsonl"
