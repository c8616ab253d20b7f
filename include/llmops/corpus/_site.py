"""One website as it may be visited: its robots.txt, its redirects, and what was kept of it before."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from llmops.corpus._guard import AddressRefused
from llmops.corpus._http import HttpClient, Reply, date_of
from llmops.corpus._http_cache import Cached, HttpCache
from llmops.corpus._problems import Problem, Unreadable
from llmops.corpus._urls import Url
from llmops.errors import ConfigurationError

if TYPE_CHECKING:
    from protego import Protego

__all__ = ["Found", "Site"]

log = logging.getLogger(__name__)

ROBOT = "llmops"
"""What robots.txt calls this program."""

MAX_REDIRECTS = 5
MAX_CRAWL_DELAY = 30.0
_REDIRECTS = (301, 302, 303, 307, 308)
_GONE = (404, 410)
_SAYS = "it answers"
_CHARSET = re.compile(
    r"charset\s*=\s*[\"']?(iso-8859-\d{1,2}|windows-125\d|latin-?1|koi8-[ru]|shift_jis|euc-(?:jp|kr)"
    r"|gb2312|gbk|gb18030|big5)\b",
    re.IGNORECASE,
)
_DECLARED = re.compile(rb"<meta[^>]+charset|<\?xml[^>]+encoding", re.IGNORECASE)


@dataclass(frozen=True)
class Found:
    """What a URL led to: a page at ``url``, a ``problem`` with it, or nothing when it is ``absent``.

    ``absent`` says why in a word or two: the page is gone, or robots.txt asks not to visit it.
    """

    url: Url
    content: bytes = b""
    content_type: str | None = None
    changed: datetime | None = None
    absent: str | None = None
    problem: str | None = None
    kind: Problem = "unreadable"

    @property
    def gone(self) -> bool:
        """Return whether the server says that there is no such page."""
        return self.absent is not None and self.absent.startswith(_SAYS)

    @property
    def revision(self) -> str:
        """Return the digest of the content, which is here anyway and lies less often than an entity tag."""
        return hashlib.sha256(self.content).hexdigest()


class Site:
    """The origins that a source may visit, through one client and one cache."""

    def __init__(self, source: str, origins: frozenset[str], client: HttpClient, cache: HttpCache) -> None:
        self._source, self.origins, self._client, self._cache = source, origins, client, cache
        self._robots: dict[str, Protego] = {}

    def sitemaps(self, origin: str) -> list[str]:
        """Return the sitemaps that an origin's robots.txt names."""
        return list(dict.fromkeys(self._rules(origin).sitemaps))

    def permits(self, url: Url) -> bool:
        """Return whether the robots.txt of a URL's origin lets this program visit it (RFC 9309)."""
        return bool(self._rules(url.origin).can_fetch(str(url), ROBOT))

    def fetch(self, url: Url, wanted: Callable[[str | None], str | None] = lambda kind: None) -> Found:
        """Return what a URL leads to, redirects followed within the origins.

        ``wanted`` returns why a content type is not read, None where it is. Raises ServiceUnavailable when the server
        does not answer properly, so that no page looks deleted, and ConfigurationError for a forbidden address.
        """
        at = url
        for _ in range(MAX_REDIRECTS + 1):
            if not self.permits(at):
                return Found(at, absent="robots.txt asks not to visit it")
            found = self._visit(at, wanted)
            if isinstance(found, Found):
                return found
            try:
                at = Url.parse(found, at)
            except ValueError as error:
                return Found(
                    url, problem=f"it redirects to an address that is not followed: {error}", kind="refused"
                )
            if at.origin not in self.origins:
                reason = f"it redirects to {at.origin!r}, which is not among the source's `url` and `hosts`"
                return Found(url, problem=reason, kind="refused")
        return Found(url, problem=f"it redirects more than {MAX_REDIRECTS} times", kind="refused")

    def _visit(self, url: Url, wanted: Callable[[str | None], str | None]) -> Found | str:
        """Return what is at a URL itself, or where it redirects to."""
        held = self._cache.load(str(url))
        unwanted: list[str] = []

        def take(head: Reply) -> bool:
            unwanted.extend(filter(None, [wanted(head.headers.get("content-type"))]))
            return not unwanted

        try:
            reply = self._get(url, held.conditions() if held else {}, take)
            if reply.status == 304 and held is None:
                return Found(url, problem="it answers 304 to a question without conditions")
        except Unreadable as error:
            return Found(url, problem=str(error), kind=error.problem)
        if reply.status == 304 and held is not None:
            reason = wanted(held.content_type)
            return Found(url, problem=reason, kind="unsupported") if reason else _page(url, held)
        if reply.status in _REDIRECTS and "location" in reply.headers:
            return reply.headers["location"]
        if reply.status in _GONE:
            return Found(url, absent=f"{_SAYS} {reply.status}")
        if unwanted:
            return Found(url, problem=unwanted[0], kind="unsupported")
        if reply.status != 200:
            return Found(
                url, problem=f"it answers {reply.status}: give the page free, or exclude it", kind="refused"
            )
        headers = reply.headers
        page = Cached(
            reply.content, headers.get("etag"), headers.get("last-modified"), headers.get("content-type")
        )
        self._cache.store(str(url), page)
        return _page(url, page)

    def _get(self, url: Url, headers: dict[str, str], wanted: Callable[[Reply], bool]) -> Reply:
        try:
            return self._client.get(url, headers, wanted)
        except AddressRefused as error:
            raise ConfigurationError(
                f"source {self._source!r}: {str(url)!r} is not visited: {error}. Set `allow_private: true` if this is "
                "a website of your own network; link-local addresses are never visited"
            ) from error

    def _rules(self, origin: str) -> Protego:
        if origin not in self._robots:
            rules = self._robots_of(origin)
            self._robots[origin] = rules
            asked = float(rules.crawl_delay(ROBOT) or 0.0)
            self._client.delays[origin] = min(asked, MAX_CRAWL_DELAY)
            if asked > MAX_CRAWL_DELAY:
                log.warning(
                    "Source %s: %s asks for %.0f s between requests; it gets %.0f s",
                    self._source, origin, asked, MAX_CRAWL_DELAY,
                )  # fmt: skip
        return self._robots[origin]

    def _robots_of(self, origin: str) -> Protego:
        """Return an origin's robots.txt: nothing is forbidden where the server says there is none."""
        from protego import Protego

        at = Url.parse(f"{origin}/robots.txt")
        for _ in range(MAX_REDIRECTS + 1):
            try:
                reply = self._get(at, {}, lambda head: True)
            except Unreadable as error:
                raise self._bad_robots(origin, str(error)) from error
            if reply.status in _REDIRECTS and "location" in reply.headers:
                try:
                    at = Url.parse(reply.headers["location"], at)
                except ValueError as error:
                    raise self._bad_robots(origin, f"it redirects to no website: {error}") from error
                if at.origin not in self.origins:
                    raise self._bad_robots(
                        origin, f"it redirects to {at.origin!r}: name that host under `hosts`"
                    )
                continue
            if reply.status == 200:
                return Protego.parse(reply.content.decode("utf-8-sig", "replace"))
            return Protego.parse("")  # 4xx: there are no rules (RFC 9309, 2.3.1.3); 5xx has been raised.
        raise self._bad_robots(origin, f"it redirects more than {MAX_REDIRECTS} times")

    def _bad_robots(self, origin: str, reason: str) -> ConfigurationError:
        return ConfigurationError(
            f"source {self._source!r}: the rules of {origin!r} for visitors cannot be read from its robots.txt, so "
            f"nothing of it is visited: {reason}"
        )


def _page(url: Url, page: Cached) -> Found:
    changed = date_of(page.last_modified) if page.last_modified else None
    if changed and changed > datetime.now(UTC) - timedelta(minutes=1):
        changed = None  # The time of the request: what servers say of pages that they make anew for each.
    return Found(url, content=_utf8(page), content_type=page.content_type, changed=changed)


def _utf8(page: Cached) -> bytes:
    """Return a page's content in UTF-8 where its header alone says what it is in."""
    charset = _CHARSET.search(page.content_type or "")
    if charset is None or _DECLARED.search(page.content[:4096]):
        return page.content
    try:
        return page.content.decode(charset[1]).encode()
    except (UnicodeDecodeError, LookupError):
        return page.content  # Whoever reads it finds out and says so.
