"""Great Expectations, as far as it is used here: run expectations over a frame and say plainly what came out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmops.errors import ConfigurationError
from llmops.quality._suites import Entry

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Found", "Outcome", "Validator"]

_TEXTS = frozenset({"title"})
"""Columns that hold text of documents: their values are never repeated anywhere."""

_WITHHELD = "(text of documents is not shown)"
_LONGEST_ERROR = 200
_ENTRY = "entry"


@dataclass(frozen=True)
class Found:
    """One row that an expectation failed for: where it is, and the value it has, "" where that is not shown."""

    source: str
    path: str
    value: str

    def __str__(self) -> str:
        return f"{self.source}:{self.path} ({self.value})" if self.value else f"{self.source}:{self.path}"


@dataclass(frozen=True)
class Outcome:
    """What came of one expectation.

    ``expected`` are its arguments. ``checked`` and ``unexpected`` count rows, ``observed`` is the figure it looked at
    where there is one. ``configuration`` is the expectation as Great Expectations has it; its result is not kept,
    since that may quote documents.
    """

    expectation: str
    column: str
    expected: Mapping[str, Any]
    success: bool
    checked: int
    unexpected: int
    observed: Any
    found: tuple[Found, ...]
    error: str | None
    configuration: Any = field(repr=False, compare=False)


class Validator:
    """Runs expectations in a context of its own, which lives in memory."""

    def __init__(self) -> None:
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
        context = gx.get_context(mode="ephemeral", project_config=configuration)
        self._source = context.data_sources.add_pandas("memory")

    def prepare(self, entries: Sequence[Entry]) -> list[Any]:
        """Return Great Expectations' own objects; raise ConfigurationError that names the first wrong entry."""
        return [_expectation(number, entry) for number, entry in enumerate(entries)]

    def run(
        self, name: str, frame: pd.DataFrame, entries: Sequence[Entry], prepared: list[Any], index: list[str]
    ) -> list[Outcome]:
        """Return the outcome of every entry over a frame, in order; ``index`` are the columns that name a row."""
        import great_expectations as gx

        if not entries:
            return []
        asset = self._source.add_dataframe_asset(name)
        batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
        result = batch.validate(
            gx.ExpectationSuite(name=name, expectations=prepared),
            result_format={"result_format": "COMPLETE", "unexpected_index_column_names": index},
        )
        # They come back ordered by column.
        by_entry = {item.expectation_config.meta[_ENTRY]: item for item in result.results}
        return [_outcome(entry, by_entry[number], frame, index) for number, entry in enumerate(entries)]


def _expectation(number: int, entry: Entry) -> Any:
    from great_expectations.exceptions import ExpectationNotFoundError, InvalidExpectationConfigurationError
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    try:
        return ExpectationConfiguration(
            type=entry.type, kwargs=dict(entry.arguments), meta={_ENTRY: number}
        ).to_domain_obj()
    except ExpectationNotFoundError as error:
        raise ConfigurationError(
            f"{entry.place}: Great Expectations has no expectation of this type; "
            "see https://greatexpectations.io/expectations"
        ) from error
    except (ValueError, TypeError, InvalidExpectationConfigurationError) as error:
        raise ConfigurationError(f"{entry.place}: {_told(error)}") from error


def _told(error: Exception) -> str:
    """Return what pydantic says of each wrong argument, the first problem of each."""
    problems: list[Any] = error.errors() if hasattr(error, "errors") else [{"loc": (), "msg": str(error)}]
    first: dict[str, str] = {}
    for problem in problems:
        first.setdefault(".".join(map(str, problem["loc"])), problem["msg"])
    return "; ".join(f"{place}: {what}" if place else what for place, what in first.items())


def _outcome(entry: Entry, item: Any, frame: pd.DataFrame, index: list[str]) -> Outcome:
    columns = entry.columns()
    hidden = not _TEXTS.isdisjoint(columns)
    result = item.result or {}
    places = result.get("unexpected_index_list") or [] if index else []
    return Outcome(
        expectation=entry.type,
        column=", ".join(columns),
        expected=dict(entry.arguments),
        success=bool(item.success),
        checked=len(frame),
        unexpected=int(result.get("unexpected_count") or 0),
        observed=_observed(result, hidden) if index else _figure(frame, columns),
        found=tuple(_found(place, columns, index, hidden) for place in places),
        error=_error(item.exception_info or {}, hidden),
        configuration=item.expectation_config,
    )


def _found(place: Mapping[str, Any], columns: Sequence[str], index: list[str], hidden: bool) -> Found:
    own = [name for name in columns if name not in index]
    value = "" if hidden or not own else ", ".join(str(place.get(name)) for name in own)
    return Found(str(place.get("source")), str(place.get("path")), value)


def _observed(result: Mapping[str, Any], hidden: bool) -> Any:
    observed: Any = result.get("observed_value")
    observed = observed.item() if hasattr(observed, "item") else observed  # a number of numpy's
    return _WITHHELD if hidden and not isinstance(observed, int | float | None) else observed


def _figure(frame: pd.DataFrame, columns: Sequence[str]) -> Any:
    """Return the one figure that an expectation on a source as a whole looks at."""
    return frame[columns[0]].iloc[0].item() if len(columns) == 1 else None


def _error(info: Mapping[str, Any], hidden: bool) -> str | None:
    """Return what went wrong in the expectation itself, without the values that the message may quote."""
    raised = info if "raised_exception" in info else next(iter(info.values()), {})
    if not raised.get("raised_exception"):
        return None
    lines = [line for line in str(raised.get("exception_traceback") or "").splitlines() if line.strip()]
    kind = lines[-1].split(":")[0].rpartition(".")[2] if lines else "an exception"
    message = "" if hidden else str(raised.get("exception_message"))[:_LONGEST_ERROR]
    return f"{kind}: {message}" if message else kind
