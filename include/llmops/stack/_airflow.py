"""How the stack configures Airflow."""

from __future__ import annotations

import importlib.metadata
import json
import logging
from pathlib import Path

import psycopg

from llmops.errors import ConfigurationError
from llmops.settings import inherited
from llmops.stack._layout import USERS, Layout
from llmops.stack._secrets import write_private

__all__ = ["airflow_environment", "is_migrated", "note_migrated", "write_users"]

log = logging.getLogger(__name__)

_DEFAULTS = {
    # Each worker is forked at once and pays for its first task, and a laptop has few processors.
    "AIRFLOW__CORE__PARALLELISM": "4",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    # A new DAG file is seen after seconds instead of five minutes.
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
    "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "2",
    # Most of the time between two short tasks is this sleep.
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
    # Running tasks outlive a restart of the API server.
    "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "10",
    "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "20",
    # Tasks are forked from the scheduler: a thread of its own could hold a lock then that no task ever gets.
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
"""What a person may change by setting the variable."""


def airflow_environment(layout: Layout) -> dict[str, str]:
    """Return the environment of Airflow's processes and of its command line.

    Raises ConfigurationError when a variable would let everybody in as administrator.
    """
    everybody = inherited().get("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "")
    if everybody.strip().lower() in ("true", "t", "1", "yes", "on"):
        raise ConfigurationError(
            f"AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS is {everybody!r}: then anybody could approve "
            "a release in anybody's name. Unset it"
        )
    server = layout.postgres
    logs = layout.logs / "airflow"
    return {
        **_DEFAULTS,
        **layout.environment(),
        "AIRFLOW_HOME": str(layout.airflow_home),
        "AIRFLOW__CORE__EXECUTOR": "llmops.orchestration.executor.LocalExecutor",
        "AIRFLOW__CORE__DAGS_FOLDER": str(layout.dags),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(layout.root / "plugins"),
        "AIRFLOW__CORE__FERNET_KEY": f"{layout.secrets['fernet']}=",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{u}:{role}" for u, role in USERS.items()),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(_passwords_file(layout)),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": server.url("airflow", "airflow", driver="psycopg2"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": server.url("airflow", "airflow", driver="psycopg"),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(layout.ports["airflow"]),
        "AIRFLOW__API__BASE_URL": layout.address("airflow"),
        "AIRFLOW__API__SECRET_KEY": layout.secrets["airflow_api"],
        "AIRFLOW__API_AUTH__JWT_SECRET": layout.secrets["airflow_jwt"],
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(logs),
        "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(logs / "dag_processor"),
    }


def write_users(layout: Layout) -> None:
    """Write the users' passwords before Airflow starts: it would print those that it makes itself."""
    write_private(_passwords_file(layout), json.dumps({name: layout.password(name) for name in USERS}))


def is_migrated(layout: Layout) -> bool:
    """Tell whether the metadata database is as this version of Airflow left it after its migration."""
    file = _migration_file(layout)
    return file.exists() and json.loads(file.read_text("utf-8")) == _migration(layout)


def note_migrated(layout: Layout) -> None:
    """Remember the version and revision that ``airflow db migrate`` arrived at."""
    write_private(_migration_file(layout), json.dumps(_migration(layout)))


def _migration(layout: Layout) -> dict[str, str | None]:
    revision = None
    with psycopg.connect(layout.postgres.url("airflow", "airflow"), connect_timeout=10) as connection:
        found = connection.execute("SELECT to_regclass('alembic_version') IS NOT NULL").fetchone()
        if found and found[0]:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            revision = str(row[0]) if row else None
    return {"airflow": importlib.metadata.version("apache-airflow-core"), "revision": revision}


def _passwords_file(layout: Layout) -> Path:
    return layout.airflow_home / "passwords.json"


def _migration_file(layout: Layout) -> Path:
    return layout.airflow_home / "migrated.json"
