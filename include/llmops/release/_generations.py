"""Which chunkers and generations an assistant's releases use, and bringing generations up to date."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter

from llmops.assistant import Assistant
from llmops.corpus import Chunker
from llmops.database import advisory_lock, connect
from llmops.embedding import Embedder
from llmops.index import Generation, SyncCounts, generations, sync
from llmops.lakehouse import LakeTable
from llmops.manifest import ArtifactPin, Manifest
from llmops.release._assemble import own_embedder, registry_of
from llmops.release._ledger import current_release
from llmops.release._store import list_releases, read_manifest
from llmops.settings import Environment

_CHUNKER: TypeAdapter[Chunker] = TypeAdapter(Chunker)


def ensure_embedder(environment: Environment, assistant: Assistant) -> ArtifactPin | None:
    """Register the assistant's embedder unless it is; None when the assistant retrieves nothing."""
    if assistant.retrieval.kind == "none":
        return None
    url = environment.database_url.get_secret_value()
    with advisory_lock(url, f"embedder:{environment.catalog}:{assistant.name}"):
        return assistant.embedder.ensure(registry_of(environment, assistant.name), environment.endpoints)


def chunkers_in_use(environment: Environment, assistant: Assistant) -> dict[str, tuple[Chunker, Path]]:
    """Return digest → (chunker, tokenizer file): the assistant's own, and that of every generation still followed.

    A generation keeps its own chunking until it is retired, so that changing the chunker changes no answer.
    """
    if assistant.retrieval.kind == "none":
        return {}
    registry = registry_of(environment, assistant.name)
    tokenizer = Embedder.load(registry.fetch(own_embedder(registry, assistant))).tokenizer_file
    chunkers = {assistant.chunker.digest(tokenizer): (assistant.chunker, tokenizer)}
    for manifest in _followed_manifests(environment, assistant.name):
        if manifest.index is None or manifest.embedder is None:
            continue
        settings = {key: value for key, value in manifest.index.chunker.items() if key != "digest"}
        file = Embedder.load(registry.fetch(manifest.embedder)).tokenizer_file
        chunkers[str(manifest.index.chunker["digest"])] = (_CHUNKER.validate_python(settings), file)
    return chunkers


def load_embedder(environment: Environment, generation: Generation) -> Embedder:
    """Return the embedder of a generation, every file checked against its digest."""
    pin: ArtifactPin = generation.embedder
    folder = registry_of(environment, generation.assistant).fetch(pin)
    return Embedder.load(folder, endpoints=environment.endpoints)


def sync_generation(environment: Environment, generation: Generation) -> SyncCounts:
    """Bring one generation to the head of its chunks table."""
    return sync(
        environment.database_url.get_secret_value(),
        generation.id,
        LakeTable(environment.table_root(generation.assistant), "chunks"),
        load_embedder(environment, generation),
    )


def sync_generations(environment: Environment, assistant: str) -> list[SyncCounts]:
    """Bring every live or building generation of one assistant to the head of its chunks table."""
    url = environment.database_url.get_secret_value()
    following = [g for g in generations(url, assistant) if g.state in ("live", "building")]
    return [sync_generation(environment, generation) for generation in following]


def standing(environment: Environment, manifest: Manifest) -> str:
    """Return where a release is: ``production``, ``waiting`` for its approvers, or ``new``."""
    release_id = manifest.release_id
    with connect(environment.database_url.get_secret_value()) as connection:
        if current_release(connection, manifest.assistant, "production") == release_id:
            return "production"
        waiting = connection.execute(
            "SELECT 1 FROM approval_requests r LEFT JOIN approvals a USING (nonce) "
            "WHERE r.release_id = %s AND a.nonce IS NULL AND r.deadline > now()",
            (release_id,),
        ).fetchone()
    return "waiting" if waiting else "new"


def _followed_manifests(environment: Environment, assistant: str) -> list[Manifest]:
    """Return one manifest for every live or building generation."""
    url = environment.database_url.get_secret_value()
    followed = {g.id for g in generations(url, assistant) if g.state in ("live", "building")}
    found: dict[str, Manifest] = {}
    for release in list_releases(url, assistant):
        manifest = read_manifest(url, release.release_id)
        if manifest.index is not None and manifest.index.generation in followed - set(found):
            found[manifest.index.generation] = manifest
    return list(found.values())
