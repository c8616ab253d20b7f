"""Websites as sources: a real server on loopback, visited politely, each page once."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path
from typing import Any

import pytest

from corpus.conftest import day
from corpus.web import Answer, Web, files, listed, site
from llmops.corpus import _site
from llmops.corpus._problems import Unreadable
from llmops.errors import ConfigurationError, ServiceUnavailable
from support.http import FakeService


def test_links_are_followed_within_the_site_and_each_page_is_given_once(web: Web) -> None:
    web.html("/", "/a", "b/", "/a#part", "https://elsewhere.example/x", "mailto:x@y.z", "/", text="Home")
    web.html("/a", "/b", "/c?x=1", text="A")
    web.html("/b/", "../a", text="B")
    web.html("/b", text="B")
    web.html("/c?x=1", "/gone", text="C")
    assert listed(site(web)) == {"index": "Home", "a": "A", "b": "B", "c?x=1": "C"}
    assert all(web.asked(path) == 1 for path in ("/", "/a", "/c?x=1", "/robots.txt"))
    assert web.asked("/b") + web.asked("/b/") == 1


def test_links_of_a_page_without_a_format_are_followed_too(web: Web) -> None:
    web.raw("/", b" <a href='/a.html'>x</a>")
    web.raw("/a.html", b"<p>A</p><a href='/b'>x</a>", Content_Type="application/octet-stream")
    web.html("/b", text="B")
    assert list(listed(site(web))) == ["index", "a.html", "b"]


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


def test_a_website_is_never_read_without_a_sandbox(web: Web) -> None:
    with pytest.raises(ValueError, match="through a sandbox"):
        site(web).discover(day(1))


def test_a_cache_that_cannot_be_written_or_read_costs_requests_and_nothing_else(
    web: Web, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    web.sitemap("/sitemap.xml", "/a")
    web.html("/a", ETag='"1"', text="A")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "websites").write_text("in the way")
    assert listed(site(web)) == {"a": "A"}
    assert "is not cached" in caplog.text
