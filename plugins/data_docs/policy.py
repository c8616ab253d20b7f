"""Who may see Data Docs: whoever may read the DAG whose runs they are about, by Airflow's own rules."""

from __future__ import annotations

from typing import Any

__all__ = ["DAG", "may_read"]

DAG = "ingest_documents"


def _policy() -> Any:
    from airflow.api_fastapi.core_api.security import requires_access_dag

    return requires_access_dag(method="GET", param_dag_id=DAG)


may_read = _policy()
"""A dependency that raises 401 without a login and 403 with one that may not read the DAG."""
