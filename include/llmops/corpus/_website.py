"""Documents from a website: the pages of its sitemap, or those that its links lead to."""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from llmops.corpus._files import Globs, Snapshot, SourceFile, SourceSettings, matches
from llmops.corpus._http import HttpClient
from llmops.corpus._http_cache import HttpCache
from llmops.corpus._places import without_secrets
from llmops.corpus._problems import Unreadable
from llmops.corpus._site import ROBOT, Found, Site
from llmops.corpus._urls import Url
from llmops.errors import ConfigurationError, MissingInput
from llmops.settings import home

if TYPE_CHECKING:
    from llmops.corpus._sandbox import Sandbox

__all__ = ["WebsiteSource"]

log = logging.getLogger(__name__)

_HTML = ("text/html", "application/xhtml+xml")
_READ = (
    *_HTML,
    "text/markdown",
    "text/plain",
    "text/x-rst",
    "text/csv",
    "application/pdf",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
)
_UNTOLD = ("application/octet-stream", "binary/octet-stream")
_TEXT_SUFFIXES = (".md", ".markdown", ".rst")
_MAX_SITEMAPS = 1_000


def _is_a_website(value: str) -> str:
    without_secrets(value)
    try:
        Url.parse(value)
    except ValueError as error:
        raise ValueError(f"must be an http or https URL: {error}") from None
    return value


def _is_a_host(value: str) -> str:
    return _is_a_website(value if "://" in value else f"https://{value}") and value


def _is_a_sitemap(value: str) -> str:
    return value if value in ("auto", "none") else _is_a_website(value)


class WebsiteSource(SourceSettings):
    """The pages of one website, as they are now whatever the run's date.

    ``sitemap: auto`` takes the pages of the sitemaps that robots.txt names, else of ``/sitemap.xml``, else those that
    links lead to from ``url``; ``none`` follows links in any case; an address is a sitemap of that name. Only the
    scheme, host and port of ``url`` are visited, and those of ``hosts``. ``include`` and ``exclude`` are globs on the
    URL's path without its first ``/``; links are followed from ``url`` and from pages that are included. A site with
    more than ``max_pages`` pages is an error, as half a site would look like deleted documents.

    robots.txt is obeyed (as ``llmops``), its ``Crawl-delay`` too where it is longer than ``delay_seconds``.
    ``contact`` is an address that the user agent shows. Private networks are refused unless ``allow_private``, which
    an intranet needs; link-local addresses are always refused. Proxies of the environment are not used.
    """

    kind: Literal["website"]
    url: Annotated[str, AfterValidator(_is_a_website)]
    sitemap: Annotated[str, AfterValidator(_is_a_sitemap)] = "auto"
    hosts: tuple[Annotated[str, AfterValidator(_is_a_host)], ...] = ()
    include: Globs = Field(default=["**/*"])
    exclude: Globs = Field(default=[])
    max_pages: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    delay_seconds: Annotated[float, Field(ge=0, le=60)] = 0.5
    contact: Annotated[str, Field(pattern=r"^[\x21-\x7e]{3,200}$")] | None = None
    allow_private: bool = False

    def discover(
        self, as_of: datetime, *, pin: str | None = None, sandbox: Sandbox | None = None
    ) -> Snapshot:
        """Return the pages, each fetched when it is its turn.

        ``sandbox`` reads sitemaps and links; there must be one. While iterating, raises ServiceUnavailable when a page
        cannot be read for now, so that it does not look deleted, MissingInput when there are no pages, and
        ConfigurationError when there are too many, or when the site, its robots.txt or its sitemap forbids itself.
        """
        if sandbox is None:
            raise ValueError(f"source {self.name!r}: a website is read through a sandbox, and none was given")
        return Snapshot(as_of, self._files(sandbox))

    def _files(self, sandbox: Sandbox) -> Iterator[SourceFile]:
        with self._site() as site:
            visit = _Visit(self, site, sandbox)
            empty = True
            for found in visit.pages():
                empty = False
                yield _file(self.path_of(found.url), found)
            if empty:
                raise MissingInput(
                    f"source {self.name!r}: not one page of {self.url!r} may be visited and matches `include`: correct "
                    "`url`, `sitemap` or the globs. Its documents here stay as they are"
                )
            if visit.absent:
                log.info(
                    "Source %s: %d addresses have no page, or may not be visited", self.name, visit.absent
                )

    @contextmanager
    def _site(self) -> Iterator[Site]:
        contact = f" (+{self.contact})" if self.contact else ""
        agent = f"{ROBOT}/{metadata.version('llmops')}{contact}"
        digest = hashlib.sha256(f"{self.url}\0{self.name}\0{agent}".encode()).hexdigest()[:24]
        cache = HttpCache(home() / "websites" / digest)
        delay, private = self.delay_seconds, self.allow_private
        with HttpClient(self.name, agent, delay=delay, allow_private=private) as client:
            yield Site(self.name, self._origins(), client, cache)
        cache.forget_unused()

    def _origins(self) -> frozenset[str]:
        scheme = Url.parse(self.url).scheme
        others = (host if "://" in host else f"{scheme}://{host}" for host in self.hosts)
        return frozenset(Url.parse(address).origin for address in (self.url, *others))

    def path_of(self, url: Url) -> str:
        """Return the path of a page's document; pages of further hosts begin with their host."""
        if url.origin == Url.parse(self.url).origin:
            return url.page
        return f"{url.origin.split('://')[1]}/{url.page}"

    def wants(self, url: Url) -> bool:
        """Return whether a page belongs to the source, robots.txt aside."""
        path = self.path_of(url).partition("?")[0]
        strip = [[glob.removeprefix("/") for glob in globs] for globs in (self.include, self.exclude)]
        return url.origin in self._origins() and matches(path, *strip)

    def too_many(self, found: int) -> ConfigurationError:
        """Return the error that the site has more pages than it may have."""
        return ConfigurationError(
            f"source {self.name!r}: {self.url!r} has at least {found:,} pages, more than `max_pages`, "
            f"{self.max_pages:,}: raise it, or narrow `include` and `exclude`. Its documents here stay as they are"
        )


@dataclass
class _Visit:
    """One way through a website, from the sitemap or from link to link."""

    source: WebsiteSource
    site: Site
    sandbox: Sandbox
    absent: int = 0
    _given: set[str] = field(default_factory=set)

    def pages(self) -> Iterator[Found]:
        """Yield each page of the source once, and each problem with one."""
        listed = self._listed()
        if listed is not None:
            yield from self._each(listed)
        else:
            yield from self._linked()

    def _each(self, urls: list[Url]) -> Iterator[Found]:
        for url in urls:
            if self.source.path_of(url) in self._given:
                continue  # The same page with another slash at its end, or what a redirect led to.
            if found := self._new(self.site.fetch(url, _unwanted)):
                yield found

    def _linked(self) -> Iterator[Found]:
        """Follow links, nearest first, from the source's own address."""
        start = Url.parse(self.source.url)
        waiting, known = deque([start]), {start}
        while waiting:
            url = waiting.popleft()
            if self.source.path_of(url) in self._given:
                continue
            found = self.site.fetch(url, _unwanted)
            if url == start and (found.absent or found.problem):
                raise self._no_start(found)
            new = self._new(found)
            if new or (url == start and found.content):
                following = [link for link in self._links(found) if link not in known]
                known.update(following)
                waiting.extend(following)
                if len(known) > 10 * self.source.max_pages + 100:  # Most are no pages; still no end of them.
                    raise self.source.too_many(len({self.source.path_of(link) for link in known}))
            if new:
                yield new

    def _new(self, found: Found) -> Found | None:
        """Return a page that belongs to the source and was not given before, None for any other."""
        if found.absent:
            self.absent += 1
            log.debug("Source %s: %s is left out: %s", self.source.name, found.url, found.absent)
            return None
        path = self.source.path_of(found.url)
        if path in self._given or not self.source.wants(found.url):
            return None
        self._given.add(path)
        if len(self._given) > self.source.max_pages:
            raise self.source.too_many(len(self._given))
        return found

    def _links(self, found: Found) -> list[Url]:
        """Return the pages of the source that a page links to."""
        kind = _media_type(found.content_type)
        if kind not in _HTML and not (kind is None and found.content.lstrip().startswith(b"<")):
            return []
        try:
            texts: list[str] = self.sandbox.call("links", found.content, str(found.url))
        except Unreadable as error:
            raise ConfigurationError(
                f"source {self.source.name!r}: the links of {str(found.url)!r} cannot be followed, so pages would be "
                f"missing: {error}. Exclude the page, or name a `sitemap`"
            ) from error
        return list(dict.fromkeys(url for text in texts if (url := _url(text)) and self.source.wants(url)))

    def _no_start(self, found: Found) -> ConfigurationError | MissingInput:
        kind = MissingInput if found.gone else ConfigurationError
        return kind(
            f"source {self.source.name!r}: links cannot be followed from {self.source.url!r}: "
            f"{found.absent or found.problem}. Correct `url`, or name a `sitemap`"
        )

    def _listed(self) -> list[Url] | None:
        """Return the pages of the sitemaps, None where there are none and links are to be followed."""
        origin = Url.parse(self.source.url).origin
        if self.source.sitemap == "none":
            return None
        if self.source.sitemap != "auto":
            return self._in([self.source.sitemap])
        if named := self.site.sitemaps(origin):
            return self._in(named)
        usual = f"{origin}/sitemap.xml"
        found = self.site.fetch(Url.parse(usual))
        return None if found.absent else self._in([usual], {usual: found})

    def _in(self, addresses: list[str], fetched: dict[str, Found] | None = None) -> list[Url]:
        """Return the pages in sitemaps and in those that they name; one that is missing is an error."""
        pages: dict[str, Url] = {}
        foreign, waiting, seen = 0, deque(addresses), set(addresses)
        while waiting:
            address = waiting.popleft()
            entries = self._read(address, (fetched or {}).get(address))
            for text in entries["pages"]:
                url = _url(text)
                if url is None or url.origin not in self.site.origins:
                    foreign += 1
                elif self.source.wants(url) and self.site.permits(url):
                    pages.setdefault(str(url), url)
            further = [text for text in entries["sitemaps"] if text not in seen]
            seen.update(further)
            waiting.extend(further)
            distinct = len({self.source.path_of(url) for url in pages.values()})
            if distinct > self.source.max_pages:
                raise self.source.too_many(distinct)
            if len(seen) > _MAX_SITEMAPS:
                raise self._bad_sitemap(address, f"it leads to more than {_MAX_SITEMAPS:,} sitemaps")
        if foreign:
            log.warning(
                "Source %s: its sitemaps name %d addresses of other hosts, which are left out",
                self.source.name,
                foreign,
            )
        return list(pages.values())

    def _read(self, address: str, found: Found | None) -> dict[str, list[str]]:
        url = _url(address, Url.parse(self.source.url))
        if url is None or url.origin not in self.site.origins:
            raise self._bad_sitemap(
                address, "it is no address of this website; name another host under `hosts`"
            )
        found = found or self.site.fetch(url)
        if found.absent or found.problem:
            raise self._bad_sitemap(address, found.absent or found.problem or "")
        try:
            entries: dict[str, list[str]] = self.sandbox.call("sitemap", found.content)
        except Unreadable as error:
            raise self._bad_sitemap(address, str(error)) from error
        return entries

    def _bad_sitemap(self, address: str, reason: str) -> ConfigurationError:
        return ConfigurationError(
            f"source {self.source.name!r}: the sitemap {address!r} cannot be read, so pages would be missing: {reason}"
            ". Correct it, or set `sitemap: none` to follow links instead"
        )


def _url(text: str, base: Url | None = None) -> Url | None:
    try:
        return Url.parse(text, base)
    except ValueError:
        return None


def _media_type(content_type: str | None) -> str | None:
    """Return the media type in a header without its parameters, None where it says nothing."""
    found = (content_type or "").partition(";")[0].strip().lower()
    return found if found and found not in _UNTOLD else None


def _unwanted(content_type: str | None) -> str | None:
    """Return why a page of a content type is not read, None where it is, or where its name has to tell."""
    found = _media_type(content_type)
    if found is None or found in _READ:
        return None
    return f"its content type ({found[:80]}) is not supported"


def _file(path: str, found: Found) -> SourceFile:
    media_type = _media_type(found.content_type)
    if media_type == "text/plain" and found.url.path.lower().endswith(_TEXT_SUFFIXES):
        media_type = None  # Servers that do not know Markdown call it plain text.
    return SourceFile(
        path=path,
        size=len(found.content),
        read=lambda: _content(found),
        source_date=found.changed,
        media_type="text/html" if media_type in _HTML else media_type,
        metadata={"url": str(found.url)},
        problem=found.problem if found.kind != "unsupported" else None,
        revision=None if found.problem else found.revision,
    )


def _content(found: Found) -> bytes:
    if found.problem:
        raise Unreadable(found.problem, found.kind)
    return found.content
