"""Data Docs: what the quality gate found in a run, for whoever may read the DAG that runs it.

Airflow imports this file in every task process. What it needs to serve pages is imported when the API server gets
the first request.
"""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

__all__ = ["DataDocsPlugin"]


async def _pages(scope: Any, receive: Any, send: Any) -> None:
    """Pass one request to the pages."""
    from data_docs.app import shared_pages

    await shared_pages()(scope, receive, send)


class DataDocsPlugin(AirflowPlugin):
    """What Airflow's API server takes from here; the task's button "Data Docs" leads to it."""

    name = "data_docs"
    fastapi_apps = [{"app": _pages, "url_prefix": "/data-docs", "name": "Data Docs"}]  # noqa: RUF012
