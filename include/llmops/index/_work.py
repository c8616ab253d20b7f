"""What has to be done to bring a generation to a version of its chunks table, and the rows to do it with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import psycopg
from psycopg import sql

from llmops.index._generations import Generation, content_table
from llmops.index._lake import changes_per_document, stream
from llmops.lakehouse import Changes, LakeTable

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Documents", "Work", "find_work", "groups"]

_T = TypeVar("_T")

_FEED_LIMIT = 20_000
"""Changes above this number are read from the table, by documents: the feed would have to fit into memory."""
_WINDOW = 20_000


@dataclass(frozen=True)
class Documents:
    """Some whole documents: the chunks they may have changed to, and those that are known to be gone.

    ``gone`` is None when ``chunks`` are all the chunks of these documents: every other one is gone.
    """

    ids: Sequence[str]
    chunks: Sequence[Mapping[str, Any]]
    gone: Sequence[str] | None


class _Reader(Protocol):
    def __call__(self, batches: Sequence[Sequence[str]]) -> Iterator[Documents]: ...


@dataclass(frozen=True)
class Work:
    """The way to version ``target`` of the table ``lineage``, in batches of whole documents.

    ``again`` are documents that were done for an earlier target and have changed since; when they are done,
    everything up to ``done_through`` is at the new target. ``ahead`` are those behind it, in the order of
    their ids. ``chunks`` of them are read.
    """

    target: int
    lineage: str | None
    done_through: str | None
    again: Sequence[Sequence[str]]
    ahead: Sequence[Sequence[str]]
    chunks: int
    read: _Reader


def find_work(connection: psycopg.Connection[Any], known: Generation, chunks: LakeTable, size: int) -> Work:
    """Return what is left to do for the newest version, in batches of about ``size`` chunks."""
    lineage, target = chunks.identity(), chunks.version()
    assert target is not None
    touched = feed = None
    if known.watermark is not None and known.lineage == lineage:
        touched = changes_per_document(chunks, known.chunker, known.watermark, target)
        if touched is not None and touched.total() <= _FEED_LIMIT:
            feed = _feed(chunks.changes(known.watermark), known)
    if feed is not None:
        target = feed.version
        weights = Counter(feed.upserts["document_id"].to_pylist())
        removed = Counter(feed.deletes["document_id"].to_pylist())
        read: _Reader = feed.read
    else:
        weights = _in_table(chunks, known, target)
        removed = _in_generation(connection, known)
        if touched is not None:
            weights, removed = _only(weights, touched), _only(removed, touched)
        read = _Table(chunks, known.chunker, target, weights).read
    done_through, again = _resumed(chunks, known, lineage, target)
    ids = sorted(weights.keys() | removed.keys())
    load = weights + removed
    behind = [i for i in ids if done_through is not None and i <= done_through and i in again]
    ahead = [i for i in ids if done_through is None or i > done_through]
    return Work(
        target=target,
        lineage=lineage,
        done_through=done_through,
        again=groups(behind, load.__getitem__, size),
        ahead=groups(ahead, load.__getitem__, size),
        chunks=sum(weights[i] for i in [*behind, *ahead]),
        read=read,
    )


def groups(items: Iterable[_T], weight: Callable[[_T], int], size: int) -> list[list[_T]]:
    """Divide items, in their order, into groups that weigh at most ``size``; a heavier item is one by itself."""
    found: list[list[_T]] = []
    room = 0
    for item in items:
        if not found or weight(item) > room:
            found.append([])
            room = size
        found[-1].append(item)
        room -= weight(item)
    return found


def _resumed(
    chunks: LakeTable, known: Generation, lineage: str | None, target: int
) -> tuple[str | None, frozenset[str]]:
    """Return up to which document an interrupted run came, and which of those have changed since its target."""
    if known.target is None or known.target_lineage != lineage or known.done_through is None:
        return None, frozenset()
    if known.target == target:
        return known.done_through, frozenset()
    since = changes_per_document(chunks, known.chunker, known.target, target)
    return (None, frozenset()) if since is None else (known.done_through, frozenset(since))


def _in_table(chunks: LakeTable, known: Generation, version: int) -> Counter[str]:
    """Count each document's chunks in the table."""
    found: Counter[str] = Counter()
    for rows in stream(chunks, known.chunker, (), version=version):
        found.update(rows["document_id"].to_pylist())
    return found


def _in_generation(connection: psycopg.Connection[Any], known: Generation) -> Counter[str]:
    """Count each document's chunks in the generation."""
    query = sql.SQL("SELECT document_id, count(*) FROM {} GROUP BY document_id")
    return Counter(dict(connection.execute(query.format(content_table(known.id))).fetchall()))


def _only(counted: Counter[str], ids: Mapping[str, int]) -> Counter[str]:
    return Counter({i: count for i, count in counted.items() if i in ids})


@dataclass(frozen=True)
class _Feed:
    """A change feed that fits into memory."""

    version: int
    upserts: pa.Table
    deletes: pa.Table

    def read(self, batches: Sequence[Sequence[str]]) -> Iterator[Documents]:
        """Yield each batch with what the feed says about its documents."""
        for ids in batches:
            gone = _of(self.deletes, ids)["chunk_id"].to_pylist()
            yield Documents(ids, _of(self.upserts, ids).to_pylist(), gone)


def _feed(changes: Changes, known: Generation) -> _Feed | None:
    import pyarrow.compute as pc

    if changes.complete:
        return None
    own = (t.filter(pc.equal(t["chunker"], known.chunker)) for t in (changes.upserts, changes.deletes))
    return _Feed(changes.version, *own)


@dataclass(frozen=True)
class _Table:
    """The table at one version, of which several batches at a time are in memory."""

    chunks: LakeTable
    chunker: str
    version: int
    weights: Mapping[str, int]

    def read(self, batches: Sequence[Sequence[str]]) -> Iterator[Documents]:
        """Yield each batch with all chunks that its documents have."""
        import pyarrow as pa

        for window in groups(batches, lambda ids: sum(self.weights[i] for i in ids), _WINDOW):
            wanted = [i for ids in window for i in ids]
            pieces = list(stream(self.chunks, self.chunker, version=self.version, documents=wanted))
            rows = pa.concat_tables(pieces) if pieces else None
            for ids in window:
                yield Documents(ids, _of(rows, ids).to_pylist() if rows else [], None)


def _of(rows: pa.Table, ids: Sequence[str]) -> pa.Table:
    """Return the rows of some documents, in an order that depends on nothing else."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = rows.filter(pc.is_in(rows["document_id"], pa.array(ids, pa.string())))
    return found.sort_by([("document_id", "ascending"), ("position", "ascending"), ("chunk_id", "ascending")])
