"""One address that answers JSON questions over HTTP: deadlines, bounded attempts, and errors without secrets."""

from __future__ import annotations

import email.utils
import json
import logging
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event
from typing import Any, TypeVar

import httpx

from llmops.endpoints._breaker import Breaker
from llmops.endpoints._transport import Countdown, CountdownTransport
from llmops.errors import ConfigurationError, LlmopsError, RateLimited, ServiceUnavailable, TerminalError

__all__ = ["Again", "EndpointLimits", "JsonEndpoint", "base_url"]

log = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")

_ERROR_BYTES = 16_384
_BUSY = {408, 409, 425, 500, 502, 503, 504, 529}


@dataclass(frozen=True)
class EndpointLimits:
    """How long, how often and how much; times in seconds.

    ``timeout`` bounds one answer with all its attempts and pauses, ``stall`` each wait for the next
    bytes. After ``failures`` answers in a row for which the endpoint was down, it is left alone for
    ``cooldown``, and callers fail at once.
    """

    timeout: float = 60.0
    stall: float = 20.0
    attempts: int = 4
    backoff: float = 0.25
    longest_backoff: float = 8.0
    failures: int = 3
    cooldown: float = 5.0
    connections: int = 32
    response_bytes: int = 4 * 1024 * 1024


class Again(Exception):
    """One attempt failed in a way that another may not; ``error`` is raised when there is none left."""

    def __init__(self, error: LlmopsError, retry_after: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after = retry_after


class JsonEndpoint:
    """Posts to one URL; thread-safe, keeps its connections, never follows a redirect.

    Every failure is RateLimited, ServiceUnavailable or, where trying again changes nothing, ``unusable``, raised
    within the deadline. ``place`` names the endpoint in messages; ``hints`` say what to check for a status.
    """

    def __init__(
        self,
        target: httpx.URL,
        place: str,
        *,
        key: str | None,
        limits: EndpointLimits,
        unusable: type[TerminalError],
        hints: Mapping[int, str],
    ) -> None:
        self.place = place
        self.limits = limits
        self._target = target
        self._key = key
        self._unusable = unusable
        self._hints = hints
        self._breaker = Breaker(limits.failures, limits.cooldown)
        self._closed = Event()
        headers = {"Accept-Encoding": "identity", "User-Agent": "llmops"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        self._client = httpx.Client(
            transport=CountdownTransport(limits.connections), headers=headers, follow_redirects=False
        )

    def close(self) -> None:
        """Close all connections and end every pause between attempts."""
        self._closed.set()
        self._client.close()

    def attempts(
        self, attempt: Callable[[Countdown], Iterator[ItemT]], timeout: float | None = None
    ) -> Iterator[ItemT]:
        """Yield what an attempt yields; one that raises Again before its first item is repeated, after a pause."""
        limits = self.limits
        seconds = limits.timeout if timeout is None else min(timeout, limits.timeout)
        countdown = Countdown(seconds, limits.stall)
        with self._breaker.watch(self.place):
            for number in range(1, limits.attempts + 1):
                handed_out = False
                try:
                    for item in attempt(countdown):
                        handed_out = True
                        yield item
                    return
                except Again as failure:
                    pause = self._pause(number, failure.retry_after)
                    if handed_out or number == limits.attempts or pause >= countdown.remaining():
                        raise failure.error from failure.__cause__
                    log.info("%s: attempt %d failed, next in %.1f s: %s", self.place, number, pause, failure)
                    if self._closed.wait(pause):
                        raise failure.error from failure.__cause__

    def post(
        self,
        body: Mapping[str, Any],
        countdown: Countdown,
        *,
        accept: str = "application/json",
        reconsider: Callable[[str], LlmopsError | None] = lambda said: None,
    ) -> Iterator[bytes]:
        """Send one request and yield the body of its answer; every failure is already one of ours, or Again.

        ``reconsider`` is given what came with a status that is otherwise final, and may return an error worth
        another attempt.
        """
        request = self._client.build_request(
            "POST",
            self._target,
            content=json.dumps(body, ensure_ascii=False).encode(),
            headers={"Content-Type": "application/json", "Accept": accept},
            extensions=countdown.extensions(),
        )
        response: httpx.Response | None = None
        try:
            response = self._client.send(request, stream=True)
            try:
                self._check(response, reconsider)
                size = 0
                for chunk in response.iter_raw():
                    size += len(chunk)
                    if size > self.limits.response_bytes:
                        raise self.unusable(f"more than {self.limits.response_bytes} bytes")
                    yield chunk
            finally:
                response.close()
        except httpx.TimeoutException as error:
            late = (
                "its deadline passed"
                if countdown.remaining() <= 0
                else f"silent for {countdown.longest_wait:.0f} s"
            )
            raise Again(ServiceUnavailable(f"{self.place} did not finish its answer: {late}")) from error
        except httpx.TransportError as error:
            if response is not None and isinstance(error, httpx.RemoteProtocolError):
                raise Again(self.unusable(f"an answer that breaks off ({error})")) from error
            message = f"{self.place} cannot be reached or broke the connection ({error}): is it running?"
            raise Again(ServiceUnavailable(message)) from error

    def unusable(self, what: str) -> TerminalError:
        """Return the error for an answer that cannot be used."""
        return self._unusable(f"{self.place} sent {what}")

    def reported(self, error: Any) -> Exception:
        """Return the exception for an error object that came with status 200."""
        said = self.excerpt(json.dumps(error).encode())
        code = error.get("code") if isinstance(error, dict) else None
        if str(code) in {"429", "rate_limit_exceeded"}:
            return Again(RateLimited(f"{self.place} asks to wait: {said}"))
        return self._unusable(f"{self.place} reports an error: {said}")

    def excerpt(self, content: bytes) -> str:
        """Quote the beginning of what a server sent, on one line and without the key."""
        text = content[:_ERROR_BYTES].decode("utf-8", "replace")
        if self._key:
            text = text.replace(self._key, "***")
        return repr(" ".join(text.split())[:200])

    def _pause(self, number: int, retry_after: float | None) -> float:
        """Return how long to wait: what the server asked for, else exponential backoff with full jitter."""
        if retry_after is not None:
            return retry_after + random.uniform(0, self.limits.backoff)
        return random.uniform(0, min(self.limits.longest_backoff, self.limits.backoff * 2 ** (number - 1)))

    def _check(self, response: httpx.Response, reconsider: Callable[[str], LlmopsError | None]) -> None:
        """Raise unless the status is 200 and the body is of a kind that can be read."""
        status = response.status_code
        if status == 200:
            encoding = response.headers.get("content-encoding", "identity")
            if encoding != "identity":
                raise self.unusable(f"a body in the encoding {encoding!r}, which was not asked for")
            if "text/html" in response.headers.get("content-type", ""):
                raise self.unusable(f"a web page with status 200: {self._hints[200]}")
            return
        said = self.excerpt(_beginning(response))
        after = _retry_after(response.headers.get("retry-after"))
        if status == 429:
            if "insufficient_quota" in said:
                raise self._unusable(f"{self.place}: the account has no quota left: {said}")
            raise Again(RateLimited(f"{self.place} asks to wait (status 429): {said}", after), after)
        if status in _BUSY:
            raise Again(ServiceUnavailable(f"{self.place} answers status {status}: {said}"), after)
        if (error := reconsider(said)) is not None:
            raise Again(error)
        hint = self._hints.get(status, "check the URL, the model's name and the options")
        raise self._unusable(f"{self.place} answers status {status}: {said}; {hint}")


def base_url(url: str, suffix: str, what: str) -> httpx.URL:
    """Return ``url`` with ``suffix`` at its end, ``/v1`` before it when it has no path.

    ``what`` names its owner in the ConfigurationError for anything that is not a plain base URL.
    """
    try:
        base = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"the {what}'s URL is not valid: {error}") from error
    if base.userinfo or base.query or base.fragment:
        raise ConfigurationError(
            f"the {what}'s URL on host {base.host!r} must have no user, password, query or fragment: "
            "put the key into a file and name it as key_file"
        )
    if base.scheme not in {"http", "https"} or not base.host:
        raise ConfigurationError(f"the {what}'s URL {url!r} must start with http:// or https:// and a host")
    path = base.path.rstrip("/").removesuffix(suffix).rstrip("/") or "/v1"
    return base.copy_with(path=f"{path}{suffix}")


def _beginning(response: httpx.Response) -> bytes:
    content = b""
    for chunk in response.iter_raw():
        content += chunk
        if len(content) >= _ERROR_BYTES:
            break
    return content


def _retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for (RFC 9110, 10.2.3: a number or a date)."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value.strip())
    try:
        at = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, ((at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())
