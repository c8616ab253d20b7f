"""A bucket of S3 on loopback, behind a proxy that can be told to fail."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

from llmops.corpus import ObjectStoreSource, _s3
from support.http import FakeService, listening

Fault = Callable[[FakeService], bool]


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


class Bucket:
    """A bucket behind a proxy that can be told to fail."""

    def __init__(self, endpoint: str, name: str) -> None:
        import boto3

        self.name = name
        self.endpoint = endpoint
        self.fault: Fault = lambda request: False
        self.requests: list[str] = []
        self._client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
        self._client.create_bucket(Bucket=name)

    def put(self, **objects: str | bytes) -> None:
        """Put objects whose names have ``__`` for ``/`` and ``_md`` for ``.md``."""
        for name, body in objects.items():
            self.put_at(name.replace("__", "/").replace("_md", ".md"), body)

    def put_at(self, key: str, body: str | bytes, **more: str) -> None:
        self._client.put_object(Bucket=self.name, Key=key, Body=body, **more)

    def remove(self, key: str) -> None:
        self._client.delete_object(Bucket=self.name, Key=key)


@pytest.fixture
def bucket(moto: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Bucket]:
    for key, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setattr(_s3, "_ATTEMPTS", 2)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    made = Bucket(moto, f"b{abs(hash(request.node.name))}")

    class Proxy(FakeService):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            made.requests.append(f"{self.command} {self.path}")
            if not made.fault(self):
                forward(self, made.endpoint)

        do_HEAD = do_GET

    with listening(Proxy) as url:
        made.proxy = url  # type: ignore[attr-defined]
        yield made


def forward(request: FakeService, endpoint: str, cut: int | None = None) -> None:
    """Pass a request on and its answer back, cut off after some bytes of the body."""
    connection = http.client.HTTPConnection(urlsplit(endpoint).netloc)
    connection.request(request.command, request.path, headers=dict(request.headers))
    reply = connection.getresponse()
    body = reply.read()
    request.send_response(reply.status)
    for key, value in reply.getheaders():
        if key.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
            request.send_header(key, value)
    request.send_header("Content-Length", reply.getheader("Content-Length") or str(len(body)))
    request.end_headers()
    request.wfile.write(body[:cut])
    if cut is not None:
        request.close_connection = True
    connection.close()


def failing(status: int, code: str, where: str = "", times: int = 1000) -> Fault:
    """Return a fault: answer requests whose path has ``where`` with an error of S3."""
    left = [times]

    def fault(request: FakeService) -> bool:
        if where not in request.path or left[0] == 0:
            return False
        left[0] -= 1
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>because</Message></Error>".encode()
        request.reply(status, b"" if request.command == "HEAD" else body)
        return True

    return fault


def store(bucket: Bucket, prefix: str = "docs", **more: Any) -> ObjectStoreSource:
    options = {"endpoint_url": bucket.proxy, "region": "us-east-1"}  # type: ignore[attr-defined]
    return ObjectStoreSource(
        kind="object_store", name="s", url=f"s3://{bucket.name}/{prefix}", storage_options=options, **more
    )


def listed(source: ObjectStoreSource, number: int = 9) -> dict[str, str]:
    return {
        f.path: f.problem or f.read().decode() for f in source.discover(datetime(2024, 1, number, tzinfo=UTC))
    }
