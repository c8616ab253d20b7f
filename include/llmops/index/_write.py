"""Writing a generation: one transaction per batch of whole documents, refused when another has written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from llmops.errors import MissingInput, WriteConflict
from llmops.index._generations import Generation, content_table, words_table
from llmops.index._rows import COLUMNS, COMPARED, Row, copy_stream

__all__ = ["Batch", "Standing", "held_rows", "write_batch"]

# A row whose place is taken anew is removed before; what is removed and not written again is gone.
_REMOVE = """
WITH removed AS (
    DELETE FROM {content} WHERE chunk_id = ANY(%(ids)s) RETURNING search
), counted AS (
    UPDATE {words} AS words SET chunks = words.chunks - fewer.chunks
    FROM (
        SELECT word, count(*) AS chunks FROM removed, unnest(tsvector_to_array(search)) AS word GROUP BY word
    ) AS fewer
    WHERE words.word = fewer.word
)
SELECT count(*) FROM removed
"""
_COPY = "COPY {content} ({columns}) FROM STDIN (FORMAT BINARY)"
# ts_stat takes the text of a query: its only part from outside is a list of ids, quoted by format().
_COUNT = """
INSERT INTO {words} AS words (word, chunks)
SELECT word, ndoc FROM ts_stat(
    format('SELECT search FROM {content} WHERE chunk_id = ANY(%%L)', %(ids)s::text[]))
ON CONFLICT (word) DO UPDATE SET chunks = words.chunks + excluded.chunks
"""
_SET_STANDING = """
UPDATE index_generations SET watermark = %(watermark)s, lineage = %(lineage)s, target = %(target)s,
    target_lineage = %(target_lineage)s, done_through = %(done_through)s, chunks = chunks + %(more)s,
    chunks_done = %(done)s, chunks_planned = %(planned)s, chunks_per_second = %(rate)s,
    fence = fence + 1, synced_at = clock_timestamp()
WHERE id = %(id)s
"""


@dataclass(frozen=True)
class Standing:
    """How far a generation is, and what becomes of it together with a batch.

    ``watermark`` and ``lineage`` say which version of which chunks table it holds. While it is on its way to
    version ``target`` of table ``target_lineage``, ``done_through`` is the last document that is there, in the
    order of document ids. The others tell people how the work goes: chunks looked at, of how many, per second.
    """

    watermark: int | None
    lineage: str | None
    target: int | None = None
    target_lineage: str | None = None
    done_through: str | None = None
    done: int = 0
    planned: int = 0
    rate: float | None = None


@dataclass(frozen=True)
class Batch:
    """What changes in some whole documents: rows to write with their vectors, and ids to remove."""

    rows: Sequence[Row]
    vectors: NDArray[np.float32]
    replaced: Sequence[str] = ()
    gone: Sequence[str] = ()


def held_rows(
    connection: psycopg.Connection[Any], generation_id: str, documents: Sequence[str], ids: Sequence[str]
) -> dict[str, Row]:
    """Return, by chunk id, the rows of these documents and chunks that the generation holds."""
    query = sql.SQL(
        "SELECT {columns} FROM {content} WHERE document_id = ANY(%(documents)s) OR chunk_id = ANY(%(ids)s)"
    ).format(columns=_names(COMPARED), content=content_table(generation_id))
    cursor = connection.execute(query, {"documents": list(documents), "ids": list(ids)})
    return {row[0]: row for row in cursor}


def write_batch(
    connection: psycopg.Connection[Any], known: Generation, batch: Batch, standing: Standing
) -> Generation:
    """Write one batch and say how far the generation is, as one transaction; return it as it is then.

    Readers see the old rows of every document until it commits and the new ones afterwards. Raises
    WriteConflict when somebody else has committed since ``known`` was read: nothing is written then.
    """
    parts = {
        "content": content_table(known.id),
        "words": words_table(known.id),
        "columns": _names(COLUMNS),
    }

    def statement(text: str) -> sql.Composed:
        return sql.SQL(text).format(**parts)  # the constants above

    with connection.transaction():
        _check_fence(connection, known)
        freed = 0
        if ids := [*batch.replaced, *batch.gone]:
            (freed,) = _counts(connection.execute(statement(_REMOVE), {"ids": ids}))
        if batch.rows:
            _copy(connection, statement(_COPY), batch)
            connection.execute(statement(_COUNT), {"ids": [row[0] for row in batch.rows]})
        if freed:
            connection.execute(sql.SQL("DELETE FROM {} WHERE chunks <= 0").format(parts["words"]))
        values = {**standing.__dict__, "id": known.id, "more": len(batch.rows) - freed}
        connection.execute(_SET_STANDING, values)
    return replace(
        known,
        watermark=standing.watermark,
        lineage=standing.lineage,
        target=standing.target,
        target_lineage=standing.target_lineage,
        done_through=standing.done_through,
        fence=known.fence + 1,
        chunks=known.chunks + len(batch.rows) - freed,
    )


def _copy(connection: psycopg.Connection[Any], statement: sql.Composed, batch: Batch) -> None:
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for piece in copy_stream(batch.rows, batch.vectors):
            copy.write(piece)


def _check_fence(connection: psycopg.Connection[Any], known: Generation) -> None:
    row = connection.execute(
        "SELECT fence FROM index_generations WHERE id = %s FOR UPDATE", (known.id,)
    ).fetchone()
    if row is None:
        raise MissingInput(f"index generation {known.id!r} was dropped while it was being written")
    if row[0] != known.fence:
        raise WriteConflict(
            f"generation {known.id!r} was written by another process since this one started: "
            "its rows are kept, these are thrown away; run the sync again"
        )


def _names(columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _counts(cursor: psycopg.Cursor[Any]) -> tuple[int, ...]:
    row = cursor.fetchone()
    assert row is not None
    return tuple(row)
