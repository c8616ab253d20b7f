"""The process table: what runs on one machine, in one place."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from llmops.errors import ConfigurationError
from llmops.stack._accounts import Account
from llmops.stack._airflow import airflow_environment, is_migrated, note_migrated, write_users
from llmops.stack._health import AirflowHealth, Health, HttpHealth, PostgresHealth
from llmops.stack._layout import Layout

__all__ = ["Process", "process_table", "select"]


@dataclass(frozen=True)
class Process:
    """One row of the table.

    A row without ``health`` is a step: it has to end with 0 once, and ``skip`` tells that it need not
    run. ``requires`` are the rows that must work before it starts, each time it starts. ``before`` runs
    ahead of every start and ``after`` behind a step that succeeded. A process that does not become
    healthy within ``start_seconds`` is started again. It runs as ``account`` in ``folder``, by default as
    this user in the stack's home.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    requires: tuple[str, ...] = ()
    health: Health | None = None
    skip: Callable[[], bool] | None = None
    before: Callable[[], None] | None = None
    after: Callable[[], None] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 10
    start_seconds: float = 240
    address: str | None = None
    account: Account | None = None
    folder: Path | None = None


def process_table(layout: Layout) -> tuple[Process, ...]:
    """Return every process of the system on this machine, each after those it requires."""
    return (*_stores(layout), *_airflow(layout), *_services(layout))


def select(table: tuple[Process, ...], only: Iterable[str]) -> tuple[Process, ...]:
    """Return the rows named by ``only`` and all they require; all rows if it is empty."""
    rows = {process.name: process for process in table}
    wanted = list(only) or list(rows)
    for name in wanted:
        if name not in rows:
            raise ConfigurationError(f"there is no process {name!r}; there is: {', '.join(rows)}")
        wanted.extend(need for need in rows[name].requires if need not in wanted)
    return tuple(process for process in table if process.name in wanted)


def _stores(layout: Layout) -> tuple[Process, ...]:
    server = layout.postgres
    passwords = {
        f"LLMOPS_PASSWORD_{role.removeprefix('llmops_').upper()}": password
        for role, password in server.passwords.items()
    }
    mlflow = {
        **layout.environment(),
        "MLFLOW_BACKEND_STORE_URI": server.url("mlflow", "mlflow", driver="psycopg"),
        "MLFLOW_ARTIFACTS_DESTINATION": str(layout.home / "mlflow" / "artifacts"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_CRYPTO_KEK_PASSPHRASE": layout.secrets["mlflow_gateway"],
    }
    place = ("--host", "127.0.0.1", "--port", str(layout.ports["mlflow"]))
    return (
        Process(
            name="postgres",
            command=tuple(server.command),
            environment=server.environment,
            account=server.account,
            folder=server.place,
            health=PostgresHealth(server),
            before=server.clear_leftovers,
            stop_signal=signal.SIGINT,
            stop_seconds=30,
        ),
        Process(
            name="database",
            command=layout.python("llmops", "database", "init"),
            environment={**layout.environment(), **passwords, "LLMOPS_DATABASE_URL": server.admin_url},
            requires=("postgres",),
        ),
        Process(
            name="mlflow",
            command=layout.python("mlflow", "server", *place, "--workers", "1"),
            environment=mlflow,
            requires=("postgres", "database"),
            health=HttpHealth(f"{layout.address('mlflow')}/health"),
            address=layout.address("mlflow"),
        ),
    )


def _airflow(layout: Layout) -> tuple[Process, ...]:
    environment = airflow_environment(layout)
    url = layout.address("airflow")
    place = ("--host", "127.0.0.1", "--port", str(layout.ports["airflow"]))
    step = Process(
        name="airflow-migrate",
        command=layout.python("airflow", "db", "migrate"),
        environment=environment,
        requires=("postgres", "database"),
        skip=partial(is_migrated, layout),
        after=partial(note_migrated, layout),
    )
    server = Process(
        name="airflow-api-server",
        command=layout.python("airflow", "api-server", *place),
        environment=environment,
        requires=("postgres", "airflow-migrate"),
        health=AirflowHealth(url, "metadatabase"),
        before=partial(write_users, layout),
        stop_seconds=5,
        address=url,
    )

    def component(name: str, *options: str) -> Process:
        return Process(
            name=f"airflow-{name}",
            command=layout.python("airflow", name, *options),
            environment=environment,
            requires=("postgres", "airflow-api-server"),
            health=AirflowHealth(url, name.replace("-", "_")),
        )

    return (
        step,
        server,
        component("scheduler", "--skip-serve-logs"),
        component("dag-processor"),
        component("triggerer", "--skip-serve-logs"),
    )


def _services(layout: Layout) -> tuple[Process, ...]:
    def service(name: str, role: str, port: str, command: tuple[str, ...]) -> Process:
        url = layout.address(port)
        return Process(
            name=name,
            command=layout.python("llmops", "--verbose", *command, str(layout.ports[port])),
            environment=layout.environment(role),
            requires=("postgres", "database", "mlflow"),
            health=HttpHealth(f"{url}/healthz"),
            address=url,
        )

    keys = ("--private", str(layout.notary_key), "--public", str(layout.notary_keys))
    key = Process(
        name="notary-key",
        command=layout.python("llmops", "notary", "key", *keys),
        environment=layout.environment("llmops_notary"),
        skip=lambda: layout.notary_key.exists() and layout.notary_keys.exists(),
    )
    serve = ("serve", "--host", "127.0.0.1", "--port")
    notary = service("notary", "llmops_notary", "notary", ("notary", "run", "--health-port"))
    account = {
        "LLMOPS_AIRFLOW_USER": "service",
        "LLMOPS_AIRFLOW_PASSWORD": layout.password("service"),
        "LLMOPS_NOTARY_KEY": str(layout.notary_key),
    }
    serving = service("serving", "llmops_serving", "serving", serve)
    return (
        key,
        replace(serving, requires=(*serving.requires, "notary-key")),
        service("index-follower", "llmops_worker", "follower", ("index", "follow", "--health-port")),
        replace(
            notary,
            environment={**notary.environment, **account},
            requires=("postgres", "database", "notary-key", "airflow-api-server"),
        ),
    )
