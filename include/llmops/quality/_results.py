"""Results as rows: one for every expectation that was checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from llmops.quality._check import SourceVerdict
from llmops.quality._expectations import Outcome

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["result_rows", "results_schema"]

_EXAMPLES = 5


@cache
def results_schema() -> pa.Schema:
    """Return the columns of ``quality_results``, whose key is `result_id`.

    ``scope`` is `documents` or `run`. ``expected`` holds an expectation's arguments, ``observed`` the figure it looked
    at and ``examples`` the paths of at most five documents, never text, all three as JSON.
    """
    import pyarrow as pa

    return pa.schema(
        [
            ("result_id", pa.string()),
            ("run_id", pa.string()),
            ("as_of", pa.timestamp("us", "UTC")),
            ("source", pa.string()),
            ("suite", pa.string()),
            ("scope", pa.string()),
            ("expectation", pa.string()),
            ("column", pa.string()),
            ("expected", pa.string()),
            ("success", pa.bool_()),
            ("checked", pa.int64()),
            ("unexpected", pa.int64()),
            ("observed", pa.string()),
            ("error", pa.string()),
            ("examples", pa.string()),
        ]
    )


def result_rows(verdicts: Iterable[SourceVerdict], run_id: str, as_of: datetime) -> pa.Table:
    """Return one row for every expectation checked; the same run gives the same `result_id` again."""
    import pyarrow as pa

    rows = [
        {"run_id": run_id, "as_of": as_of, "source": v.source, "suite": v.suite, **_row(scope, outcome)}
        for v in verdicts
        for scope, outcomes in (("documents", v.documents), ("run", v.run))
        for outcome in outcomes
    ]
    return pa.Table.from_pylist([{"result_id": _id(row), **row} for row in rows], schema=results_schema())


def _row(scope: str, outcome: Outcome) -> dict[str, Any]:
    return {
        "scope": scope,
        "expectation": outcome.expectation,
        "column": outcome.column,
        "expected": json.dumps(dict(outcome.expected), sort_keys=True, default=str),
        "success": outcome.success,
        "checked": outcome.checked,
        "unexpected": outcome.unexpected,
        "observed": None if outcome.observed is None else json.dumps(outcome.observed, default=str),
        "error": outcome.error,
        "examples": json.dumps([found.path for found in outcome.found[:_EXAMPLES]]),
    }


def _id(row: dict[str, Any]) -> str:
    """Return a hash of what tells one result from another; two bounds on one column are two results."""
    parts = (row["run_id"], row["source"], row["scope"], row["expectation"], row["column"], row["expected"])
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
