"""From a manifest to a chain that answers, every part checked against its pin."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from llmops.answers import open_pool
from llmops.chain import Chain, Generator, Retrieval
from llmops.database import connect
from llmops.embedding import Embedder, RememberingEmbedder
from llmops.errors import EmbedderMismatch, IntegrityError, MissingInput
from llmops.index import Hit, generations, search
from llmops.manifest import Manifest
from llmops.release._assemble import registry_of
from llmops.release._code import code_digest
from llmops.release._store import Alias, current_release, read_manifest
from llmops.settings import Environment

log = logging.getLogger(__name__)

_GENERATOR: TypeAdapter[Any] = TypeAdapter(Generator)
_RETRIEVAL: TypeAdapter[Any] = TypeAdapter(Retrieval)


@dataclass(frozen=True)
class LoadedRelease:
    """A release that is ready to answer; ``close`` gives back its database connections."""

    release_id: str
    manifest: Manifest
    chain: Chain
    close: Callable[[], None]


def build_chain(
    environment: Environment, manifest: Manifest, retrieval: dict[str, Any] | None = None
) -> LoadedRelease:
    """Build the chain that a manifest describes, from this package's own code; no code of an artifact runs.

    ``retrieval`` replaces the manifest's own, for a baseline to compare with.
    """
    url = environment.database_url.get_secret_value()
    registry = registry_of(environment, manifest.assistant)
    settings = _RETRIEVAL.validate_python(retrieval or manifest.retrieval)
    generator = _GENERATOR.validate_python(manifest.generator)
    prompt = registry.prompt_text(manifest.prompt)
    if manifest.embedder is None or manifest.index is None:
        chain = Chain(generator, settings, prompt, embedder=None, searcher=None)
        return LoadedRelease(manifest.release_id, manifest, chain, lambda: None)
    embedder = _embedder(registry.fetch(manifest.embedder))
    _check_generation(url, manifest, embedder)
    pool = open_pool(url, size=8, wait_seconds=10)
    generation = manifest.index.generation

    def searcher(question: str, vector: Any) -> list[Hit]:
        with pool.connection() as connection:
            return search(
                connection, generation, question, vector,
                top_k=settings.top_k, candidates=settings.candidates, mode=settings.mode,
            )  # fmt: skip

    chain = Chain(generator, settings, prompt, embedder=embedder, searcher=searcher)
    return LoadedRelease(manifest.release_id, manifest, chain, pool.close)


def production_release(environment: Environment, assistant: str) -> str | None:
    """Return the release id that alias and ledger agree is in production, or None when there is none.

    Raises IntegrityError when the alias points at a release that the ledger does not name: someone moved it
    without an approval, or a promotion is just between its two steps.
    """
    return _agreed(environment, assistant, "production")


def load_release(
    environment: Environment, assistant: str, alias: Alias = "production"
) -> LoadedRelease | None:
    """Return the release behind an alias, ready to answer, or None when there is none yet."""
    release_id = _agreed(environment, assistant, alias)
    if release_id is None:
        return None
    manifest = read_manifest(environment.database_url.get_secret_value(), release_id)
    return build_chain(environment, manifest)


def report_replica(environment: Environment, assistant: str, release_id: str, replica_id: str) -> None:
    """Say which release and code one replica of the service answers with."""
    with connect(environment.database_url.get_secret_value()) as connection:
        connection.execute(
            "INSERT INTO replicas (assistant, replica_id, release_id, code_digest) VALUES (%s, %s, %s, %s) "
            "ON CONFLICT (assistant, replica_id) DO UPDATE SET release_id = excluded.release_id, "
            "code_digest = excluded.code_digest, seen_at = now()",
            (assistant, replica_id, release_id, code_digest()),
        )
        connection.execute("DELETE FROM replicas WHERE seen_at < now() - interval '1 day'")


def _agreed(environment: Environment, assistant: str, alias: Alias) -> str | None:
    pointed = registry_of(environment, assistant).alias(alias)
    with connect(environment.database_url.get_secret_value()) as connection:
        entered = current_release(connection, assistant, alias)
    if pointed is None:
        return None
    if pointed[0] != entered:
        raise IntegrityError(
            f"alias {alias!r} of {assistant!r} points at release {pointed[0][:12]}, but the ledger says "
            f"{(entered or 'none')[:12]}: it was moved without a promotion; run rollback_release, or promote again"
        )
    return entered


@functools.lru_cache(maxsize=4)
def _embedder(folder: Path) -> Embedder:
    """Return the embedder of a folder; releases that share it share what it remembers.

    The folder's name is the digest of what it holds, so it never comes to hold something else.
    """
    return RememberingEmbedder.load(folder)


def _check_generation(url: str, manifest: Manifest, embedder: Embedder) -> None:
    assert manifest.index is not None
    known = {generation.id: generation for generation in generations(url, manifest.assistant)}
    generation = known.get(manifest.index.generation)
    if generation is None:
        raise MissingInput(
            f"release {manifest.release_id[:12]} answers from index generation {manifest.index.generation!r}, which is "
            "not there (any more): run release_assistant, which builds it again"
        )
    if generation.fingerprint != embedder.fingerprint:
        raise EmbedderMismatch(
            f"release {manifest.release_id[:12]} pairs index generation {generation.id!r} "
            f"(embedder {generation.fingerprint[:12]}) with embedder {embedder.fingerprint[:12]}: assemble it again"
        )
