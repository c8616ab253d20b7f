"""Requests to websites: bounded in size, time and attempts, polite, and to checked addresses only."""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpcore
import httpx

from llmops.corpus._files import MAX_BYTES
from llmops.corpus._guard import Deadline, GuardedBackend
from llmops.corpus._problems import Unreadable
from llmops.corpus._urls import Url
from llmops.errors import ServiceUnavailable

__all__ = ["HttpClient", "Reply", "date_of"]

log = logging.getLogger(__name__)

ATTEMPTS = 3
PAUSE_SECONDS = 1.0  # before the second attempt, then twice as long each time
TOTAL_SECONDS = 120.0  # of one attempt, from the name's look-up to the last byte
MAX_WAIT_SECONDS = 60.0  # that a server may ask for
_TIMEOUTS = {"connect": 10.0, "read": 30.0, "write": 30.0, "pool": 10.0}
_TRANSIENT = (408, 425, 429)
_ERRORS = (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError)


@dataclass(frozen=True)
class Reply:
    """What a server answered; header names are in lower case, and ``content`` is unpacked.

    ``content`` is empty where the caller did not want it.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes = b""


class HttpClient:
    """One visitor of websites; a context manager. ``delays`` has the seconds between requests per origin.

    No proxy is used: a proxy would connect to addresses that nobody here has checked.
    """

    def __init__(self, source: str, agent: str, *, delay: float, allow_private: bool) -> None:
        self.delays: dict[str, float] = {}
        self._source, self._agent, self._delay = source, agent, delay
        self._deadline = Deadline()
        self._next: dict[str, float] = {}
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=4,
            network_backend=GuardedBackend(self._deadline, allow_private=allow_private),
        )

    def __enter__(self) -> HttpClient:
        return self

    def __exit__(self, *details: object) -> None:
        self._pool.close()

    def get(self, url: Url, headers: Mapping[str, str], wanted: Callable[[Reply], bool]) -> Reply:
        """Return what a server answers, with its body where ``wanted`` says so of the rest.

        Redirects are not followed. Raises ServiceUnavailable when the server is not there, too slow, overloaded or
        broken after a few attempts, Unreadable when the body is too large, AddressRefused before connecting.
        """
        reason = ""
        for attempt in range(ATTEMPTS):
            wait = PAUSE_SECONDS * 2 ** (attempt - 1) if attempt else 0.0
            self._wait(url.origin, wait)
            try:
                reply = self._once(url, headers, wanted)
            except _ERRORS as error:
                reason = str(error) or type(error).__name__
                continue
            if reply.status < 500 and reply.status not in _TRANSIENT:
                return reply
            reason = f"it answers {reply.status}"
            self._obey(url, reply)
        raise ServiceUnavailable(
            f"source {self._source!r}: {str(url)!r} cannot be read after {ATTEMPTS} attempts: {reason}. "
            "Nothing was taken from the website; run this again later, or exclude the page"
        )

    def _once(self, url: Url, headers: Mapping[str, str], wanted: Callable[[Reply], bool]) -> Reply:
        self._deadline.at = time.monotonic() + TOTAL_SECONDS
        sent = {
            "Host": url.origin.split("://")[1],
            "User-Agent": self._agent,
            "Accept-Encoding": "gzip",
            **headers,
        }
        address = httpcore.URL(
            scheme=url.scheme.encode(), host=url.host.encode(), port=url.port, target=url.target.encode()
        )
        try:
            with self._pool.stream(
                "GET", address, headers=list(sent.items()), extensions={"timeout": _TIMEOUTS}
            ) as response:
                answered = {key.decode("latin-1").lower(): _text(value) for key, value in response.headers}
                head = Reply(response.status, answered)
                if response.status == 304:
                    list(response.iter_stream())  # It has no body; read, the connection is used again.
                if response.status != 200 or not wanted(head):
                    return head
                return Reply(200, answered, _unpacked(answered, response.iter_stream()))
        finally:
            self._deadline.at = None
            self._next[url.origin] = time.monotonic() + max(self._delay, self.delays.get(url.origin, 0.0))

    def _wait(self, origin: str, at_least: float) -> None:
        pause = max(self._next.get(origin, 0.0) - time.monotonic(), at_least)
        if pause > 0:
            time.sleep(pause)

    def _obey(self, url: Url, reply: Reply) -> None:
        """Keep away for as long as the server asks; raise ServiceUnavailable when that is too long."""
        seconds = _retry_after(reply.headers.get("retry-after", ""))
        if seconds > MAX_WAIT_SECONDS:
            raise ServiceUnavailable(
                f"source {self._source!r}: {str(url)!r} cannot be read now: it answers {reply.status} and asks "
                f"to come back in {seconds:.0f} s, later than the {MAX_WAIT_SECONDS:.0f} s that a run waits"
            )
        self._next[url.origin] = max(self._next.get(url.origin, 0.0), time.monotonic() + seconds)


def date_of(value: str) -> datetime | None:
    """Return the time in a header, None when it is none."""
    try:
        found = parsedate_to_datetime(value)
    except (ValueError, IndexError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _retry_after(value: str) -> float:
    if value.strip().isdecimal():
        return float(value.strip()[:9])
    date = date_of(value)
    return max(0.0, (date - datetime.now(UTC)).total_seconds()) if date else 0.0


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _unpacked(headers: Mapping[str, str], chunks: Iterator[bytes]) -> bytes:
    """Return the body, unpacked as it arrives and never above the limit; a body that ends early is an error."""
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return _joined(chunks)
    if encoding not in ("gzip", "x-gzip"):
        raise Unreadable(f"it is packed with {encoding!r}, which was not asked for")
    return _joined(_inflated(chunks))


def _inflated(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what gzip packed, a little at a time whatever it unpacks to; one member after the other."""
    unpacker = zlib.decompressobj(wbits=31)
    for chunk in chunks:
        rest = chunk
        while rest:
            if unpacker.eof:
                if not rest.strip(b"\0"):
                    break  # Padding.
                unpacker = zlib.decompressobj(wbits=31)
            try:
                yield unpacker.decompress(rest, 1 << 16)
            except zlib.error as error:
                raise Unreadable(f"it says that it is packed with gzip, and is not: {error}") from error
            rest = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
    if not unpacker.eof:
        raise httpcore.RemoteProtocolError("its packed body ends early")


def _joined(chunks: Iterator[bytes]) -> bytes:
    parts, size = [], 0
    for chunk in chunks:
        parts.append(chunk)
        size += len(chunk)
        if size > MAX_BYTES:
            raise Unreadable(f"it has more than the {MAX_BYTES:,} bytes a document may have", "too_large")
    return b"".join(parts)
