"""Bring a generation to the newest version of the chunks table."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import psycopg

from llmops.database import connect
from llmops.embedding import Embedder, Meter, embed_cached
from llmops.errors import EmbedderMismatch, MissingInput, WriteConflict
from llmops.index._generations import Generation, find_generation, named_errors, read_generation
from llmops.index._rows import row_of
from llmops.index._vectors import build_vectors
from llmops.index._work import Documents, Work, find_work
from llmops.index._write import Batch, Standing, held_rows, write_batch
from llmops.lakehouse import LakeTable

__all__ = ["SyncCounts", "is_current", "sync"]

log = logging.getLogger(__name__)

_SLICE = 256
_BATCH = 2000
"""Chunks that are written in one transaction; so many are compared again, at most, after a kill."""
_IDLE_LIMIT = "300s"
"""A worker that sends nothing for so long is taken for dead: Postgres ends its session and frees its lock."""

Progress = Callable[[int, int], None]


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
    progress: Progress | None = None,
    index_progress: Progress | None = None,
) -> SyncCounts:
    """Apply what changed in the chunks table since the generation's watermark; nothing changed costs nothing.

    Whole documents are written in batches, each with how far it came in one transaction, so a reader sees each
    document wholly old or wholly new, and a sync that was killed goes on where it was. The watermark moves
    with the last batch. One process works at a time; others wait up to ``wait_seconds`` and then find nothing
    to do. ``progress`` is called with the number of chunks looked at so far and in all, ``index_progress``
    with parts of the table that the index of vectors has read and in all, while it is built.

    Raises EmbedderMismatch for another embedder than the generation's, MissingInput when generation or
    chunks table is not there, WriteConflict when another process keeps the lock or has written meanwhile,
    ServiceUnavailable when Postgres goes away, BudgetExceeded at the end of the embedder's budget for one run, and
    what asking an endpoint raises; what was embedded until then is reused by the next attempt.
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
        if not _holds_newest(known, chunks):
            known, counts = _Run(url, connection, known, chunks, embedder, progress).apply()
        if not known.vector_index and known.chunks:
            build_vectors(url, connection, known, index_progress)
    log.info(
        "Generation %s at version %s: %d embedded, %d reused, %d written, %d removed",
        generation_id, counts.version, counts.embedded, counts.reused, counts.upserted, counts.deleted,
    )  # fmt: skip
    return counts


def is_current(known: Generation, chunks: LakeTable) -> bool:
    """Return whether the generation holds the newest version; raise MissingInput without a chunks table."""
    return (known.vector_index or known.chunks == 0) and _holds_newest(known, chunks)


def _holds_newest(known: Generation, chunks: LakeTable) -> bool:
    head = chunks.version()
    if head is None:
        raise MissingInput(
            f"there is no chunks table at {chunks.uri} for generation {known.id!r}: "
            "run ingest_documents first"
        )
    return known.watermark == head and known.lineage == chunks.identity()


@dataclass
class _Run:
    """One sync under way: ``known`` is the generation as its last batch left it."""

    url: str
    connection: psycopg.Connection[Any]
    known: Generation
    chunks: LakeTable
    embedder: Embedder
    progress: Progress | None
    counts: SyncCounts = field(default_factory=SyncCounts)
    done: int = 0
    planned: int = 0
    began: float = field(default_factory=time.monotonic)
    meter: Meter = field(init=False)

    def __post_init__(self) -> None:
        self.meter = self.embedder.meter()

    def apply(self) -> tuple[Generation, SyncCounts]:
        """Do what is left to do, batch by batch; return the generation and what was done."""
        work = find_work(self.connection, self.known, self.chunks, _BATCH)
        self.planned = work.chunks
        left = len(work.again) + len(work.ahead)
        for documents in work.read([*work.again, *work.ahead]):
            batch = self._prepare(documents)
            left -= 1
            self._write(batch, self._standing(work, documents, ahead=left < len(work.ahead), last=not left))
        if not work.again and not work.ahead:
            self._write(_NOTHING, self._standing(work, None, ahead=True, last=True))
        if (usage := self.meter.usage).tokens:
            cost = "unknown" if usage.cost is None else f"{usage.cost:.4f}"
            log.info(
                "Generation %s: %s used %d tokens, cost %s",
                self.known.id, self.embedder.name, usage.tokens, cost,
            )  # fmt: skip
        return self.known, replace(self.counts, version=work.target)

    def _prepare(self, documents: Documents) -> Batch:
        """Compare some documents with what is held, and embed what differs."""
        rows = [row_of(chunk) for chunk in documents.chunks]
        ids = [row[0] for row in rows]
        held = held_rows(self.connection, self.known.id, documents.ids, [*ids, *(documents.gone or ())])
        gone = (
            sorted(held.keys() - ids) if documents.gone is None else [i for i in documents.gone if i in held]
        )
        changed = [row for row in rows if held.get(row[0]) != row]
        texts = {chunk["chunk_id"]: chunk["embed_text"] for chunk in documents.chunks}
        self._advance(len(rows) - len(changed))
        vectors = self._embed([texts[row[0]] for row in changed])
        return Batch(changed, vectors, [row[0] for row in changed if row[0] in held], gone)

    def _embed(self, texts: Sequence[str]) -> Any:
        """Return the vectors of texts, shape (number of texts, dimension), and count them."""
        vectors = np.empty((len(texts), self.embedder.dimension), np.float32)
        size = max(_SLICE, self.embedder.window)
        for start in range(0, len(texts), size):
            part = texts[start : start + size]
            made = embed_cached(self.embedder, part, self.url, self.meter)
            vectors[start : start + len(part)] = made.vectors
            self._count(embedded=made.embedded, reused=made.reused)
            # The session that holds the lock must not look dead however long embedding takes.
            self.connection.execute("SELECT 1")
            self._advance(len(part))
        return vectors

    def _write(self, batch: Batch, standing: Standing) -> None:
        self.known = write_batch(self.connection, self.known, batch, standing)
        self._count(upserted=len(batch.rows), deleted=len(batch.gone))

    def _standing(self, work: Work, documents: Documents | None, *, ahead: bool, last: bool) -> Standing:
        """Return how far the generation is once these documents are written."""
        if last:
            return Standing(work.target, work.lineage)
        assert documents is not None
        known, rate = self.known, self.done / max(time.monotonic() - self.began, 1e-3)
        way: tuple[int | None, str | None, str | None] = (work.target, work.lineage, documents.ids[-1])
        if not ahead:
            way = (known.target, known.target_lineage, known.done_through)
        return Standing(known.watermark, known.lineage, *way, self.done, self.planned, rate)

    def _advance(self, chunks: int) -> None:
        self.done += chunks
        if self.progress and chunks:
            self.progress(self.done, self.planned)

    def _count(self, **more: int) -> None:
        self.counts = replace(self.counts, **{k: getattr(self.counts, k) + n for k, n in more.items()})


_NOTHING = Batch((), np.empty((0, 0), np.float32))


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
