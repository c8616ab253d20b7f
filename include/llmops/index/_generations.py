"""The list of index generations: created and dropped through functions of the database's owner."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from llmops.database import connect
from llmops.errors import (
    ConfigurationError,
    EmbedderMismatch,
    IntegrityError,
    MissingInput,
    ServiceUnavailable,
)
from llmops.manifest import ArtifactPin, content_hash

__all__ = [
    "Generation",
    "State",
    "content_table",
    "create_generation",
    "drop_generation",
    "find_generation",
    "generation_id",
    "generations",
    "mark",
    "named_errors",
    "read_generation",
    "require_fingerprint",
    "words_table",
]

log = logging.getLogger(__name__)

State = Literal["building", "live", "retired"]

_ID = re.compile(r"[a-z][a-z0-9_]{0,44}")
_COLUMNS = (
    "id, assistant, embedder, fingerprint, dimension, chunker, state, "
    "watermark, lineage, fence, chunks, vector_index, target, target_lineage, done_through, "
    "chunks_done, chunks_planned, chunks_per_second"
)


@dataclass(frozen=True)
class Generation:
    """One index: whose it is, what made it, and how far it has followed the chunks table.

    ``chunker`` is the chunker's digest. ``state`` is ``building`` or ``live`` while it is followed and
    ``retired`` once it waits to be dropped. The fields after it are the database's: leave them out to create
    a generation.

    It holds version ``watermark`` of the chunks table ``lineage``. On its way to version ``target`` of the table
    ``target_lineage`` it has brought the documents up to the id ``done_through`` there: ``chunks_done`` of
    ``chunks_planned``, lately at ``chunks_per_second``.
    """

    id: str
    assistant: str
    embedder: ArtifactPin
    fingerprint: str
    dimension: int
    chunker: str
    state: State = "building"
    watermark: int | None = None
    lineage: str | None = None
    fence: int = 0
    chunks: int = 0
    vector_index: bool = False
    target: int | None = None
    target_lineage: str | None = None
    done_through: str | None = None
    chunks_done: int = 0
    chunks_planned: int = 0
    chunks_per_second: float | None = None


def generation_id(assistant: str, fingerprint: str, chunker_digest: str, catalog: str) -> str:
    """Return the id of the generation that this embedder and chunker make: the same on every machine."""
    digest = content_hash([catalog, assistant, fingerprint, chunker_digest])
    readable = re.sub(r"[^a-z0-9_]", "_", assistant.lower())[:24]
    return f"{readable}_{digest[:16]}" if readable[:1].isalpha() else f"g{readable}_{digest[:16]}"


def create_generation(url: str, generation: Generation) -> None:
    """Create the generation's row and empty tables; one that is there stays, a retired one is followed again.

    Raises EmbedderMismatch when the id already belongs to another embedder, dimension, chunker or assistant.
    """
    content_table(generation.id)
    made = (generation.assistant, generation.fingerprint, generation.dimension, generation.chunker)
    with named_errors(generation.id), connect(url) as connection:
        connection.execute(
            "SELECT create_index_generation(%s, %s, %s, %s, %s, %s)",
            (generation.id, made[0], Jsonb(generation.embedder.model_dump(mode="json")), *made[1:]),
        )
        known = read_generation(connection, generation.id)
    if (known.assistant, known.fingerprint, known.dimension, known.chunker) != made:
        raise EmbedderMismatch(
            f"generation {generation.id!r} is already made by embedder {known.fingerprint!r} "
            f"({known.dimension} dimensions) and chunker {known.chunker!r} for {known.assistant!r}: "
            "use generation_id() so that another embedder gets a generation of its own"
        )


def generations(url: str, assistant: str | None = None) -> list[Generation]:
    """Return the generations of one assistant or of all, in the order they were created."""
    with connect(url) as connection, connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            f"SELECT {_COLUMNS} FROM index_generations "
            "WHERE %(assistant)s::text IS NULL OR assistant = %(assistant)s ORDER BY created_at, id",
            {"assistant": assistant},
        ).fetchall()
    return [_generation(row) for row in rows]


def find_generation(url: str, generation_id: str) -> Generation:
    """Return one generation; raise MissingInput when there is none of that id."""
    with connect(url) as connection:
        return read_generation(connection, generation_id)


def mark(url: str, generation_id: str, state: State) -> None:
    """Set a generation's state: a ``retired`` one is no longer followed, and only that one can be dropped."""
    with named_errors(generation_id), connect(url) as connection:
        known = read_generation(connection, generation_id)
        if known.state != state:
            connection.execute(
                "UPDATE index_generations SET state = %s WHERE id = %s", (state, generation_id)
            )
            log.info("Generation %s is now %s", generation_id, state)


def drop_generation(url: str, generation_id: str) -> bool:
    """Drop a retired generation with its tables; return whether there was one to drop."""
    content_table(generation_id)
    with named_errors(generation_id), connect(url) as connection:
        row = connection.execute("SELECT drop_index_generation(%s)", (generation_id,)).fetchone()
    dropped = bool(row and row[0])
    if dropped:
        log.info("Dropped generation %s", generation_id)
    return dropped


def require_fingerprint(connection: psycopg.Connection[Any], generation_id: str, fingerprint: str) -> None:
    """Raise EmbedderMismatch unless the generation was made by the embedder of this fingerprint."""
    known = read_generation(connection, generation_id)
    if known.fingerprint != fingerprint:
        raise EmbedderMismatch(
            f"generation {generation_id!r} holds vectors of embedder {known.fingerprint!r}, "
            f"not of {fingerprint!r}: use the release's own embedder, "
            "or build a generation for the new one with release_assistant"
        )


def read_generation(connection: psycopg.Connection[Any], generation_id: str) -> Generation:
    """Return one generation within the caller's transaction; raise MissingInput when there is none."""
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(
            f"SELECT {_COLUMNS} FROM index_generations WHERE id = %s", (generation_id.replace("\0", ""),)
        ).fetchone()
    if row is None:
        raise MissingInput(
            f"there is no index generation {generation_id!r}: run release_assistant to build one"
        )
    return _generation(row)


def content_table(generation_id: str) -> sql.Identifier:
    """Return the quoted name of the table of chunks; raise ConfigurationError for an id that is none."""
    return sql.Identifier("public", f"generation_{_checked(generation_id)}")


def words_table(generation_id: str) -> sql.Identifier:
    """Return the quoted name of the table that counts in how many chunks each word stands."""
    return sql.Identifier("public", f"words_{_checked(generation_id)}")


@contextlib.contextmanager
def named_errors(generation_id: str) -> Iterator[None]:
    """Turn the database's errors about one generation into this package's."""
    try:
        yield
    except psycopg.errors.UndefinedTable as error:
        raise MissingInput(
            f"index generation {generation_id!r} was dropped: run release_assistant to build it again"
        ) from error
    except (psycopg.errors.InvalidParameterValue, psycopg.errors.CheckViolation) as error:
        raise ConfigurationError(
            f"generation {generation_id!r} is refused by Postgres: {_first(error)}"
        ) from error
    except psycopg.DataError as error:
        raise IntegrityError(
            f"generation {generation_id!r} cannot hold these rows: {_first(error)}"
        ) from error
    except psycopg.OperationalError as error:
        raise ServiceUnavailable(
            f"Postgres went away or refused while generation {generation_id!r} was in use: "
            f"{_first(error)}. Try again"
        ) from error


def _first(error: psycopg.Error) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _checked(generation_id: str) -> str:
    if not _ID.fullmatch(generation_id):
        raise ConfigurationError(
            f"generation id {generation_id!r} is not valid: take it from generation_id()"
        )
    return generation_id


def _generation(row: dict[str, Any]) -> Generation:
    return Generation(**{**row, "embedder": ArtifactPin.model_validate(row["embedder"])})
