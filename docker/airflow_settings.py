"""Load ``airflow_settings.yaml`` into a running Airflow: pools, connections and variables."""

from __future__ import annotations

import os
from pathlib import Path

from llmops.stack import AirflowClient
from llmops.stack._airflow_settings import load_airflow_settings, read_airflow_settings


def main() -> int:
    """Create what is missing and overwrite what is there, with the database password of the workers."""
    settings = read_airflow_settings(Path(__file__).resolve().parent.parent / "airflow_settings.yaml")
    settings = settings.at({"llmops_postgres": {"conn_password": os.environ["LLMOPS_PASSWORD_WORKER"]}})
    url, password = os.environ["LLMOPS_AIRFLOW_URL"], os.environ["AIRFLOW_PASSWORD_ADMIN"]
    with AirflowClient(url, "admin", password) as client:
        counts = load_airflow_settings(settings, client)
    print(f"loaded {counts} into Airflow")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
