"""Rows of the answer log: opened, closed and read back."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from llmops.answers._pool import Database, connection_to
from llmops.errors import MissingInput

__all__ = [
    "AnswerChunk",
    "AnswerOutcome",
    "AnswerRecord",
    "close_answer",
    "open_answer",
    "read_answer",
    "read_answers",
]

_COLUMNS = (
    "answer_id, assistant, release_id, question, text, refused, chunks, usage, latency_seconds, status, "
    "created_at, closed_at"
)


@dataclass(frozen=True)
class AnswerChunk:
    """A chunk that an answer was made from: which version of which document, and whether it was cited."""

    chunk_id: str
    document_id: str
    document_version: str
    cited: bool


@dataclass(frozen=True)
class AnswerOutcome:
    """What became of an answer. ``usage`` counts tokens as the generator reports them."""

    text: str
    refused: bool = False
    chunks: Sequence[AnswerChunk] = ()
    usage: Mapping[str, Any] = field(default_factory=dict)
    latency_seconds: float = 0.0
    status: Literal["complete", "failed"] = "complete"


@dataclass(frozen=True)
class AnswerRecord:
    """One row of the log. While ``status`` is ``open``, text and chunks are empty and closed_at is None."""

    answer_id: str
    assistant: str
    release_id: str
    question: str
    text: str
    refused: bool
    chunks: tuple[AnswerChunk, ...]
    usage: dict[str, Any]
    latency_seconds: float | None
    status: Literal["open", "complete", "failed"]
    created_at: datetime
    closed_at: datetime | None


def open_answer(database: Database, *, assistant: str, release_id: str, question: str) -> str:
    """Record that a question is about to be answered and return the new answer's id.

    The row is committed when this returns. Raises ServiceUnavailable when it could not be: do not answer.
    """
    answer_id = uuid.uuid4().hex
    with connection_to(database) as connection:
        connection.execute(
            "INSERT INTO answer_log (answer_id, assistant, release_id, question) VALUES (%s, %s, %s, %s)",
            (answer_id, assistant, release_id, storable(question)),
        )
    return answer_id


def close_answer(database: Database, answer_id: str, outcome: AnswerOutcome) -> None:
    """Record what became of an open answer.

    Closing a closed answer changes nothing, so it may be repeated when the first reply was lost.
    Raises MissingInput when there is no such answer.
    """
    values = (
        storable(outcome.text),
        outcome.refused,
        Jsonb([asdict(chunk) for chunk in outcome.chunks]),
        Jsonb(dict(outcome.usage)),
        outcome.latency_seconds,
        outcome.status,
        answer_id,
    )
    with connection_to(database) as connection:
        closed = connection.execute(
            "UPDATE answer_log SET text = %s, refused = %s, chunks = %s, usage = %s, latency_seconds = %s, "
            "status = %s, closed_at = clock_timestamp() WHERE answer_id = %s AND status = 'open'",
            values,
        )
        if closed.rowcount == 0:
            found = connection.execute(
                "SELECT 1 FROM answer_log WHERE answer_id = %s", (answer_id,)
            ).fetchone()
            if found is None:
                raise MissingInput(f"no answer {answer_id!r} in the answer log: open it before closing it")


def read_answer(database: Database, answer_id: str) -> AnswerRecord:
    """Return one answer; raise MissingInput when there is none of that id."""
    with connection_to(database) as connection, connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(
            f"SELECT {_COLUMNS} FROM answer_log WHERE answer_id = %s", (storable(answer_id),)
        ).fetchone()
    if row is None:
        raise MissingInput(f"no answer {answer_id!r} in the answer log: take the id from the answer itself")
    return _record(row)


def read_answers(
    database: Database,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    assistant: str | None = None,
    limit: int | None = None,
) -> list[AnswerRecord]:
    """Return the answers opened in [since, until), oldest first, of one assistant or of all."""
    with connection_to(database) as connection, connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            f"SELECT {_COLUMNS} FROM answer_log "
            "WHERE (%(since)s::timestamptz IS NULL OR created_at >= %(since)s) "
            "AND (%(until)s::timestamptz IS NULL OR created_at < %(until)s) "
            "AND (%(assistant)s::text IS NULL OR assistant = %(assistant)s) "
            "ORDER BY created_at, answer_id LIMIT %(limit)s",
            {"since": since, "until": until, "assistant": assistant, "limit": limit},
        ).fetchall()
    return [_record(row) for row in rows]


def _record(row: dict[str, Any]) -> AnswerRecord:
    return AnswerRecord(**{**row, "chunks": tuple(AnswerChunk(**chunk) for chunk in row["chunks"])})


def storable(text: str) -> str:
    """Replace what Postgres cannot store in a text: NUL characters and lone surrogates."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")
