"""Which documents a generation holds."""

from __future__ import annotations

from psycopg import sql

from llmops.database import connect
from llmops.errors import IntegrityError
from llmops.index._generations import content_table, find_generation, named_errors

__all__ = ["indexed_documents"]


def indexed_documents(url: str, generation_id: str) -> dict[str, str]:
    """Return the version of every document that a generation holds, by document id.

    Raises MissingInput when there is no such generation, IntegrityError when it holds a document in two versions.
    """
    find_generation(url, generation_id)
    query = sql.SQL("SELECT DISTINCT document_id, document_version FROM {}").format(
        content_table(generation_id)
    )
    with named_errors(generation_id), connect(url) as connection:
        rows = connection.execute(query).fetchall()
    held = dict(rows)
    if len(held) != len(rows):
        raise IntegrityError(
            f"generation {generation_id!r} holds {len(rows) - len(held)} documents in two versions at once: "
            "build it again with release_assistant"
        )
    return held
