"""What untrusted pages point at: the entries of a sitemap and the links of an HTML page."""

from __future__ import annotations

import zlib
from io import BytesIO
from urllib.parse import urldefrag, urljoin

from llmops.corpus._problems import Unreadable

__all__ = ["links", "sitemap"]

_MAX_UNPACKED = 52_428_800  # https://www.sitemaps.org/protocol.html#index: 50 MB and 50,000 URLs
_MAX_ENTRIES = 50_000
_MAX_HTML = 10_000_000
_MAX_LINKS = 20_000
_MAX_URL = 2048


def sitemap(content: bytes) -> dict[str, list[str]]:
    """Return the addresses in a sitemap: those of ``pages``, and those of further ``sitemaps``.

    It is XML, or a text with one address per line; either may be packed with gzip. Raises Unreadable when it is
    neither, above the limits of the protocol, or XML that declares anything.
    """
    content = _unpacked(content)
    if len(content) > _MAX_UNPACKED:
        raise Unreadable(f"it has more than the {_MAX_UNPACKED:,} bytes a sitemap may have", "too_large")
    if not content.strip():
        raise Unreadable("there is nothing in it", "empty")
    if content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return _sitemap_of_xml(content)
    try:
        lines = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise Unreadable("it is neither XML nor a text with one address per line") from error
    found = [line for line in lines if line]
    if not all(line.startswith(("http://", "https://")) for line in found):
        raise Unreadable("it is neither XML nor a text with one address per line")
    return {"pages": _bounded(found), "sitemaps": []}


def _unpacked(content: bytes) -> bytes:
    if not content.startswith(b"\x1f\x8b"):
        return content
    unpacked = b""
    while content.strip(b"\0"):  # A file of gzip has one or more members, perhaps padded.
        unpacker = zlib.decompressobj(wbits=31)
        try:
            unpacked += unpacker.decompress(content, _MAX_UNPACKED + 1 - len(unpacked))
        except zlib.error as error:
            raise Unreadable(f"it is not valid gzip: {error}") from error
        if len(unpacked) > _MAX_UNPACKED:
            break
        if not unpacker.eof:
            raise Unreadable("its gzip ends early")
        content = unpacker.unused_data
    return unpacked


def _sitemap_of_xml(content: bytes) -> dict[str, list[str]]:
    """Read element by element: no declaration is followed, and no tree is kept."""
    from xml.etree.ElementTree import ParseError

    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import iterparse

    found: dict[str, list[str]] = {"urlset": [], "sitemapindex": []}
    path: list[str] = []
    try:
        for event, element in iterparse(BytesIO(content), events=("start", "end"), forbid_dtd=True):
            name = str(element.tag).rpartition("}")[2]
            if event == "start":
                path.append(name)
                if path[0] not in found or len(path) > 20:
                    raise Unreadable(f"it is XML, but no sitemap: it begins with <{path[0][:40]}>")
                continue
            path.pop()
            if name == "loc" and path in (["urlset", "url"], ["sitemapindex", "sitemap"]):
                found[path[0]].append((element.text or "").strip())
                _bounded(found[path[0]])
            element.clear()
    except DefusedXmlException as error:
        raise Unreadable("it declares a document type or entities, which no sitemap needs") from error
    except ParseError as error:
        raise Unreadable(f"it is not valid XML: {error}") from error
    except (ValueError, LookupError) as error:  # An encoding that is unknown, or that expat does not read.
        raise Unreadable(f"it is not valid XML: {error}") from error
    return {"pages": found["urlset"], "sitemaps": found["sitemapindex"]}


def _bounded(found: list[str]) -> list[str]:
    if len(found) > _MAX_ENTRIES:
        raise Unreadable(f"it has more than the {_MAX_ENTRIES:,} addresses a sitemap may have", "too_large")
    return found


def links(content: bytes, base: str) -> list[str]:
    """Return where the links of an HTML page lead, each once, in order, absolute and without fragments.

    ``base`` is the page's own address. Only http and https addresses are returned. Raises Unreadable when the page
    is too large, or has too many links, to know all of them.
    """
    from lxml.etree import HTMLParser, LxmlError

    if len(content) > _MAX_HTML:
        raise Unreadable(
            f"it has more than the {_MAX_HTML:,} bytes within which links are looked for", "too_large"
        )
    try:
        content.decode("utf-8")
        encoding: str | None = "utf-8"
    except UnicodeDecodeError:
        encoding = None  # What the page declares, or Latin-1.
    seen = _Links(base)
    parser = HTMLParser(target=seen, encoding=encoding, no_network=True, recover=True)
    try:
        if content.strip():
            parser.feed(content)
            parser.close()
    except LxmlError as error:
        raise Unreadable(f"its links cannot be read: {type(error).__name__}") from error
    return list(seen.found)


class _Links:
    """Takes the elements of a page as they come; no tree is built."""

    def __init__(self, base: str) -> None:
        self.found: dict[str, None] = {}
        self._base, self._own = base, base

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        href = (attributes.get("href") or "").strip()
        if tag == "base" and href and self._base == self._own:
            self._base = _joined(self._own, href) or self._base
        elif tag in ("a", "area") and href and (url := _joined(self._base, href)):
            self.found[url] = None
            if len(self.found) > _MAX_LINKS:
                raise Unreadable(f"it has more than the {_MAX_LINKS:,} links a page may have", "too_large")

    def end(self, tag: str) -> None: ...

    def data(self, text: str) -> None: ...

    def comment(self, text: str) -> None: ...

    def close(self) -> None: ...


def _joined(base: str, href: str) -> str | None:
    """Return an absolute http or https address, None for any other."""
    try:
        url = urldefrag(urljoin(base, "".join(href.split("\n")))).url
    except ValueError:
        return None
    return url if len(url) <= _MAX_URL and url.lower().startswith(("http://", "https://")) else None
