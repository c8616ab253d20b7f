"""Fixtures of real services: Postgres with a migrated database, and an MLflow server."""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg import sql

from llmops.database import on_database
from llmops.settings import environ
from llmops.stack import EmbeddedPostgres
from llmops.stack._sessions import Leader, end_session

_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "64MB"}


@dataclass(frozen=True)
class FreshDatabase:
    """A migrated ``llmops`` database that one test has for itself."""

    server: EmbeddedPostgres
    name: str

    @property
    def admin_url(self) -> str:
        """Return the superuser's URL of this database."""
        return self.server.url("postgres", self.name)

    def url(self, role: str) -> str:
        """Return the URL of this database as ``role``."""
        return self.server.url(role, self.name)


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A folder that the account of Postgres can reach; pytest's own are private to root."""
    with tempfile.TemporaryDirectory(prefix="llmops-test-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres(scratch: Path) -> Iterator[EmbeddedPostgres]:
    """A running server, with roles and databases, whose ``llmops`` database is migrated."""
    server = EmbeddedPostgres(scratch / "postgres", settings=_FAST)
    try:
        server.start()
        server.set_up()
        yield server
    finally:
        server.destroy()


@pytest.fixture
def database(postgres: EmbeddedPostgres) -> Iterator[FreshDatabase]:
    """A copy of the migrated ``llmops`` database for one test."""
    with fresh_database(postgres) as made:
        yield made


@contextmanager
def fresh_database(postgres: EmbeddedPostgres) -> Iterator[FreshDatabase]:
    """Make a copy of the migrated ``llmops`` database, and drop it when the block ends."""
    name = f"test_{secrets.token_hex(6)}"
    roles = ("llmops_owner", "llmops_worker", "llmops_serving", "llmops_notary")
    with psycopg.connect(postgres.admin_url, autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE llmops OWNER llmops_owner").format(sql.Identifier(name))
        )
        admin.execute(
            sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(
                sql.Identifier(name), sql.SQL(", ").join(map(sql.Identifier, roles))
            )
        )
    yield FreshDatabase(postgres, name)
    with psycopg.connect(on_database(postgres.admin_url, "postgres"), autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def mlflow_url(scratch: Path) -> Iterator[str]:
    """The URL of a real MLflow server that keeps runs in SQLite and serves artifacts itself."""
    folder = scratch / "mlflow"
    folder.mkdir()
    url = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", url.rsplit(":")[-1]]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    variables = {name: value for name, value in environ().items() if name != "PYTHONDONTWRITEBYTECODE"}
    variables |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=variables, cwd=folder, start_new_session=True
        )
    try:
        _wait_for(f"{url}/health", process, folder / "server.log")
        yield url
    finally:
        end_session(Leader.of(process.pid))
        process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url, timeout=5).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise RuntimeError(f"{url} did not answer: {log.read_text(errors='replace')[-2000:]}")
