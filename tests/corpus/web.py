"""A website on loopback whose pages a test writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from llmops.corpus import WebsiteSource, _http, _pages
from llmops.corpus._problems import Unreadable
from support.http import FakeService, listening

Answer = Callable[[FakeService], None]


class InProcess:
    """Stands in for the sandbox: the same calls, in this process."""

    def call(self, task: str, *arguments: Any) -> Any:
        return {"sitemap": _pages.sitemap, "links": _pages.links}[task](*arguments)


class Web:
    """A website whose pages a test writes, and the requests that it got."""

    def __init__(self) -> None:
        self.url = ""
        self.pages: dict[str, Answer] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.times: list[float] = []
        self.connections: list[int] = []

    def asked(self, path: str) -> int:
        return sum(found == path for found, _ in self.requests)

    def html(self, path: str, *links: str, text: str = "Text", **headers: str) -> None:
        """Write a page with links."""
        body = (
            f"<html><body><p>{text}</p>{''.join(f'<a href={link!r}>x</a>' for link in links)}</body></html>"
        )
        self.raw(path, body.encode(), **{"Content-Type": "text/html; charset=utf-8", **headers})

    def raw(self, path: str, body: bytes, status: int = 200, **headers: str) -> None:
        """Write an answer; header names have ``_`` for ``-``."""

        def answer(request: FakeService) -> None:
            request.send_response(status)
            for key, value in headers.items():
                request.send_header(key.replace("_", "-"), value)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            request.wfile.write(body)

        self.pages[path] = answer

    def redirect(self, path: str, to: str, status: int = 302) -> None:
        self.raw(path, b"", status, Location=to)

    def sitemap(self, path: str, *entries: str, index: bool = False) -> bytes:
        """Write a sitemap of paths, or of sitemaps."""
        outer, inner = ("sitemapindex", "sitemap") if index else ("urlset", "url")
        locs = "".join(f"<{inner}><loc>{e if '://' in e else self.url + e}</loc></{inner}>" for e in entries)
        body = f"<?xml version='1.0'?><{outer} xmlns='http://www.sitemaps.org/schemas/sitemap/0.9'>{locs}</{outer}>"
        self.raw(path, body.encode(), Content_Type="application/xml")
        return body.encode()


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(_http, "PAUSE_SECONDS", 0.0)
    made = Web()

    class Server(FakeService):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            made.requests.append((self.path, dict(self.headers)))
            made.times.append(time.monotonic())
            made.connections.append(self.client_address[1])
            answer = made.pages.get(self.path)
            if answer is None:
                return self.reply(404)
            return answer(self)

    with listening(Server) as url:
        made.url = url
        yield made


def site(web: Web, **more: Any) -> WebsiteSource:
    values = {"kind": "website", "name": "s", "url": web.url + "/", "delay_seconds": 0, "allow_private": True}
    return WebsiteSource.model_validate(values | more)


def files(source: WebsiteSource) -> Iterator[Any]:
    return iter(source.discover(datetime(2024, 1, 1, tzinfo=UTC), sandbox=InProcess()))  # type: ignore[arg-type]


def listed(source: WebsiteSource) -> dict[str, str]:
    """Return each path with its text, or its problem."""
    found = {}
    for file in files(source):
        assert file.path not in found, file.path
        try:
            found[file.path] = file.problem or file.read().decode().partition("<p>")[2].partition("</p>")[0]
        except Unreadable as error:
            found[file.path] = f"{error.problem}: {error}"
    return found
