"""The gate: every source's documents and figures against its suite."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmops.errors import QualityGateFailed
from llmops.quality._expectations import Outcome, Validator
from llmops.quality._rules import QualityRules
from llmops.quality._suites import DOCUMENT_COLUMNS, RUN_COLUMNS, Suite, load_suite

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = [
    "QualityFailure",
    "SourceFigures",
    "SourceVerdict",
    "check_sources",
    "gate_failure",
    "judged_schema",
]

log = logging.getLogger(__name__)

_ROWS_SHOWN = 5
_WORDS = {"min_value": "at least", "max_value": "at most", "mostly": "in a share of"}


@dataclass(frozen=True)
class SourceFigures:
    """What is known of one source before its documents are merged.

    ``rows`` are the documents that are new or changed, with the columns of ``judged_schema``. ``documents`` is how many
    the source would have afterwards, ``near_duplicates`` how many of these repeat an earlier one. Of the ``held``
    documents it had before, ``vanished`` would go; ``quarantined`` of its files could not become documents.
    ``suite`` names a file in ``include/suites``, None is the suite that comes with the package.
    """

    name: str
    rules: QualityRules
    rows: pa.Table
    documents: int
    held: int = 0
    vanished: int = 0
    quarantined: int = 0
    near_duplicates: int = 0
    suite: str | None = None

    def counts(self) -> str:
        """Return in words how the source would change."""
        return (
            f"it would have {self.documents} documents, {self.quarantined} files could not become any, "
            f"and {self.vanished} of {self.held} documents would go"
        )

    def run(self) -> dict[str, float]:
        """Return the row of figures that expectations on the source as a whole look at."""
        tolerated = self.rules.tolerated_files
        figures = (
            self.documents,
            0.0
            if self.quarantined <= tolerated
            else _share(self.quarantined, self.quarantined + self.documents),
            0.0 if self.vanished <= tolerated else _share(self.vanished, self.held),
            _share(self.near_duplicates, self.documents),
        )
        return dict(zip(RUN_COLUMNS, figures, strict=True))


@dataclass(frozen=True)
class QualityFailure:
    """An expectation that failed, and what was found: the rows, or the figure of the source."""

    expectation: str
    column: str
    expected: str
    found: tuple[str, ...]

    def __str__(self) -> str:
        shown = ", ".join(self.found[:_ROWS_SHOWN])
        more = f" and {len(self.found) - _ROWS_SHOWN} more" if len(self.found) > _ROWS_SHOWN else ""
        expected = f" ({self.expected})" if self.expected else ""
        return f"{self.expectation} on {self.column!r}{expected} failed for {shown}{more}"


@dataclass(frozen=True)
class SourceVerdict:
    """What the gate says of one source: how many expectations were checked, and which of them failed.

    ``judged`` documents were looked at; ``counts`` says in words how the source would change. ``documents`` and
    ``run`` are the outcomes of the two lists of its suite.
    """

    source: str
    suite: str
    judged: int
    counts: str
    figures: Mapping[str, float]
    failures: tuple[QualityFailure, ...]
    documents: tuple[Outcome, ...] = field(repr=False)
    run: tuple[Outcome, ...] = field(repr=False)

    @property
    def passed(self) -> bool:
        """Tell whether every expectation holds."""
        return not self.failures

    @property
    def expectations(self) -> int:
        """Return how many expectations were checked."""
        return len(self.documents) + len(self.run)


def judged_schema() -> pa.Schema:
    """Return the columns that documents to be judged have; the last four count what ``screen`` found, by kind."""
    import pyarrow as pa

    numbers = {"damage": pa.float64(), "boilerplate_share": pa.float64()}
    texts = {"document_id", "version", "source", "path", "title", "near_duplicate_of"}
    return pa.schema(
        [(name, pa.string() if name in texts else numbers.get(name, pa.int64())) for name in DOCUMENT_COLUMNS]
    )


def check_sources(sources: Sequence[SourceFigures]) -> list[SourceVerdict]:
    """Check every source against its suite; return their verdicts in order, whatever they are.

    Where a source has no new document, the expectations on documents are not checked. Raises ConfigurationError
    that names the file and the entry when a suite is wrong, before anything is checked.
    """
    if not sources:
        return []
    suites = [load_suite(source.suite, source.rules) for source in sources]
    validator = Validator()
    prepared = [(validator.prepare(suite.documents), validator.prepare(suite.run)) for suite in suites]
    verdicts = [
        _verdict(validator, source, suite, *expectations)
        for source, suite, expectations in zip(sources, suites, prepared, strict=True)
    ]
    for verdict in verdicts:
        log.info(
            "Source %s: %d of %d expectations on %d documents failed",
            *(verdict.source, len(verdict.failures), verdict.expectations, verdict.judged),
        )
    return verdicts


def gate_failure(verdicts: Iterable[SourceVerdict]) -> QualityGateFailed | None:
    """Return an error that says for every failing source what failed and on which rows; None when none failed."""
    parts = [
        f"source {v.source!r}: {len(v.failures)} of {v.expectations} expectations failed, nothing of it was merged: "
        f"{'; '.join(map(str, v.failures))} ({v.counts})"
        for v in verdicts
        if not v.passed
    ]
    if not parts:
        return None
    return QualityGateFailed(
        f"{'. '.join(parts)}. Correct the source, or the rules under `quality` in the assistant's file or in the source"
    )


def _verdict(
    validator: Validator, source: SourceFigures, suite: Suite, on_documents: list[Any], on_run: list[Any]
) -> SourceVerdict:
    documents: list[Outcome] = []
    if source.rows.num_rows:
        frame = source.rows.select(list(DOCUMENT_COLUMNS)).to_pandas()
        documents = validator.run(
            f"{source.name}, documents", frame, suite.documents, on_documents, ["source", "path"]
        )
    figures = source.run()
    run = validator.run(f"{source.name}, run", _one_row(figures), suite.run, on_run, [])
    failures = tuple(_failure(outcome) for outcome in (*documents, *run) if not outcome.success)
    return SourceVerdict(
        source=source.name,
        suite=suite.name,
        judged=source.rows.num_rows,
        counts=source.counts(),
        figures=figures,
        failures=failures,
        documents=tuple(documents),
        run=tuple(run),
    )


def _one_row(figures: Mapping[str, float]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame([dict(figures)])


def _failure(outcome: Outcome) -> QualityFailure:
    if outcome.error:
        found: tuple[str, ...] = (f"an error, {outcome.error}",)
    elif outcome.found:
        found = tuple(map(str, outcome.found))
    elif outcome.observed is not None:
        found = (f"the value {_figure(outcome.observed)}",)
    else:
        found = (f"{outcome.unexpected} values",)
    return QualityFailure(outcome.expectation, outcome.column, _expected(outcome.expected), found)


def _expected(arguments: Mapping[str, Any]) -> str:
    """Return bounds in words, and every other argument as it is written."""
    return ", ".join(
        f"{_WORDS.get(key, key)} {_figure(value)}"
        for key, value in arguments.items()
        if value is not None and not key.startswith("column")
    )


def _figure(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else json.dumps(value, default=str)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
