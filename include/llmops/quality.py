"""Data quality: Great Expectations suites, kept as data, that stand before every merge."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import Field, model_validator

from llmops.errors import QualityGateFailed
from llmops.settings import Section

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["QualityFailure", "QualityRules", "QualityVerdict", "check_documents"]

log = logging.getLogger(__name__)

_ROWS_SHOWN = 5


class QualityRules(Section):
    """What documents must fulfil to be merged; lengths are in characters, shares between 0 and 1.

    ``max_quarantined_share`` is of all files that should have become documents, ``max_shrinkage`` of
    the documents held before. Up to ``tolerated_files`` files in quarantine, or documents gone, never
    stop a run: in a small corpus a single file is a large share.
    """

    min_documents: int = Field(default=1, ge=0)
    min_characters: int = Field(default=1, ge=0)
    max_characters: int = Field(default=5_000_000, ge=1)
    max_quarantined_share: float = Field(default=0.05, ge=0, le=1)
    max_shrinkage: float = Field(default=0.3, ge=0, le=1)
    tolerated_files: int = Field(default=5, ge=0)

    @model_validator(mode="after")
    def _lengths_are_in_order(self) -> QualityRules:
        if self.min_characters > self.max_characters:
            raise ValueError("min_characters must not be above max_characters")
        return self


@dataclass(frozen=True)
class QualityFailure:
    """An expectation that failed, and what was found: the rows, or the figure of the run."""

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
class QualityVerdict:
    """How many expectations were checked and which of them failed."""

    expectations: int
    failures: tuple[QualityFailure, ...]


def check_documents(
    rows: pa.Table, quarantined: int, held: int, vanished: int, rules: QualityRules
) -> QualityVerdict:
    """Check documents that are about to be merged.

    ``quarantined`` files could not be read; of the ``held`` documents that the same sources had
    before, ``vanished`` would go. Raises QualityGateFailed naming every expectation that failed, and
    on which rows; nothing has been changed then.
    """
    suites = _suites(rules)
    figures = {
        "documents": rows.num_rows,
        "quarantined_share": _share(quarantined, quarantined + rows.num_rows, rules),
        "shrinkage": _share(vanished, held, rules),
    }
    failures = [
        *(_validate(_frame(rows), suites["documents"], ["source", "path"]) if rows.num_rows else ()),
        *_validate(_figures(figures), suites["run"], []),
    ]
    verdict = QualityVerdict(sum(map(len, suites.values())), tuple(failures))
    if failures:
        raise QualityGateFailed(
            f"{len(failures)} of {verdict.expectations} expectations on the documents failed, "
            f"nothing was merged: {'; '.join(map(str, failures))}. There are {rows.num_rows} documents, "
            f"{quarantined} unreadable files, and {vanished} of {held} documents would go. "
            "Correct the sources, or `quality` in the assistant's file"
        )
    log.info("All %d expectations on %d documents hold", verdict.expectations, rows.num_rows)
    return verdict


def _share(part: int, whole: int, rules: QualityRules) -> float:
    return 0.0 if part <= rules.tolerated_files or not whole else part / whole


def _suites(rules: QualityRules) -> dict[str, list[dict[str, Any]]]:
    """Return the suites with the rules' values in place of their names."""
    text = (resources.files("llmops") / "suites" / "documents.yaml").read_text("utf-8")
    values = {f"${name}": value for name, value in rules.model_dump().items()}
    return {
        suite: [{key: values.get(value, value) for key, value in entry.items()} for entry in entries]
        for suite, entries in yaml.safe_load(text).items()
    }


def _frame(rows: pa.Table) -> pd.DataFrame:
    import pyarrow.compute as pc

    named = rows.select(["document_id", "version", "source", "path", "title"])
    return named.append_column("characters", pc.utf8_length(rows["text"])).to_pandas()


def _figures(figures: dict[str, float]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame([figures])


def _validate(frame: pd.DataFrame, suite: list[dict[str, Any]], index: list[str]) -> list[QualityFailure]:
    """Run a suite over a frame; ``index`` names the columns that tell a row to a person."""
    batch = _context().data_sources.add_pandas("memory").add_dataframe_asset("rows")
    batch = batch.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    result = batch.validate(
        _expectations(suite),
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": index},
    )
    return [_failure(item, index) for item in result.results if not item.success]


def _context() -> Any:
    # At import it logs a line for every optional back end that it skips.
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    configuration = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        analytics_enabled=False,
        progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
    )
    return gx.get_context(mode="ephemeral", project_config=configuration)


def _expectations(suite: list[dict[str, Any]]) -> Any:
    import great_expectations as gx
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    expectations = [
        ExpectationConfiguration(
            type=entry["type"], kwargs={key: value for key, value in entry.items() if key != "type"}
        ).to_domain_obj()
        for entry in suite
    ]
    return gx.ExpectationSuite(name="documents", expectations=expectations)


def _failure(item: Any, index: list[str]) -> QualityFailure:
    kwargs = item.expectation_config.kwargs
    column = str(kwargs.get("column", ""))
    bounds = [
        f"{word} {kwargs[key]:g}"
        for key, word in (("min_value", "at least"), ("max_value", "at most"))
        if kwargs.get(key) is not None
    ]
    if item.exception_info.get("raised_exception"):
        found = [f"an error: {item.exception_info.get('exception_message')}"]
    elif index:
        places = item.result.get("unexpected_index_list") or []
        found = [_place(row, column, index) for row in places]
    else:
        found = [f"the value {value:g}" for value in item.result.get("unexpected_list") or []]
    return QualityFailure(item.expectation_config.type, column, ", ".join(bounds), tuple(found))


def _place(row: dict[str, Any], column: str, index: list[str]) -> str:
    place = ":".join(str(row.get(name)) for name in index)
    return place if column in index else f"{place} ({row.get(column)!s})"
