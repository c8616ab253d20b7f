"""The process table itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from llmops.stack._layout import PORTS, Layout, Options
from llmops.stack.processes import Process, process_table, select


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(Options(tmp_path / "home"), PORTS)


@pytest.fixture
def table(layout: Layout) -> dict[str, Process]:
    return {process.name: process for process in process_table(layout)}


def test_every_process_stands_behind_all_it_requires(table: dict[str, Process]) -> None:
    names = list(table)
    assert names
    for name, process in table.items():
        assert all(names.index(need) < names.index(name) for need in process.requires)


def test_no_secret_is_part_of_a_command_line(layout: Layout, table: dict[str, Process]) -> None:
    secrets = [*layout.secrets.values(), *layout.postgres.passwords.values()]
    assert not [
        name for name, process in table.items() if any(s in " ".join(process.command) for s in secrets)
    ]


def test_each_process_enters_the_database_as_its_own_role(table: dict[str, Process]) -> None:
    roles = {
        name: conninfo_to_dict(process.environment["LLMOPS_DATABASE_URL"])["user"]
        for name, process in table.items()
        if name in ("airflow-scheduler", "serving", "index-follower", "notary")
    }
    assert roles == {
        "airflow-scheduler": "llmops_worker",
        "index-follower": "llmops_worker",
        "notary": "llmops_notary",
        "serving": "llmops_serving",
    }


def test_only_the_notary_has_the_account_that_reads_airflow(
    layout: Layout, table: dict[str, Process]
) -> None:
    knows = [name for name, row in table.items() if layout.password("service") in row.environment.values()]
    assert knows == ["notary"]


def test_only_the_notary_is_told_where_its_key_is(layout: Layout, table: dict[str, Process]) -> None:
    knows = [name for name, row in table.items() if str(layout.notary_key) in row.environment.values()]
    assert knows == ["notary"]
    assert all(row.environment["LLMOPS_NOTARY_KEYS"] for name, row in table.items() if name != "postgres")


def test_services_do_not_get_airflows_secrets(layout: Layout, table: dict[str, Process]) -> None:
    airflow_only = {layout.secrets["airflow_jwt"], layout.secrets["airflow_api"]}
    for name in ("mlflow", "serving", "index-follower", "notary"):
        assert not airflow_only & set(table[name].environment.values())


def test_children_may_write_bytecode_and_reach_loopback_around_a_proxy(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("NO_PROXY", "intranet")
    for process in process_table(layout):
        if process.name != "postgres":
            assert "PYTHONDONTWRITEBYTECODE" not in process.environment
            assert process.environment["NO_PROXY"] == "127.0.0.1,localhost,intranet"


def test_a_selection_brings_what_it_requires(table: dict[str, Process]) -> None:
    chosen = select(tuple(table.values()), ["mlflow"])
    assert [process.name for process in chosen] == ["postgres", "database", "mlflow"]
