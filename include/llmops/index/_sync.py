"""Bring a generation to the newest version of the chunks table."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.types.json import Jsonb

from llmops.database import connect
from llmops.embedding import Embedder, embed_cached
from llmops.errors import EmbedderMismatch, IntegrityError, MissingInput, WriteConflict
from llmops.index._generations import Generation, find_generation, named_errors, read_generation
from llmops.index._write import copy_rows, drop_stage, merge_stage, open_stage
from llmops.lakehouse import LakeTable

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["SyncCounts", "is_current", "sync"]

log = logging.getLogger(__name__)

_SLICE = 256
_IDLE_LIMIT = "300s"
"""A worker that sends nothing for so long is taken for dead: Postgres ends its session and frees its lock."""


@dataclass(frozen=True)
class SyncCounts:
    """What a sync did: texts embedded now and reused, rows written and removed, the version it reached."""

    embedded: int = 0
    reused: int = 0
    upserted: int = 0
    deleted: int = 0
    version: int | None = None


def sync(
    url: str,
    generation_id: str,
    chunks: LakeTable,
    embedder: Embedder,
    *,
    wait_seconds: float = 600,
    progress: Callable[[int, int], None] | None = None,
) -> SyncCounts:
    """Apply what changed in the chunks table since the generation's watermark; nothing changed costs nothing.

    Rows and watermark are committed in one transaction, so a reader sees each document wholly old or wholly
    new. One process works at a time; others wait up to ``wait_seconds`` and then find nothing to do.
    ``progress`` is called with the number of chunks embedded so far and in all.

    Raises EmbedderMismatch for another embedder than the generation's, MissingInput when generation or
    chunks table is not there, WriteConflict when another process keeps the lock, ServiceUnavailable when
    Postgres goes away, BudgetExceeded at the end of the embedder's budget for one run, and what asking an endpoint
    raises; what was embedded until then is reused by the next attempt.
    """
    known = find_generation(url, generation_id)
    _require_embedder(known, embedder)
    if is_current(known, chunks):
        return SyncCounts(version=known.watermark)
    with named_errors(generation_id), connect(url, autocommit=True) as connection:
        _lock(connection, generation_id, wait_seconds)
        known = read_generation(connection, generation_id)
        _require_embedder(known, embedder)
        counts = SyncCounts(version=known.watermark)
        if not is_current(known, chunks):
            counts = _apply(url, connection, known, chunks, embedder, progress)
        if not known.vector_index:
            connection.execute(
                "SELECT index_generation_vectors(id) FROM index_generations WHERE id = %s AND chunks > 0",
                (generation_id,),
            )
    log.info(
        "Generation %s at version %s: %d embedded, %d reused, %d written, %d removed",
        generation_id, counts.version, counts.embedded, counts.reused, counts.upserted, counts.deleted,
    )  # fmt: skip
    return counts


def _apply(
    url: str,
    connection: psycopg.Connection[Any],
    known: Generation,
    chunks: LakeTable,
    embedder: Embedder,
    progress: Callable[[int, int], None] | None,
) -> SyncCounts:
    """Embed and stage the changed chunks, then swap them in."""
    import pyarrow.compute as pc

    lineage = chunks.identity()
    follows = known.watermark is not None and known.lineage == lineage
    changes = chunks.changes(known.watermark if follows and known.watermark is not None else -1)
    upserts = changes.upserts.filter(pc.equal(changes.upserts["chunker"], known.chunker))
    deletes = changes.deletes.filter(pc.equal(changes.deletes["chunker"], known.chunker))
    open_stage(connection)
    embedded = reused = 0
    meter = embedder.meter()
    size = max(_SLICE, embedder.window)
    for start in range(0, upserts.num_rows, size):
        part = upserts.slice(start, size)
        texts = part["embed_text"].to_pylist()
        made = embed_cached(embedder, texts, url, meter)
        copy_rows(connection, (_row(*pair) for pair in zip(_records(part), made.vectors, strict=True)))
        embedded, reused = embedded + made.embedded, reused + made.reused
        if progress:
            progress(start + part.num_rows, upserts.num_rows)
    gone = None if changes.complete else deletes["chunk_id"].to_pylist()
    upserted, deleted = merge_stage(connection, known, gone, changes.version, lineage)
    drop_stage(connection)
    if meter.usage.tokens:
        cost = "unknown" if meter.usage.cost is None else f"{meter.usage.cost:.4f}"
        log.info(
            "Generation %s: %s used %d tokens, cost %s", known.id, embedder.name, meter.usage.tokens, cost
        )
    return SyncCounts(embedded, reused, upserted, deleted, changes.version)


def is_current(known: Generation, chunks: LakeTable) -> bool:
    """Return whether the generation holds the newest version; raise MissingInput without a chunks table."""
    head = chunks.version()
    if head is None:
        raise MissingInput(
            f"there is no chunks table at {chunks.uri} for generation {known.id!r}: "
            "run ingest_documents first"
        )
    indexed = known.vector_index or known.chunks == 0
    return known.watermark == head and indexed and known.lineage == chunks.identity()


def _require_embedder(known: Generation, embedder: Embedder) -> None:
    if (known.fingerprint, known.dimension) != (embedder.fingerprint, embedder.dimension):
        raise EmbedderMismatch(
            f"generation {known.id!r} holds vectors of embedder {known.fingerprint!r} "
            f"({known.dimension} dimensions), this one is {embedder.fingerprint!r} ({embedder.dimension}): "
            "a new embedder needs a generation of its own, release_assistant builds it"
        )


def _lock(connection: psycopg.Connection[Any], generation_id: str, wait_seconds: float) -> None:
    """Become the only writer of the generation until the connection ends, whichever way it ends."""
    connection.execute(
        "SELECT set_config('lock_timeout', %s, false), set_config('idle_session_timeout', %s, false), "
        "set_config('idle_in_transaction_session_timeout', %s, false)",
        (f"{max(1, int(wait_seconds * 1000))}ms", _IDLE_LIMIT, _IDLE_LIMIT),
    )
    try:
        connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (f"sync {generation_id}",))
    except psycopg.errors.LockNotAvailable as error:
        raise WriteConflict(
            f"another process has been writing generation {generation_id!r} for more than "
            f"{wait_seconds:.0f} s: let it finish, then run this again"
        ) from error


def _records(part: pa.Table) -> Iterator[dict[str, Any]]:
    yield from part.to_pylist()


def _row(chunk: dict[str, Any], vector: Any) -> tuple[Any, ...]:
    """Return one chunk in the order of the stage's columns."""
    return (
        chunk["chunk_id"],
        chunk["document_id"],
        chunk["document_version"],
        chunk["source"],
        _storable(chunk["path"]),
        _storable(chunk["title"] or ""),
        [_storable(heading) for heading in json.loads(chunk["heading_path"] or "[]")],
        chunk["position"],
        chunk["char_start"],
        chunk["char_end"],
        _storable(chunk["text"]),
        Jsonb(json.loads(chunk.get("metadata") or "{}")),
        _access(chunk),
        hashlib.sha256(chunk["embed_text"].encode(errors="surrogatepass")).hexdigest(),
        vector,
    )


def _access(chunk: dict[str, Any]) -> list[str]:
    """Return who may find the chunk; what cannot be read must not become public."""
    written = chunk.get("access", "[]")
    try:
        tags = json.loads(written)
    except (TypeError, ValueError):
        tags = None
    if not isinstance(tags, list) or not all(isinstance(tag, str) and tag for tag in tags):
        raise IntegrityError(
            f"chunk {chunk['chunk_id']!r} of {chunk['path']!r} has the access tags {written!r}, which are no "
            "JSON list of strings: run ingest_documents again so that the chunks table is written anew"
        )
    return list(map(_storable, tags))


def _storable(text: str) -> str:
    """Replace NUL, which Postgres cannot store, by one other character, so that offsets stay true."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
