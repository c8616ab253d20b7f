"""What people say about answers. No row means no opinion: silence is never counted as a rating."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

import psycopg
from psycopg.rows import class_row

from llmops.answers._log import storable
from llmops.answers._pool import Database, connection_to
from llmops.errors import ConfigurationError, MissingInput

__all__ = ["Feedback", "FeedbackRecord", "read_feedback", "record_feedback"]

Rating = Literal["up", "down"]


@dataclass(frozen=True)
class Feedback:
    """One person's opinion of one answer, found by the answer's own id and nothing else."""

    answer_id: str
    rating: Rating
    comment: str | None = None
    correction: str | None = None
    person: str | None = None


@dataclass(frozen=True)
class FeedbackRecord:
    """A stored opinion."""

    feedback_id: str
    answer_id: str
    rating: Rating
    comment: str | None
    correction: str | None
    person: str | None
    created_at: datetime


def record_feedback(database: Database, feedback: Feedback) -> str:
    """Store an opinion and return its id.

    Raises MissingInput when there is no answer of that id, ConfigurationError when the rating is
    neither ``up`` nor ``down`` or a text is too long (comment 10,000 characters, correction 20,000,
    person 200).
    """
    if feedback.rating not in get_args(Rating):
        raise ConfigurationError(f"rating {feedback.rating!r} is not valid: use 'up' or 'down'")
    values = (feedback.answer_id, feedback.rating, feedback.comment, feedback.correction, feedback.person)
    try:
        with connection_to(database) as connection:
            row = connection.execute(
                "INSERT INTO feedback (answer_id, rating, comment, correction, person) "
                "VALUES (%s, %s, %s, %s, %s) RETURNING feedback_id::text",
                [value and storable(value) for value in values],
            ).fetchone()
    except psycopg.errors.ForeignKeyViolation as error:
        raise MissingInput(
            f"no answer {feedback.answer_id!r} to give feedback on: take the id from the answer itself"
        ) from error
    except psycopg.errors.CheckViolation as error:
        raise ConfigurationError(
            f"feedback on answer {feedback.answer_id!r} is too long: at most 10,000 characters of comment, "
            "20,000 of correction and 200 of a person's name"
        ) from error
    assert row is not None
    return str(row[0])


def read_feedback(
    database: Database,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    answer_id: str | None = None,
) -> list[FeedbackRecord]:
    """Return the opinions given in [since, until), oldest first, on one answer or on all."""
    with (
        connection_to(database) as connection,
        connection.cursor(row_factory=class_row(FeedbackRecord)) as cursor,
    ):
        return cursor.execute(
            "SELECT feedback_id::text, answer_id, rating, comment, correction, person, created_at "
            "FROM feedback WHERE (%(since)s::timestamptz IS NULL OR created_at >= %(since)s) "
            "AND (%(until)s::timestamptz IS NULL OR created_at < %(until)s) "
            "AND (%(answer_id)s::text IS NULL OR answer_id = %(answer_id)s) ORDER BY created_at, feedback_id",
            {"since": since, "until": until, "answer_id": answer_id},
        ).fetchall()
