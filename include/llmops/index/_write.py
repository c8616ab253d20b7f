"""Writing a generation: rows are staged by binary COPY and swapped in by one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
from psycopg import sql

from llmops.errors import MissingInput, WriteConflict
from llmops.index._generations import Generation, content_table, words_table

__all__ = ["copy_rows", "drop_stage", "merge_stage", "open_stage"]

_TYPES = {
    "chunk_id": "text",
    "document_id": "text",
    "document_version": "text",
    "source": "text",
    "path": "text",
    "title": "text",
    "heading_path": "text[]",
    "position": "int4",
    "char_start": "int4",
    "char_end": "int4",
    "text": "text",
    "metadata": "jsonb",
    "access": "text[]",
    "embedded": "text",
    "embedding": "vector",
}
_COLUMNS = sql.SQL(", ").join(map(sql.Identifier, _TYPES))

# Rows that stay are recognised by all their columns, so a full comparison writes only what differs.
_FIND_REPLACED = """
INSERT INTO pg_temp.touched
SELECT held.chunk_id, true FROM {content} AS held JOIN pg_temp.incoming AS new USING (chunk_id)
WHERE ({held}) IS DISTINCT FROM ({new})
"""
_FIND_ABSENT = """
INSERT INTO pg_temp.touched SELECT chunk_id, false FROM {content} AS held
WHERE NOT EXISTS (SELECT FROM pg_temp.incoming AS new WHERE new.chunk_id = held.chunk_id)
"""
_FIND_DELETED = """
INSERT INTO pg_temp.touched SELECT chunk_id, false FROM {content} WHERE chunk_id = ANY(%s)
ON CONFLICT DO NOTHING
"""
_REMOVE = """
WITH removed AS (
    DELETE FROM {content} AS held USING pg_temp.touched AS touched WHERE held.chunk_id = touched.chunk_id
    RETURNING held.search, touched.replaced
), counted AS (
    UPDATE {words} AS words SET chunks = words.chunks - fewer.chunks
    FROM (
        SELECT word, count(*) AS chunks FROM removed, unnest(tsvector_to_array(search)) AS word GROUP BY word
    ) AS fewer
    WHERE words.word = fewer.word
)
SELECT count(*), count(*) FILTER (WHERE NOT replaced) FROM removed
"""
_ADD = """
WITH added AS (
    INSERT INTO {content} ({columns}) SELECT {columns} FROM pg_temp.incoming AS new
    WHERE NOT EXISTS (SELECT FROM {content} AS held WHERE held.chunk_id = new.chunk_id)
    RETURNING search
), counted AS (
    INSERT INTO {words} AS words (word, chunks)
    SELECT word, count(*) FROM added, unnest(tsvector_to_array(search)) AS word GROUP BY word
    ON CONFLICT (word) DO UPDATE SET chunks = words.chunks + excluded.chunks
)
SELECT count(*) FROM added
"""


def open_stage(connection: psycopg.Connection[Any]) -> None:
    """Create the session's stage; it is gone with the session, also after a kill."""
    from pgvector.psycopg import register_vector

    register_vector(connection)
    columns = sql.SQL(", ").join(
        sql.SQL("{} {} NOT NULL").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in _TYPES.items()
    )
    connection.execute(sql.SQL("CREATE TEMP TABLE incoming ({}, PRIMARY KEY (chunk_id))").format(columns))
    connection.execute("CREATE TEMP TABLE touched (chunk_id text PRIMARY KEY, replaced boolean NOT NULL)")


def copy_rows(connection: psycopg.Connection[Any], rows: Iterable[Sequence[Any]]) -> None:
    """Add rows to the stage by binary COPY; ``rows`` have the columns of _TYPES in their order."""
    statement = sql.SQL("COPY pg_temp.incoming ({}) FROM STDIN (FORMAT BINARY)").format(_COLUMNS)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(list(_TYPES.values()))
        for row in rows:
            copy.write_row(row)


def drop_stage(connection: psycopg.Connection[Any]) -> None:
    """Free the stage's space before the session does other work."""
    connection.execute("DROP TABLE pg_temp.incoming, pg_temp.touched")


def merge_stage(
    connection: psycopg.Connection[Any],
    known: Generation,
    deleted: Sequence[str] | None,
    version: int,
    lineage: str | None,
) -> tuple[int, int]:
    """Swap the staged rows in, remove the ``deleted`` (None: all that are not staged) and move the watermark.

    All of it is one transaction, refused with WriteConflict when somebody else committed since ``known`` was
    read. Returns how many rows were written and removed; rows that are equal already are not written.
    """
    parts = {
        "content": content_table(known.id),
        "words": words_table(known.id),
        "columns": _COLUMNS,
        "held": _qualified("held"),
        "new": _qualified("new"),
    }

    def statement(text: str) -> sql.Composed:
        return sql.SQL(text).format(**parts)  # the constants above

    connection.execute("ANALYZE pg_temp.incoming")
    with connection.transaction():
        _check_fence(connection, known)
        connection.execute(statement(_FIND_REPLACED))
        if deleted is None:
            connection.execute(statement(_FIND_ABSENT))
        else:
            connection.execute(statement(_FIND_DELETED), (list(deleted),))
        freed, removed = _counts(connection.execute(statement(_REMOVE)))
        (written,) = _counts(connection.execute(statement(_ADD)))
        connection.execute(sql.SQL("DELETE FROM {} WHERE chunks <= 0").format(parts["words"]))
        connection.execute(
            "UPDATE index_generations SET watermark = %s, lineage = %s, chunks = chunks + %s, "
            "fence = fence + 1, synced_at = now() WHERE id = %s",
            (version, lineage, written - freed, known.id),
        )
    return written, removed


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


def _qualified(table: str) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(table, name) for name in _TYPES if name != "chunk_id")


def _counts(cursor: psycopg.Cursor[Any]) -> tuple[int, ...]:
    row = cursor.fetchone()
    assert row is not None
    return tuple(row)
