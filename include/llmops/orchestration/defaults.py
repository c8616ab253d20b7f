"""Task defaults, the retry table, and the parameters that the DAGs' forms share."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import ExceptionRetryPolicy, Param, RetryAction, RetryRule

__all__ = ["DELTA_WRITER", "TASK_DEFAULTS", "assistant_param", "embedder_param"]

DELTA_WRITER = "delta_writer"
"""Pool with one slot: Delta tables have one writer at a time."""

_RETRY_TABLE = ExceptionRetryPolicy(
    rules=[
        RetryRule(
            exception="llmops.errors.TerminalError",
            action=RetryAction.FAIL,
            reason="trying again changes nothing: the message says what to do",
        ),
        RetryRule(
            exception="llmops.errors.TransientError",
            action=RetryAction.RETRY,
            retry_delay=timedelta(seconds=15),
            reason="a service did not answer, or another writer was first",
        ),
    ]
)

TASK_DEFAULTS: dict[str, Any] = {
    "owner": "llmops",
    "retries": 3,
    "retry_delay": timedelta(seconds=20),
    "retry_policy": _RETRY_TABLE,
}


def assistant_param() -> Param:
    """Return the form field that chooses the assistant."""
    return Param(
        "library_guide",
        type="string",
        pattern="^[a-z][a-z0-9_]{0,39}$",
        title="Assistant",
        description="Name of a file in include/assistants, without .yaml.",
    )


def embedder_param() -> Param:
    """Return the form field that chooses a registered embedder."""
    return Param(
        None,
        type=["null", "string"],
        title="Embedder",
        description="Registered embedder, like models:/dev.library_guide.embedder/1; empty takes the newest.",
    )
