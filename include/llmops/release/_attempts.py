"""Answers that reached Airflow, with the status they got: what Airflow's own log does not tell."""

from __future__ import annotations

import json
from dataclasses import dataclass

from llmops.database import connect
from llmops.release._approval import RunReference

_LONGEST = 200
ENTERED_PER_PERSON = 10
"""How many refused answers of one person to one request the notary enters; all of them are recorded."""
UNREADABLE = "(unreadable)"
"""Stands for a choice that is not there, too long or no text."""


@dataclass(frozen=True)
class Attempt:
    """One answer to what may be an approval request.

    ``person`` is the authenticated user, None for a task that answered by its own token. ``chosen`` are the options
    as one line of at most 200 characters, ``status`` is that of the HTTP response.
    """

    run: RunReference
    person: str | None
    chosen: str
    status: int


def record_attempt(url: str, attempt: Attempt) -> bool:
    """Record an answer and return whether there is an approval request, open or past, that it was given to.

    Nothing is recorded about other requests in Airflow.
    """
    run = attempt.run
    if "\0" in f"{run.dag_id}{run.run_id}{run.task_id}":
        return False  # no text in the database has such a name
    with connect(url) as connection:
        made = connection.execute(
            "INSERT INTO approval_attempts (dag_id, run_id, task_id, person, chosen, status) "
            "SELECT dag_id, run_id, task_id, %s, %s, %s FROM approval_requests "
            "WHERE dag_id = %s AND run_id = %s AND task_id = %s",
            (attempt.person, attempt.chosen, attempt.status, run.dag_id, run.run_id, run.task_id),
        )
    return bool(made.rowcount)


def chosen_options(body: bytes) -> str:
    """Return the options that the body of an answer names, as one line without invisible characters."""
    try:
        options = json.loads(body)["chosen_options"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return UNREADABLE
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        return UNREADABLE
    text = ", ".join(options)
    visible = "".join(c if c.isprintable() or c.isspace() else "" for c in text)
    return " ".join(visible.split())[:_LONGEST]
