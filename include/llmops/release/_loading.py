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
from llmops.index import Hit, search
from llmops.manifest import Manifest
from llmops.release._assemble import registry_of
from llmops.release._code import code_digest
from llmops.release._ledger import current_release, newest_move
from llmops.release._store import read_manifest
from llmops.release._verify import evidence_for, require_generation, require_matching, require_not_revoked
from llmops.settings import EndpointAccess, Environment

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
    require_generation(environment, manifest)
    embedder = _embedder(registry.fetch(manifest.embedder), tuple(environment.endpoints.items()))
    require_matching(embedder, manifest)
    pool = open_pool(url, size=8, wait_seconds=10)
    generation = manifest.index.generation

    def searcher(question: str, vector: Any) -> list[Hit]:
        with pool.connection() as connection:
            return search(
                connection, generation, question, vector,
                top_k=settings.top_k, candidates=settings.candidates, mode=settings.mode,
                access=settings.access,
            )  # fmt: skip

    chain = Chain(generator, settings, prompt, embedder=embedder, searcher=searcher)
    return LoadedRelease(manifest.release_id, manifest, chain, pool.close)


def production_release(environment: Environment, assistant: str) -> str | None:
    """Return the release id that the ledger says is in production, or None when there is none."""
    with connect(environment.database_url.get_secret_value()) as connection:
        return current_release(connection, assistant, "production")


def alias_doubt(environment: Environment, assistant: str) -> str | None:
    """Return what is wrong when the alias ``production`` is not where the ledger says, or None when they agree.

    The ledger is what the service answers from, so an alias that somebody moved by hand changes no answer.
    """
    pointed = registry_of(environment, assistant).alias("production")
    entered = production_release(environment, assistant)
    if (pointed[0] if pointed else None) == entered:
        return None
    return (
        f"alias 'production' of {assistant!r} points at release {(pointed[0] if pointed else 'none')[:12]}, the ledger "
        f"says {(entered or 'none')[:12]}: it was moved without a promotion, and nobody is answered from it; "
        "`llmops release rollback --to` the one that you want puts it right"
    )


def load_release(environment: Environment, assistant: str) -> LoadedRelease | None:
    """Return the production release, ready to answer, or None when there is none yet.

    Raises NotApproved, IntegrityError or SignatureInvalid, before anything is deserialised, unless the ledger's
    entry, the notary's signature under its approval and every pinned file are what they should be.
    """
    manifest = _verified(environment, assistant)
    return build_chain(environment, manifest) if manifest else None


def _verified(environment: Environment, assistant: str) -> Manifest | None:
    """Return the manifest of the production release, with everything that stands behind it verified."""
    with connect(environment.database_url.get_secret_value()) as connection:
        entry = newest_move(connection, assistant, "production")
        if entry is None or entry.to_release is None:
            return None
        manifest = read_manifest(connection, entry.to_release)
        require_not_revoked(connection, entry.to_release)
        evidence_for(environment, manifest, entry, connection)
    return manifest


def report_replica(
    environment: Environment, assistant: str, release_id: str, replica_id: str, address: str | None = None
) -> None:
    """Say which release and code one replica of the service answers with, and where it alone can be asked."""
    with connect(environment.database_url.get_secret_value()) as connection:
        connection.execute(
            "INSERT INTO replicas (assistant, replica_id, release_id, code_digest, address) "
            "VALUES (%s, %s, %s, %s, %s) ON CONFLICT (assistant, replica_id) DO UPDATE "
            "SET release_id = excluded.release_id, code_digest = excluded.code_digest, "
            "address = excluded.address, seen_at = now()",
            (assistant, replica_id, release_id, code_digest(), address),
        )
        connection.execute("DELETE FROM replicas WHERE seen_at < now() - interval '1 day'")


@functools.lru_cache(maxsize=4)
def _embedder(folder: Path, endpoints: tuple[tuple[str, EndpointAccess], ...]) -> Embedder:
    """Return the embedder of a folder; releases that share it share what it remembers.

    The folder's name is the digest of what it holds, so it never comes to hold something else.
    """
    return RememberingEmbedder.load(folder, endpoints=dict(endpoints))
