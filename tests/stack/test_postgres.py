"""The embedded Postgres."""

from __future__ import annotations

import os
import secrets
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from llmops.errors import StackError
from llmops.stack import EmbeddedPostgres


@pytest.fixture
def server(scratch: Path) -> Iterator[EmbeddedPostgres]:
    """A server of its own for a test that breaks it."""
    server = EmbeddedPostgres(scratch / f"server-{secrets.token_hex(4)}", settings={"shared_buffers": "16MB"})
    yield server
    server.destroy()


def _query(url: str, text: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(text).fetchone()
    return row and row[0]


def test_each_test_gets_a_database_of_its_own_with_vectors(database) -> None:
    assert _query(database.url("llmops_worker"), "SELECT '[1,2]'::vector <-> '[1,4]'::vector") == 2.0
    assert _query(database.url("llmops_worker"), "SELECT current_database()") == database.name


@pytest.mark.parametrize("password", ["guess", ""])
def test_no_role_enters_with_a_wrong_password_or_none(postgres: EmbeddedPostgres, password: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(postgres.url("llmops_worker"), password=password)


def test_it_listens_on_a_private_socket_only(postgres: EmbeddedPostgres) -> None:
    assert _query(postgres.admin_url, "SHOW listen_addresses") == ""
    assert stat.S_IMODE(postgres.socket_folder.stat().st_mode) == 0o700
    assert len(os.fsencode(postgres.socket_folder)) <= 90


def test_passwords_are_readable_by_their_owner_only(scratch: Path, postgres: EmbeddedPostgres) -> None:
    assert stat.S_IMODE((scratch / "postgres" / "passwords.json").stat().st_mode) == 0o600


def test_committed_rows_survive_a_kill_and_a_stranger_with_the_old_process_number(
    server: EmbeddedPostgres,
) -> None:
    server.start()
    with psycopg.connect(server.admin_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
    lock = server.data / "postmaster.pid"
    text = lock.read_text()
    psutil.Process(int(text.split()[0])).kill()
    server.stop()
    account = server.account.uid if server.account else None
    with subprocess.Popen(["sleep", "60"], user=account) as stranger:
        lock.write_text(text.replace(text.split()[0], str(stranger.pid), 1))
        server.start()
        stranger.kill()
    assert _query(server.admin_url, "SELECT number FROM kept") == 7


def test_a_folder_may_be_deep(scratch: Path) -> None:
    server = EmbeddedPostgres(scratch.joinpath(*["a_rather_long_name"] * 12))
    try:
        server.start()
        assert _query(server.admin_url, "SELECT 1") == 1
    finally:
        server.destroy()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives Postgres to another account")
def test_a_folder_that_the_account_cannot_reach_is_replaced(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    server = EmbeddedPostgres(tmp_path / "postgres")
    try:
        server.start()
        assert not server.place.is_relative_to(tmp_path)
        assert _query(server.admin_url, "SELECT 1") == 1
    finally:
        server.destroy()
    assert not server.place.exists()


def test_a_server_that_cannot_start_says_why(server: EmbeddedPostgres) -> None:
    server.prepare()
    (server.data / "PG_VERSION").write_text("12\n")
    with pytest.raises(StackError, match=r"did not start.*(version|incompatible)"):
        server.start()


def test_lost_passwords_are_named_as_the_reason(server: EmbeddedPostgres) -> None:
    server.start()
    server.stop()
    folder = server.data.parent.parent
    (folder / "passwords.json").unlink()
    again = EmbeddedPostgres(folder)
    with pytest.raises(StackError, match=r"other passwords than .*passwords\.json"):
        again.start()
    assert not again.ready()


def test_a_second_server_on_the_same_data_is_refused(server: EmbeddedPostgres) -> None:
    server.start()
    with pytest.raises(StackError, match="already runs"):
        EmbeddedPostgres(server.data.parent.parent).start()
    assert server.ready()
