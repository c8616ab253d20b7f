"""The button "Data Docs" of a task."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import dag, task

from llmops.orchestration.data_docs import DataDocsLink, with_data_docs
from llmops.quality import docs_folder

RUN = "manual__2026-03-02T12:00:00+00:00"


class Instance:
    """A task's instance, as far as a link asks for it."""

    def get_template_context(self) -> dict[str, Any]:
        run = SimpleNamespace(
            dag_id="ingest_documents",
            run_id=RUN,
            data_interval_end=None,
            run_after=datetime(2026, 3, 2, tzinfo=UTC),
            triggering_user_name=None,
        )
        return {"dag_run": run, "params": {"assistant": "guide"}, "triggering_asset_events": {}}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path))
    monkeypatch.setenv("LLMOPS_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/llmops")
    for name in ("MLFLOW_URL", "AIRFLOW_URL", "SERVING_URL", "NOTARY_URL"):
        monkeypatch.setenv(f"LLMOPS_{name}", "http://127.0.0.1:9")
    return tmp_path


def link() -> str:
    return DataDocsLink().get_link(None, ti_key=Instance())


def test_it_leads_to_the_pages_of_the_run() -> None:
    folder = docs_folder("guide", RUN)
    folder.mkdir(parents=True)
    (folder / "index.html").touch()
    assert link() == f"/data-docs/guide/{folder.name}/index.html"


def test_it_leads_to_where_airflow_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = docs_folder("guide", RUN)
    folder.mkdir(parents=True)
    (folder / "index.html").touch()
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://host.example/airflow/")
    assert link() == f"/airflow/data-docs/guide/{folder.name}/index.html"


def test_there_is_no_link_without_pages() -> None:
    assert link() == ""


def test_the_task_that_has_it_and_no_other_shows_the_button() -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    @dag(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC))
    def example() -> None:
        @task
        def plain() -> None: ...

        @task
        def check_quality() -> None: ...

        plain() >> with_data_docs(check_quality())

    stored = DagSerialization.from_dict(DagSerialization.to_dict(example()))
    assert stored.get_task("check_quality").extra_links == ["Data Docs"]
    assert stored.get_task("plain").extra_links == []
    button = stored.get_task("check_quality").operator_extra_link_dict["Data Docs"]
    assert button.xcom_key == DataDocsLink().xcom_key == "_link_DataDocsLink"
