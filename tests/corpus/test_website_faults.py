"""Websites that fail, lie or lead astray: no page may look deleted, and nothing private is reached."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
import time
import zlib
from datetime import UTC, datetime, timedelta
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from corpus.web import Web, files, listed, site
from llmops.corpus import WebsiteSource, _guard, _http, _pages
from llmops.errors import ConfigurationError, MissingInput, ServiceUnavailable
from llmops.settings import validate
from support.http import FakeService


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


def test_a_secret_in_an_address_is_not_shown_when_it_is_refused(tmp_path: Path) -> None:
    values = {"kind": "website", "name": "s", "url": "https://host/?token=hunter2"}
    with pytest.raises(ConfigurationError, match="must not have a query") as caught:
        validate(WebsiteSource, values, tmp_path / "file.yaml")
    assert "hunter2" not in str(caught.value)


def test_a_start_that_cannot_be_read_is_said(web: Web) -> None:
    with pytest.raises(MissingInput, match="it answers 404"):
        listed(site(web))
    web.raw("/", b"", 403)
    with pytest.raises(ConfigurationError, match="it answers 403"):
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
