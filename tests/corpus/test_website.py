"""Websites as sources: a real server on loopback, polite visits, and pages that must not look deleted."""

from __future__ import annotations

import gzip
import logging
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from corpus.conftest import day
from llmops.corpus import WebsiteSource, _guard, _http, _pages, _site
from llmops.corpus._problems import Unreadable
from llmops.corpus._urls import Url
from llmops.errors import ConfigurationError, MissingInput, ServiceUnavailable
from llmops.settings import validate
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
    return iter(source.discover(day(1), sandbox=InProcess()))  # type: ignore[arg-type]


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


def test_links_are_followed_within_the_site_and_each_page_is_given_once(web: Web) -> None:
    web.html("/", "/a", "b/", "/a#part", "https://elsewhere.example/x", "mailto:x@y.z", "/", text="Home")
    web.html("/a", "/b", "/c?x=1", text="A")
    web.html("/b/", "../a", text="B")
    web.html("/b", text="B")
    web.html("/c?x=1", "/gone", text="C")
    assert listed(site(web)) == {"index": "Home", "a": "A", "b": "B", "c?x=1": "C"}
    assert all(web.asked(path) == 1 for path in ("/", "/a", "/c?x=1", "/robots.txt"))
    assert web.asked("/b") + web.asked("/b/") == 1


def test_a_document_knows_its_address_format_date_and_revision(web: Web) -> None:
    date = "Tue, 02 Jan 2024 10:00:00 GMT"
    web.sitemap("/sitemap.xml", "/a", "/b.md", "/c")
    web.html("/a", Last_Modified=date)
    web.raw("/b.md", b"# B", Content_Type="text/plain")
    web.raw(
        "/c", "<p>caf\xe9</p>".encode("latin-1"), Content_Type="application/xhtml+xml; charset=ISO-8859-1"
    )
    a, b, c = files(site(web))
    assert (a.metadata, a.source_date, a.media_type) == ({"url": f"{web.url}/a"}, day(2, 10), "text/html")
    assert (b.media_type, b.source_date) == (None, None)
    assert (c.media_type, c.read().decode()) == ("text/html", "<p>caf\xe9</p>")
    before = a.revision
    assert next(files(site(web))).revision == before
    web.html("/a", text="changed", Last_Modified=date)
    assert next(files(site(web, name="other"))).revision != before


def test_the_time_of_the_request_is_not_when_a_page_changed(web: Web) -> None:
    from email.utils import formatdate

    web.sitemap("/sitemap.xml", "/a")
    web.html("/a", Last_Modified=formatdate(usegmt=True))
    assert next(files(site(web))).source_date is None


def test_robots_txt_is_obeyed_under_our_own_name(web: Web) -> None:
    web.raw(
        "/robots.txt",
        b"User-agent: *\nDisallow: /\n\nUser-agent: llmops\nDisallow: /private\nAllow: /private/ok\n",
    )
    web.html("/", "/private/a", "/private/ok", "/b")
    for path in ("/private/a", "/private/ok", "/b"):
        web.html(path, text=path)
    assert sorted(listed(site(web))) == ["b", "index", "private/ok"]
    assert not web.asked("/private/a")
    agents = {headers["User-Agent"] for _, headers in web.requests}
    assert len(agents) == 1
    assert agents.pop().startswith("llmops/")
    listed(site(web, contact="https://example.org/bot"))
    assert web.requests[-1][1]["User-Agent"].endswith(" (+https://example.org/bot)")


def test_a_robots_txt_that_fails_forbids_everything_and_one_that_is_refused_nothing(web: Web) -> None:
    web.html("/", text="Home")
    web.raw("/robots.txt", b"", 503)
    with pytest.raises(ServiceUnavailable, match=r"robots\.txt"):
        listed(site(web))
    assert not web.asked("/")
    for status in (401, 403, 404):
        web.raw("/robots.txt", b"", status)
        assert listed(site(web)) == {"index": "Home"}
    web.redirect("/robots.txt", "/rules.txt")
    web.raw("/rules.txt", b"User-agent: *\nDisallow: /\n")
    with pytest.raises(ConfigurationError, match=r"robots\.txt asks not to visit it"):
        listed(site(web))
    web.redirect("/robots.txt", "https://elsewhere.example/robots.txt")
    with pytest.raises(ConfigurationError, match="name that host under `hosts`"):
        listed(site(web))


def test_requests_keep_their_distance_and_longer_where_robots_txt_asks(web: Web) -> None:
    web.sitemap("/sitemap.xml", "/a", "/b")
    web.html("/a")
    web.html("/b")
    listed(site(web, delay_seconds=0.1))
    assert min(after - before for before, after in zip(web.times, web.times[1:], strict=False)) >= 0.09
    web.raw("/robots.txt", b"User-agent: *\nCrawl-delay: 0.3\n")
    web.times.clear()
    listed(site(web, delay_seconds=0.01))
    gaps = [after - before for before, after in zip(web.times, web.times[1:], strict=False)]
    assert min(gaps[1:]) >= 0.29


def test_a_crawl_delay_has_a_bound(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_site, "MAX_CRAWL_DELAY", 0.05)
    web.raw("/robots.txt", b"User-agent: *\nCrawl-delay: 86400\n")
    web.html("/", "/a")
    web.html("/a")
    assert len(listed(site(web))) == 2


def test_sitemaps_that_robots_txt_names_are_read_with_all_they_name(web: Web) -> None:
    web.raw("/robots.txt", f"Sitemap: {web.url}/index.xml\nSitemap: /more.txt\n".encode())
    web.sitemap("/index.xml", "/one.xml.gz", "/two.xml", "/index.xml", index=True)
    packed = gzip.compress(web.sitemap("/x", "/a", "/c"))
    web.raw("/one.xml.gz", packed[:], Content_Type="application/gzip")
    web.sitemap("/two.xml", "/b", "https://elsewhere.example/z", "/c/")
    web.raw("/more.txt", f"{web.url}/d\n".encode(), Content_Type="text/plain")
    for path in ("/a", "/b", "/c", "/d", "/e"):
        web.html(path, "/e", text=path)
    assert listed(site(web)) == {"d": "/d", "a": "/a", "c": "/c", "b": "/b"}
    assert not web.asked("/e")


def test_addresses_of_other_hosts_in_a_sitemap_are_left_out_with_one_warning(
    web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    web.sitemap("/sitemap.xml", "/a", "https://elsewhere.example/z", "file:///etc/passwd", "https://[bad")
    web.html("/a")
    with caplog.at_level(logging.WARNING):
        assert list(listed(site(web))) == ["a"]
    assert [r.getMessage() for r in caplog.records] == [
        "Source s: its sitemaps name 3 addresses of other hosts, which are left out"
    ]


def test_a_sitemap_that_cannot_be_read_is_an_error_and_never_fewer_pages(web: Web) -> None:
    web.html("/", text="Home")
    web.html("/a")
    web.sitemap("/sitemap.xml", "/one.xml", "/two.xml", index=True)
    web.sitemap("/one.xml", "/a")
    with pytest.raises(ConfigurationError, match=r"two\.xml' cannot be read.*it answers 404"):
        listed(site(web))
    web.raw("/two.xml", b"", 500)
    with pytest.raises(ServiceUnavailable):
        listed(site(web))
    for body in (b"<!DOCTYPE html><html></html>", b"<urlset><url><loc>", b"", b"\x1f\x8b\x08broken"):
        web.raw("/sitemap.xml", body)
        with pytest.raises(ConfigurationError, match="pages would be missing"):
            listed(site(web))
    assert listed(site(web, sitemap="none")) == {"index": "Home"}
    web.sitemap("/map.xml?v=2", "/a")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        listed(site(web, sitemap=f"{web.url}/none.xml"))


def test_globs_choose_pages_by_their_path_and_the_start_is_visited_for_its_links(web: Web) -> None:
    web.html("/", "/docs/a", "/blog/b", "/docs/old/c")
    for path in ("/docs/a", "/blog/b", "/docs/old/c"):
        web.html(path, text=path)
    assert listed(site(web, include=["/docs/**"], exclude=["docs/old/**"])) == {"docs/a": "/docs/a"}
    assert not web.asked("/blog/b")


def test_more_pages_than_allowed_are_an_error_that_names_both_figures(web: Web) -> None:
    for number in range(4):
        web.html(f"/{number}", f"/{number + 1}")
    web.sitemap("/map.xml", "/0", "/1", "/2", "/3")
    with pytest.raises(ConfigurationError, match="at least 4 pages, more than `max_pages`, 3"):
        listed(site(web, sitemap=f"{web.url}/map.xml", max_pages=3))
    assert not web.asked("/0")
    start = {"url": f"{web.url}/0", "sitemap": "none"}
    with pytest.raises(ConfigurationError, match="at least 4 pages, more than `max_pages`, 3"):
        listed(site(web, **start, max_pages=3))
    assert len(listed(site(web, **start, max_pages=4))) == 4


class Endless(dict[str, Answer]):
    """Pages at every address but those of robots.txt and sitemaps, each with links to 60 others."""

    def get(self, path: str, default: Any = None) -> Any:
        return None if path.endswith((".txt", ".xml")) else self._answer

    def _answer(self, request: FakeService) -> None:
        links = "".join(f"<a href='{request.path.rstrip('/')}/{number}'>x</a>" for number in range(60))
        request.send_response(200)
        request.send_header("Content-Type", "text/html")
        request.send_header("Content-Length", str(len(links)))
        request.end_headers()
        request.wfile.write(links.encode())


def test_a_trap_of_endless_addresses_ends(web: Web) -> None:
    web.pages = Endless()
    with pytest.raises(ConfigurationError, match="more than `max_pages`, 50"):
        listed(site(web, max_pages=50))
    assert len(web.requests) < 60


def test_links_that_lead_nowhere_are_not_followed_without_end(web: Web) -> None:
    web.html("/", *(f"/{number}" for number in range(60)))
    assert list(listed(site(web, max_pages=1))) == ["index"]
    web.html("/", *(f"/{number}" for number in range(200)))
    web.requests.clear()
    with pytest.raises(ConfigurationError, match="at least 201 pages, more than `max_pages`, 1"):
        listed(site(web, max_pages=1))
    assert len(web.requests) < 5


def test_an_unchanged_page_is_asked_for_and_not_sent_again(web: Web, tmp_path: Path) -> None:
    web.sitemap("/sitemap.xml", "/a", "/b", "/c")
    sent: list[str] = []

    def conditional(tag: str, date: str) -> Answer:
        def answer(request: FakeService) -> None:
            same = (
                request.headers["If-None-Match"] == tag
                if tag
                else request.headers["If-Modified-Since"] == date
            )
            if not same:
                sent.append(request.path)
            body = b"" if same else f"<p>{request.path}</p>".encode()
            request.send_response(304 if same else 200)
            if not same:
                request.send_header("Content-Type", "text/html")
                request.send_header("Content-Length", str(len(body)))
                request.send_header(*(("ETag", tag) if tag else ("Last-Modified", date)))
            request.end_headers()
            request.wfile.write(body)

        return answer

    web.pages["/a"] = conditional('W/"1"', "")
    web.pages["/b"] = conditional("", "Tue, 02 Jan 2024 10:00:00 GMT")
    web.html("/c", text="/c")
    first = [(f.path, f.read(), f.revision, f.source_date) for f in files(site(web))]
    assert sent == ["/a", "/b"]
    assert [(f.path, f.read(), f.revision, f.source_date) for f in files(site(web))] == first
    assert sent == ["/a", "/b"]
    assert web.asked("/c") == 2
    assert len(set(web.connections[-3:])) == 1, "a 304 must not cost a connection"
    for file in (tmp_path / "home" / "websites").rglob("*"):
        if file.is_file() and b'"1' in file.read_bytes():
            file.write_bytes(file.read_bytes()[:-1])  # Damaged.
        elif file.is_file():
            file.unlink()  # Gone.
    assert [f.path for f in files(site(web))] == ["a", "b", "c"]
    assert sent == ["/a", "/b", "/a", "/b"]


def test_pages_that_left_the_site_leave_the_cache(web: Web, tmp_path: Path) -> None:
    web.sitemap("/sitemap.xml", "/a", "/b")
    for path in ("/a", "/b"):
        web.html(path, ETag=f'"{path}"')
    listed(site(web))
    cached = [f for f in (tmp_path / "home" / "websites").rglob("*") if f.is_file()]
    web.sitemap("/sitemap.xml", "/a")
    listed(site(web))
    assert len(cached) == 2
    assert sum(file.exists() for file in cached) == 1


def test_a_page_that_is_gone_is_no_document_and_one_that_is_refused_is_a_problem(web: Web) -> None:
    web.sitemap("/sitemap.xml", "/ok", "/404", "/410", "/401", "/403", "/451")
    web.html("/ok", text="fine")
    for status in (404, 410, 401, 403, 451):
        web.raw(f"/{status}", b"no", status)
    found = listed(site(web))
    assert found.pop("ok") == "fine"
    assert {path: text[:14] for path, text in found.items()} == {
        p: f"it answers {p}" for p in ("401", "403", "451")
    }


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_an_error_in_the_middle_fails_the_snapshot_once_it_stays(web: Web, status: int) -> None:
    web.sitemap("/sitemap.xml", "/a", "/b", "/c")
    for path in ("/a", "/c"):
        web.html(path)
    failures = [_http.ATTEMPTS - 1]

    def flaky(request: FakeService) -> None:
        failures[0] -= 1
        request.reply(status if failures[0] >= 0 else 200, b"<p>B</p>")

    web.pages["/b"] = flaky
    assert list(listed(site(web))) == ["a", "b", "c"]
    failures[0] = 1000
    given = []
    with pytest.raises(
        ServiceUnavailable, match=rf"/b' cannot be read after 3 attempts: it answers {status}"
    ):
        given.extend(f.path for f in files(site(web)))
    assert not web.asked("/c") - 1


def test_a_server_that_asks_to_wait_is_waited_for_within_bounds(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.sitemap("/sitemap.xml", "/a")
    asked = ["0.2", "1"]

    def busy(request: FakeService) -> None:
        if not asked:
            return request.reply(200, b"<p>A</p>")
        request.send_response(503)
        request.send_header("Retry-After", asked.pop())
        request.send_header("Content-Length", "0")
        return request.end_headers()

    web.pages["/a"] = busy
    assert list(listed(site(web))) == ["a"]
    assert max(after - before for before, after in zip(web.times, web.times[1:], strict=False)) >= 0.95
    for value in ("3600", "Fri, 31 Dec 2100 23:59:59 GMT"):
        web.raw("/a", b"", 429, Retry_After=value)
        requests = web.asked("/a")
        with pytest.raises(ServiceUnavailable, match="asks to come back in"):
            listed(site(web))
        assert web.asked("/a") == requests + 1


def test_connections_that_break_fail_the_snapshot(web: Web) -> None:
    web.sitemap("/sitemap.xml", "/a")

    def cut(request: FakeService) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        request.wfile.write(b"half")
        request.close_connection = True

    def cut_gzip(request: FakeService) -> None:
        body = gzip.compress(b"<p>A</p>" * 100)[:-20]
        request.send_response(200)
        request.send_header("Content-Encoding", "gzip")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def hung_up(request: FakeService) -> None:
        request.close_connection = True

    def garbage(request: FakeService) -> None:
        request.wfile.write(b"\x00\x01garbage\r\n\r\n")
        request.close_connection = True

    for answer in (cut, cut_gzip, hung_up, garbage):
        web.pages["/a"] = answer
        with pytest.raises(ServiceUnavailable, match="cannot be read after"):
            listed(site(web))
    with pytest.raises(ServiceUnavailable):
        listed(site(web, url="http://127.0.0.1:1/"))


@pytest.mark.parametrize("place", ["head", "body"])
def test_a_page_that_drips_is_over_by_the_deadline(
    web: Web, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    web.sitemap("/sitemap.xml", "/a")
    monkeypatch.setattr(_http, "ATTEMPTS", 1)
    stop = threading.Event()

    def drip(request: FakeService) -> None:
        if place == "body":
            request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        else:
            request.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        try:
            while not stop.wait(0.1):
                request.wfile.write(b"x")
                request.wfile.flush()
        except OSError:
            pass
        request.close_connection = True

    web.pages["/a"] = drip
    source = files(site(web))
    monkeypatch.setattr(_http, "TOTAL_SECONDS", 1.0)
    started = time.monotonic()
    with pytest.raises(ServiceUnavailable, match=r"timed out|not over in time"):
        next(source)
    stop.set()
    assert time.monotonic() - started < 5


def test_pages_without_end_and_bombs_are_quarantined_at_the_limit(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_http, "MAX_BYTES", 200_000)
    web.sitemap("/sitemap.xml", "/endless", "/bomb", "/lie", "/ok")
    sent = [0]

    def endless(request: FakeService) -> None:
        request.send_response(200)
        request.send_header("Connection", "close")
        request.end_headers()
        try:
            while sent[0] < 50_000_000:
                sent[0] += request.wfile.write(b"x" * 10_000)
        except OSError:
            pass
        request.close_connection = True

    web.pages["/endless"] = endless
    web.raw(
        "/bomb",
        zlib.compress(b"0" * 100_000_000, wbits=31),
        Content_Encoding="gzip",
        Content_Type="text/html",
    )
    web.raw("/lie", b"not gzip at all", Content_Encoding="gzip")
    members = gzip.compress(b"<p>one ") + gzip.compress(b"two</p>") + b"\0" * 8
    web.raw("/ok", members, Content_Encoding="gzip", Content_Type="text/html")
    found = listed(site(web))
    assert found.pop("ok") == "one two"
    assert "200,000 bytes" in found["endless"]
    assert sent[0] < 20_000_000
    assert "200,000 bytes" in found["bomb"]
    assert "says that it is packed with gzip, and is not" in found["lie"]


def test_formats_that_nothing_reads_are_not_even_downloaded(web: Web) -> None:
    web.sitemap("/sitemap.xml", "/a.png", "/b.pdf", "/c", "/d.md")
    web.raw("/a.png", b"PNG", Content_Type="image/png")
    web.raw("/b.pdf", b"<p>%PDF</p>", Content_Type="application/pdf")
    web.raw("/c", b"<p>C</p>")
    web.raw("/d.md", b"<p>D</p>", Content_Type="application/octet-stream")
    found = {file.path: file for file in files(site(web))}
    with pytest.raises(Unreadable, match=r"content type \(image/png\)") as caught:
        found["a.png"].read()
    assert caught.value.problem == "unsupported"
    types = {path: file.media_type for path, file in found.items() if path != "a.png"}
    assert types == {"b.pdf": "application/pdf", "c": None, "d.md": None}


def test_redirects_within_the_site_lead_to_one_document(web: Web) -> None:
    web.sitemap("/sitemap.xml", "/old", "/new", "/older", "/secret-door", "/loop", "/nowhere")
    web.raw("/robots.txt", b"User-agent: *\nDisallow: /secret\nAllow: /secret-door\n")
    web.redirect("/older", "/old", 301)
    web.redirect("/old", f"{web.url}/new#top", 308)
    web.html("/new", text="new")
    web.redirect("/secret-door", "/secret")
    web.html("/secret", text="secret")
    web.redirect("/loop", "/loop")
    web.raw("/nowhere", b"", 302)
    found = listed(site(web))
    assert found.pop("new") == "new"
    assert found.pop("loop") == "it redirects more than 5 times"
    assert "it answers 302" in found.pop("nowhere")
    assert found == {}
    assert not web.asked("/secret")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("https://elsewhere.example/x", "not among the source's `url` and `hosts`"),
        ("http://169.254.169.254/latest/meta-data/", "not among the source's"),
        ("http://127.0.0.1:1/", "not among the source's"),
        ("file:///etc/passwd", "its scheme is 'file'"),
        ("ftp://host/x", "its scheme is 'ftp'"),
        ("http://user:hunter2@127.0.0.1/", "a user or a password"),
        ("http://[bad", "it is no URL"),
    ],
)
def test_a_redirect_out_of_the_site_is_refused_and_visible(web: Web, target: str, reason: str) -> None:
    web.sitemap("/sitemap.xml", "/a")
    web.redirect("/a", target)
    found = listed(site(web))
    assert reason in found["a"]
    assert "hunter2" not in found["a"]


def test_further_hosts_are_visited_under_their_own_rules_and_names(web: Web) -> None:
    other = web.url.replace("127.0.0.1", "localhost")
    web.html("/", f"{other}/a", f"{other}/b", text="Home")
    web.html("/a", text="A")
    web.html("/b", text="B")
    web.raw("/robots.txt", b"User-agent: *\nDisallow: /b\n")
    host = other.removeprefix("http://")
    assert listed(site(web, hosts=[host])) == {"index": "Home", f"{host}/a": "A"}
    assert web.asked("/robots.txt") == 2
    assert listed(site(web)) == {"index": "Home"}


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Let the look-up of any name give one answer after the other, and return the names that were asked for."""
    names: list[str] = []
    left = list(answers)

    def resolve(host: str, port: int) -> list[str]:
        names.append(host)
        return left.pop(0) if len(left) > 1 else left[0]

    monkeypatch.setattr(_guard, "resolve", resolve)
    return names


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "::1", "fd00::1", "::ffff:10.0.0.1", "100.64.0.1",
     "0.0.0.0", "224.0.0.1", "240.0.0.1", "fe80::1", "64:ff9b::a00:1", "2002:a00:1::"],
)  # fmt: skip
def test_a_name_that_leads_into_a_private_network_is_refused(
    web: Web, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    resolving(monkeypatch, ["93.184.215.14", address])
    with pytest.raises(ConfigurationError, match=f"{address}, which is .*allow_private"):
        listed(site(web, allow_private=False, url="http://public.example/"))


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "fd00:ec2::254", "::ffff:169.254.169.254", "100.100.100.200"]
)
def test_metadata_addresses_are_refused_even_in_a_private_network(
    web: Web, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    resolving(monkeypatch, [address])
    with pytest.raises(ConfigurationError, match="which is link-local"):
        listed(site(web, url="http://intranet.example/"))
    for reachable in ("10.0.0.1", "127.0.0.1", "::1", "fd00::1", "100.64.0.1"):
        assert _guard.forbidden(reachable, allow_private=True) is None
    for public in ("93.184.215.14", "2606:4700::1111", "64:ff9b::808:808"):
        assert _guard.forbidden(public, allow_private=False) is None


def test_a_name_that_is_bound_anew_between_check_and_connection_changes_nothing(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address that was checked is the one that is connected to; the next look-up is checked again."""
    port = web.url.rpartition(":")[2]
    web.html("/", text="Home")
    web.pages["/robots.txt"] = lambda request: (
        setattr(request, "close_connection", True) or request.reply(404)
    )  # type: ignore[func-returns-value]
    names = resolving(monkeypatch, ["127.0.0.1"], ["169.254.169.254"])
    connected: list[Any] = []
    create = socket.create_connection

    def watched(address: Any, *rest: Any, **more: Any) -> socket.socket:
        connected.append(address)
        return create(address, *rest, **more)

    monkeypatch.setattr(socket, "create_connection", watched)
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **more: [_literal(host, rest[0])])
    source = site(web, url=f"http://rebound.example:{port}/", sitemap="none")
    with pytest.raises(ConfigurationError, match=r"169\.254\.169\.254, which is link-local"):
        listed(source)
    assert connected == [("127.0.0.1", int(port))]
    assert names == ["rebound.example", "rebound.example"]
    assert web.requests[0][1]["Host"] == f"rebound.example:{port}"


def _literal(host: str, port: int) -> tuple[Any, ...]:
    """Resolve addresses only: a name that reaches this was looked up a second time."""
    assert host == "127.0.0.1", host
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))


def test_a_certificate_is_checked_for_the_name_and_not_for_the_address(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = resolving(monkeypatch, ["127.0.0.1"])
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate(tmp_path, "secure.example")))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")

    class Secure(FakeService):
        def do_GET(self) -> None:
            self.reply(404 if self.path != "/" else 200, b"<p>safe</p>")

    with ThreadingHTTPServer(("127.0.0.1", 0), Secure) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        port = server.server_address[1]
        assert listed(site(web, url=f"https://secure.example:{port}/")) == {"index": "safe"}
        with pytest.raises(ServiceUnavailable, match="certificate"):
            listed(site(web, url=f"https://other.example:{port}/"))
        server.shutdown()
    assert set(names) == {"secure.example", "other.example"}


def certificate(folder: Path, name: str) -> Path:
    """Write a certificate for a name, and its key, and return the former."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain))
    file = folder / "certificate.pem"
    file.write_bytes(built.public_bytes(encoding))
    return file


def test_a_cache_that_cannot_be_written_or_read_costs_requests_and_nothing_else(
    web: Web, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    web.sitemap("/sitemap.xml", "/a")
    web.html("/a", ETag='"1"', text="A")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "websites").write_text("in the way")
    assert listed(site(web)) == {"a": "A"}
    assert "is not cached" in caplog.text


def test_a_secret_in_an_address_is_not_shown_when_it_is_refused(tmp_path: Path) -> None:
    values = {"kind": "website", "name": "s", "url": "https://host/?token=hunter2"}
    with pytest.raises(ConfigurationError, match="must not have a query") as caught:
        validate(WebsiteSource, values, tmp_path / "file.yaml")
    assert "hunter2" not in str(caught.value)


def test_a_start_that_cannot_be_read_is_said(web: Web) -> None:
    with pytest.raises(MissingInput, match="it answers 404"):
        listed(site(web))
    web.redirect("/", "https://elsewhere.example/")
    with pytest.raises(ConfigurationError, match="links cannot be followed"):
        listed(site(web))
    web.html("/", text="Home")
    with pytest.raises(MissingInput, match="not one page"):
        listed(site(web, include=["docs/**"]))


def test_links_that_cannot_be_known_are_an_error(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    web.html("/", "/a", "/b", "/c")
    monkeypatch.setattr(_pages, "_MAX_LINKS", 2)
    with pytest.raises(ConfigurationError, match="so pages would be missing: it has more than the 2 links"):
        listed(site(web))


def test_a_website_is_never_read_without_a_sandbox(web: Web) -> None:
    with pytest.raises(ValueError, match="through a sandbox"):
        site(web).discover(day(1))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"url": "file:///etc/passwd"}, "its scheme is 'file'"),
        ({"url": "ftp://host/"}, "its scheme is 'ftp'"),
        ({"url": "https://user:hunter2@host/"}, "must not hold a user"),
        ({"url": "https://host/?token=hunter2"}, "must not have a query"),
        ({"sitemap": "file:///etc/passwd"}, "its scheme is 'file'"),
        ({"sitemap": "https://user:hunter2@host/s.xml"}, "must not hold a user"),
        ({"hosts": ["user:hunter2@host"]}, "must not hold a user"),
        ({"contact": "a b\r\nX: y"}, "contact"),
        ({"max_pages": 0}, "max_pages"),
    ],
)
def test_addresses_that_hold_secrets_or_are_no_website_are_refused(
    values: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason) as caught:
        WebsiteSource.model_validate({"kind": "website", "name": "s", "url": "https://host/"} | values)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("HTTP://EXAMPLE.com:80/a/%7Eb/../c%2fd", "http://example.com/a/c%2Fd"),
        ("https://example.com", "https://example.com/#x"),
        ("https://example.com/%61/%2e%2e/b", "https://example.com/b"),
        ("https://m\xfcnchen.example/\xfc?\xe4", "https://xn--mnchen-3ya.example/%c3%bc?%C3%A4"),
        ("https://example.com./a?", "https://example.com/a"),
    ],
)
def test_spellings_of_one_address_are_equal(one: str, other: str) -> None:
    assert Url.parse(one) == Url.parse(other)
    assert Url.parse(str(Url.parse(one))) == Url.parse(one)


def test_links_are_found_whatever_a_page_is_made_of() -> None:
    base = "https://e.example/d/"
    page = "<base href='/z/'><A HREF=' a\n'>x</a><area href='/\xfc?x=1#f'><a href='javascript:1'><a href='//h/x'><a>"
    wanted = ["https://e.example/z/a", "https://e.example/\xfc?x=1", "https://h/x"]
    assert _pages.links(page.encode(), base) == wanted
    assert _pages.links(b"", base) == _pages.links(b"\0\xff<<<", base) == []
    assert _pages.links(b"<div>" * 300_000 + b"<a href=x>", base) == ["https://e.example/d/x"]
    with pytest.raises(Unreadable, match="more than the"):
        _pages.links(b" " * 10_000_001, base)


@pytest.mark.parametrize(
    "content",
    [
        b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'b'>]><urlset><url><loc>&a;</loc></url></urlset>",
        b"<?xml version='1.0'?><!DOCTYPE x SYSTEM 'file:///etc/passwd'><urlset/>",
        b"<html><body/></html>",
        b"<urlset><url><loc>http://a/",
        b"<?xml version='1.0' encoding='no-such'?><urlset/>",
        b"<urlset>" + b"<x>" * 100,
        b"<urlset>" + b"<url><loc>http://a/</loc></url>" * 50_001 + b"</urlset>",
        gzip.compress(b" " * 60_000_000),
        gzip.compress(b"<urlset/>")[:-9],
        b"just text",
        b"\xff\xfe\x00",
        b"",
    ],
)
def test_what_is_no_sitemap_or_too_much_of_one_is_unreadable(content: bytes) -> None:
    with pytest.raises(Unreadable):
        _pages.sitemap(content)
