from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import psycopg
import pytest
import uvicorn

from llmops.chain import Chain
from llmops.database import on_database
from llmops.serving import ServiceLimits, create_app
from llmops.stack import EmbeddedPostgres
from support.passages import extractive_chain
from support.services import FreshDatabase

QUICK = ServiceLimits(poll=0.05, report=0.2, request=10, body=1, log=1)


@dataclass
class FakeRelease:
    release_id: str
    chain: Chain
    closed: bool = False

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeSource:
    """Releases that a test puts into production by hand."""

    production: dict[str, FakeRelease | None] = field(default_factory=dict)
    fail: Exception | None = None
    doubts: dict[str, str] = field(default_factory=dict)
    reports: list[tuple[str, str]] = field(default_factory=list)
    loads: int = 0

    def current(self, assistant: str) -> str | None:
        if self.fail:
            raise self.fail
        release = self.production.get(assistant)
        return release.release_id if release else None

    def load(self, assistant: str) -> FakeRelease | None:
        self.loads += 1
        return self.production.get(assistant)

    def doubt(self, assistant: str) -> str | None:
        return self.doubts.get(assistant)

    def report(self, assistant: str, release_id: str) -> None:
        self.reports.append((assistant, release_id))


def wait_until(condition: Any, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@contextmanager
def served(
    source: FakeSource,
    url: str,
    *assistants: str,
    limits: ServiceLimits = QUICK,
    wait: bool = True,
    buffer: int = 0,
) -> Iterator[str]:
    """Run the service over real HTTP on a free port of loopback; yield its base URL.

    ``buffer`` bounds what the kernel takes for a client that does not read.
    """
    app = create_app(source, url, lambda: assistants or ("guide",), limits)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=2))
    with socket.socket() as listener:
        if buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            wait_until(lambda: server.started)
            if wait:
                wait_until(lambda: httpx.get(f"{base}/readyz").status_code == 200)
            yield base
        finally:
            server.should_exit = True
            thread.join(timeout=20)


@pytest.fixture
def log_url(database: FreshDatabase) -> str:
    return database.url("llmops_serving")


@pytest.fixture(scope="module")
def quoting(postgres: EmbeddedPostgres) -> Iterator[tuple[str, str]]:
    """A service of one quoting assistant for all tests of a file, and the URL of its answer log."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(postgres.admin_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE llmops OWNER llmops_owner")
        admin.execute(f"GRANT CONNECT ON DATABASE {name} TO llmops_serving")
    url = postgres.url("llmops_serving", name)
    source = FakeSource({"guide": FakeRelease("r1", extractive_chain(threshold=0.4))})
    with served(source, url) as base:
        yield base, url
    with psycopg.connect(on_database(postgres.admin_url, "postgres"), autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def ask(base: str, question: str, model: str = "guide", **more: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": question}], **more}
    return httpx.post(f"{base}/v1/chat/completions", json=body, timeout=30)
