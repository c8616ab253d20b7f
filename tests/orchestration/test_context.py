"""A task knows its run by plain values, whatever started it."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from llmops.errors import ConfigurationError
from llmops.orchestration.context import run_of, step

DAY = datetime(2026, 3, 2, tzinfo=UTC)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def context(events: dict[str, list[dict[str, Any]]] | None = None, **changes: Any) -> dict[str, Any]:
    run = {
        "dag_id": "ingest_documents",
        "run_id": "manual__2026-03-02T12:00:00+00:00",
        "data_interval_end": None,
        "run_after": NOON,
        "triggering_user_name": None,
    }
    params = {"assistant": "library_guide", **changes.pop("params", {})}
    extras = {
        name: [SimpleNamespace(extra=extra) for extra in found] for name, found in (events or {}).items()
    }
    return {
        "dag_run": SimpleNamespace(**{**run, **changes}),
        "params": params,
        "triggering_asset_events": extras,
    }


def test_a_scheduled_run_is_about_the_end_of_its_interval_and_a_manual_one_about_when_it_was_asked() -> None:
    assert run_of(context(data_interval_end=DAY)).as_of == DAY
    assert run_of(context()).as_of == NOON


def test_an_asset_event_names_the_assistant_and_its_author() -> None:
    run = run_of(context({"embedder": [{"assistant": "handbook", "author": "anna, bert"}]}))
    assert run.assistant == "handbook"
    assert run.authors == ("anna", "bert")


def test_authors_are_who_triggered_the_run_and_the_authors_of_what_it_is_about() -> None:
    run = run_of(context({"embedder": [{"author": "anna"}]}, triggering_user_name="carl"))
    assert run.authors == ("anna", "carl")
    assert run.user == "carl"
    assert run.actor == ("anna, carl", f"Airflow run ingest_documents {run.run_id}")
    assert (run_of(context()).authors, run_of(context()).user) == ((), None)


def test_the_staging_folder_is_the_runs_own_and_a_safe_name() -> None:
    run = run_of(context())
    other = run_of(context(run_id="manual__2026-03-02T12:00:01+00:00"))
    assert run.staging != other.staging
    assert ":" not in run.staging.name
    assert str(run.staging).startswith(run.table_root)


def test_a_step_reports_its_imports_and_its_work_and_passes_errors_on() -> None:
    @step("json")
    def works() -> dict[str, Any]:
        return {"count": 2}

    @step("json")
    def fails() -> dict[str, Any]:
        raise ValueError("broken")

    result = works()
    assert result["count"] == 2
    assert set(result["seconds"]) == {"imports", "work"}
    with pytest.raises(ValueError, match="broken"):
        fails()


def test_events_of_several_assistants_are_refused_unless_the_run_is_about_all() -> None:
    events = {"embedder": [{"assistant": "one"}, {"assistant": "two"}]}
    with pytest.raises(ConfigurationError, match="once for each"):
        run_of(context(events))
    assert run_of(context(events, params={"all_assistants": True})).assistant == "two"
