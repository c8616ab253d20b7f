"""The database module against a real Postgres."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from llmops import database as module
from llmops.database import ROLES, advisory_lock, connect, initialise, migrate, on_database
from llmops.errors import ConfigurationError, IntegrityError, ServiceUnavailable, WriteConflict
from llmops.stack import EmbeddedPostgres
from support.services import FreshDatabase, free_port

PASSWORD = "geheim-7"


@pytest.fixture
def owner(database: FreshDatabase) -> str:
    return database.url("llmops_owner")


@pytest.fixture
def migrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of migrations, empty, in place of the package's own."""
    folder = tmp_path / "package" / "migrations"
    folder.mkdir(parents=True)
    monkeypatch.setattr(module.resources, "files", lambda _: folder.parent)
    return folder


@pytest.fixture
def bare(database: FreshDatabase) -> Iterator[str]:
    """The owner's URL of a database that has no migration yet."""
    name = f"{database.name}_bare"
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} OWNER llmops_owner").format(sql.Identifier(name)))
    yield database.server.url("llmops_owner", name)
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _table_exists(url: str, table: str) -> bool:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone()
    return bool(row and row[0])


def test_a_block_commits_when_it_ends_and_rolls_back_when_it_raises(owner: str) -> None:
    with connect(owner) as connection:
        connection.execute("CREATE TABLE kept ()")
    with pytest.raises(psycopg.errors.DivisionByZero), connect(owner) as connection:
        _execute(connection, "CREATE TABLE dropped ()", "SELECT 1/0")
    assert _table_exists(owner, "kept")
    assert not _table_exists(owner, "dropped")


def test_a_server_that_is_not_there_is_named_without_the_password() -> None:
    port = free_port()
    with (
        pytest.raises(ServiceUnavailable, match=f"127.0.0.1:{port}/llmops") as raised,
        connect(f"postgresql://llmops_worker:{PASSWORD}@127.0.0.1:{port}/llmops"),
    ):
        pytest.fail("connected to nothing")
    assert PASSWORD not in str(raised.value)


def test_a_wrong_password_is_not_repeated(postgres: EmbeddedPostgres) -> None:
    url = psycopg.conninfo.make_conninfo(postgres.url("llmops_worker"), password=PASSWORD)
    with pytest.raises(ServiceUnavailable, match="password authentication failed") as raised, connect(url):
        pytest.fail("connected with a wrong password")
    assert PASSWORD not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [f"postgresql//u:{PASSWORD}@h/d", f"postgresql://u:{PASSWORD}%zz@h/d", f"postgresql://u:{PASSWORD} 8@h"],
)
def test_a_url_that_cannot_be_read_is_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError, match="the database URL cannot be read") as raised, connect(url):
        pytest.fail("connected to nothing")
    assert PASSWORD not in str(raised.value)
    assert raised.value.__suppress_context__


@pytest.mark.parametrize("autocommit", [False, True])
def test_a_connection_lost_in_the_block_is_a_service_that_does_not_answer(
    database: FreshDatabase, autocommit: bool
) -> None:
    with (
        pytest.raises(ServiceUnavailable, match="was lost") as raised,
        connect(database.url("llmops_worker"), autocommit=autocommit) as connection,
    ):
        _kill(database, connection, "SELECT 1")
    assert isinstance(raised.value.__cause__, psycopg.OperationalError)
    assert database.name in str(raised.value)


def test_a_connection_lost_before_the_commit_is_not_passed_over(database: FreshDatabase) -> None:
    with (
        pytest.raises(ServiceUnavailable, match="was lost"),
        connect(database.url("llmops_owner")) as connection,
    ):
        _kill_after(database, connection, "CREATE TABLE lost ()")
    assert not _table_exists(database.url("llmops_owner"), "lost")


def test_other_errors_of_the_database_come_out_as_they_are(database: FreshDatabase) -> None:
    worker = database.url("llmops_worker")
    with pytest.raises(psycopg.errors.InsufficientPrivilege), connect(worker) as connection:
        connection.execute("CREATE TABLE mine ()")
    with pytest.raises(psycopg.errors.QueryCanceled), connect(worker) as connection:
        _execute(connection, "SET statement_timeout = '20ms'", "SELECT pg_sleep(30)")


def _execute(connection: psycopg.Connection, *statements: LiteralString) -> None:
    for statement in statements:
        connection.execute(statement)


def _kill(database: FreshDatabase, connection: psycopg.Connection, then: LiteralString) -> None:
    _kill_after(database, connection, "SELECT 0")
    connection.execute(then)


def _kill_after(database: FreshDatabase, connection: psycopg.Connection, first: LiteralString) -> None:
    connection.execute(first)
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(%s, 10000)", (connection.info.backend_pid,))


def test_a_lock_is_held_by_one_and_the_other_is_told_after_its_time(owner: str) -> None:
    with (
        advisory_lock(owner, "a"),
        pytest.raises(WriteConflict, match="'a'"),
        advisory_lock(owner, "a", wait_seconds=0.2),
    ):
        pytest.fail("two have the lock")
    with advisory_lock(owner, "a", wait_seconds=0.2):
        pass


def test_locks_of_other_names_do_not_wait(owner: str) -> None:
    with advisory_lock(owner, "a"), advisory_lock(owner, "b", wait_seconds=0.2):
        pass


def test_a_lock_is_handed_to_the_one_who_waits(owner: str) -> None:
    order: list[str] = []
    ready = threading.Event()

    def second() -> None:
        ready.set()
        with advisory_lock(owner, "a", wait_seconds=60):
            order.append("second")

    with advisory_lock(owner, "a"):
        waiting = threading.Thread(target=second)
        waiting.start()
        assert ready.wait(30)
        _until_someone_waits(owner)
        order.append("first")
    waiting.join(60)
    assert order == ["first", "second"]


def _until_someone_waits(owner: str) -> None:
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with psycopg.connect(owner, autocommit=True) as connection:
        for _ in range(600):
            row = connection.execute(query).fetchone()
            if row and row[0]:
                return
            connection.execute("SELECT pg_sleep(0.05)")
    pytest.fail("nobody waits for the lock")


def test_an_error_inside_a_lock_gives_it_back(owner: str) -> None:
    with pytest.raises(ZeroDivisionError), advisory_lock(owner, "a"):
        raise ZeroDivisionError
    with advisory_lock(owner, "a", wait_seconds=0.2):
        pass


def test_initialising_again_changes_nothing_but_the_passwords(postgres: EmbeddedPostgres) -> None:
    def state() -> list[tuple[object, ...]]:
        with psycopg.connect(postgres.admin_url) as connection:
            return [
                *connection.execute(
                    "SELECT rolname, rolsuper, rolcreatedb FROM pg_roles ORDER BY 1"
                ).fetchall(),
                *connection.execute(
                    "SELECT datname, datdba, datacl::text FROM pg_database WHERE datname NOT LIKE 'test%' "
                    "ORDER BY 1"
                ).fetchall(),
            ]

    names = (*ROLES, "airflow", "mlflow")
    kept = {name: _password(postgres, name) for name in names}
    before = state()
    try:
        initialise(postgres.admin_url, {**kept, "llmops_serving": PASSWORD})
        url = psycopg.conninfo.make_conninfo(postgres.url("llmops_serving"), password=PASSWORD)
        with connect(url) as connection:
            connection.execute("SELECT 1")
    finally:
        initialise(postgres.admin_url, kept)
    assert state() == before
    with connect(postgres.url("llmops_serving")) as connection:
        connection.execute("SELECT 1")


def _password(postgres: EmbeddedPostgres, role: str) -> str:
    database = role if role in ("airflow", "mlflow") else "llmops"
    return str(psycopg.conninfo.conninfo_to_dict(postgres.url(role, database))["password"])


def test_roles_reach_their_own_database_alone(postgres: EmbeddedPostgres) -> None:
    for role, database in (("llmops_worker", "airflow"), ("airflow", "llmops"), ("mlflow", "llmops")):
        with (
            pytest.raises(ServiceUnavailable, match="permission denied"),
            connect(postgres.url(role, database)),
        ):
            pytest.fail(f"{role} reads {database}")


def test_a_missing_password_is_named(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(ConfigurationError, match=r"\['llmops_notary', 'mlflow'\]"):
        initialise(postgres.admin_url, dict.fromkeys([*ROLES[:3], "airflow"], "x"))


def test_the_migrations_of_the_package_are_all_applied(owner: str) -> None:
    assert migrate(owner) == []


def test_migrations_run_once_and_in_the_order_of_their_names(bare: str, migrations: Path) -> None:
    (migrations / "0002_b.sql").write_text("ALTER TABLE a ADD COLUMN b int")
    (migrations / "0001_a.sql").write_text("CREATE TABLE a ()")
    (migrations / "README.md").write_text("no migration")
    assert migrate(bare) == ["0001_a.sql", "0002_b.sql"]
    assert migrate(bare) == []
    (migrations / "0003_c.sql").write_text("DROP TABLE a; CREATE TABLE c ()")
    assert migrate(bare) == ["0003_c.sql"]
    assert _table_exists(bare, "c")
    assert not _table_exists(bare, "a")


def test_a_migration_that_was_changed_is_refused(bare: str, migrations: Path) -> None:
    file = migrations / "0001_a.sql"
    file.write_text("CREATE TABLE a ()")
    migrate(bare)
    file.write_text("CREATE TABLE a (b int)")
    (migrations / "0002_b.sql").write_text("CREATE TABLE b ()")
    with pytest.raises(IntegrityError, match=r"0001_a\.sql was changed after it was applied"):
        migrate(bare)
    assert not _table_exists(bare, "b")


def test_a_migration_that_fails_leaves_nothing_behind(bare: str, migrations: Path) -> None:
    (migrations / "0001_a.sql").write_text("CREATE TABLE a ()")
    (migrations / "0002_b.sql").write_text("CREATE TABLE b (); SELECT 1/0")
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(bare)
    assert _table_exists(bare, "a")
    assert not _table_exists(bare, "b")
    (migrations / "0002_b.sql").write_text("CREATE TABLE b ()")
    assert migrate(bare) == ["0002_b.sql"]


def test_processes_that_migrate_at_once_apply_each_migration_once(bare: str, migrations: Path) -> None:
    (migrations / "0001_a.sql").write_text("CREATE TABLE a (); SELECT pg_sleep(0.2)")
    with ThreadPoolExecutor(4) as threads:
        applied = [name for names in threads.map(migrate, [bare] * 4) for name in names]
    assert applied == ["0001_a.sql"]


def test_the_log_of_migrations_has_no_password(
    bare: str, migrations: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (migrations / "0001_a.sql").write_text("CREATE TABLE a ()")
    with caplog.at_level(logging.INFO, logger="llmops.database"):
        migrate(bare)
    assert "Applied 1 migrations" in caplog.text
    assert str(psycopg.conninfo.conninfo_to_dict(bare)["password"]) not in caplog.text


def test_a_url_is_pointed_at_another_database_of_the_same_server() -> None:
    moved = psycopg.conninfo.conninfo_to_dict(on_database(f"postgresql://u:{PASSWORD}@127.0.0.1/a", "b"))
    assert moved["dbname"] == "b"
    assert (moved["host"], moved["user"], moved["password"]) == ("127.0.0.1", "u", PASSWORD)
