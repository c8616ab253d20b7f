"""A client for the chat completions of any OpenAI-compatible URL."""

from __future__ import annotations

import email.utils
import json
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import httpx

from llmops.errors import ConfigurationError, LanguageModelError, LlmopsError, RateLimited, ServiceUnavailable
from llmops.llm._breaker import Breaker
from llmops.llm._events import ChatChunk, ChatResponse, WireError, events, parse
from llmops.llm._messages import Completion, Message, Usage
from llmops.llm._transport import Countdown, CountdownTransport

__all__ = ["ChatEndpoint", "EndpointLimits", "check_url"]

log = logging.getLogger(__name__)

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


class _Again(Exception):
    """One attempt failed in a way that another may not; ``error`` is raised when there is none left."""

    def __init__(self, error: LlmopsError, retry_after: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after = retry_after


class ChatEndpoint:
    """One model behind one URL; thread-safe, keeps its connections, never follows a redirect.

    ``url`` is the base that ``/chat/completions`` is appended to (``/v1`` when it has no path). Every
    failure is one of RateLimited, ServiceUnavailable and LanguageModelError, raised within the deadline;
    an answer is returned only when the endpoint said that it is complete.
    """

    def __init__(
        self, url: str, model: str, *, key: str | None = None, limits: EndpointLimits | None = None
    ) -> None:
        self._limits = limits or EndpointLimits()
        self._target = _target(url)
        self._model = model
        self._place = f"{self._target.scheme}://{self._target.netloc.decode()} (model {model!r})"
        self._key = key
        self._counts_streams = True
        self._breaker = Breaker(self._limits.failures, self._limits.cooldown)
        headers = {"Accept-Encoding": "identity", "User-Agent": "llmops"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        self._client = httpx.Client(
            transport=CountdownTransport(self._limits.connections), headers=headers, follow_redirects=False
        )

    def complete(
        self,
        messages: Sequence[Message],
        *,
        options: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Completion:
        """Return the answer to ``messages``; ``options`` are added to the request's body."""

        def attempt(countdown: Countdown) -> Iterator[Completion]:
            return self._whole(self._body(messages, options, stream=False), countdown)

        *_, last = self._attempts(attempt, timeout)
        return _completion(last)

    def stream(
        self,
        messages: Sequence[Message],
        *,
        options: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Iterator[str | Completion]:
        """Yield the answer in pieces as they come, and last the Completion.

        Attempts are repeated only until the first piece has been handed out; when it breaks after that,
        the error is raised instead of the Completion.
        """

        def attempt(countdown: Countdown) -> Iterator[str | Completion]:
            return self._pieces(self._body(messages, options, stream=True), countdown)

        return self._attempts(attempt, timeout)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def _body(
        self, messages: Sequence[Message], options: Mapping[str, Any] | None, *, stream: bool
    ) -> dict[str, Any]:
        body = {
            **(options or {}),
            "model": self._model,
            "messages": [asdict(message) for message in messages],
            "stream": stream,
        }
        if stream and self._counts_streams:
            body["stream_options"] = {"include_usage": True}
        return body

    def _attempts(
        self, attempt: Callable[[Countdown], Iterator[str | Completion]], timeout: float | None
    ) -> Iterator[str | Completion]:
        limits = self._limits
        seconds = limits.timeout if timeout is None else min(timeout, limits.timeout)
        countdown = Countdown(seconds, limits.stall)
        with self._breaker.watch(self._place):
            for number in range(1, limits.attempts + 1):
                handed_out = False
                try:
                    for item in attempt(countdown):
                        handed_out = True
                        yield item
                    return
                except _Again as failure:
                    pause = self._pause(number, failure.retry_after)
                    if handed_out or number == limits.attempts or pause >= countdown.remaining():
                        raise failure.error from failure.__cause__
                    log.info("%s: attempt %d failed, next in %.1f s: %s", self._place, number, pause, failure)
                time.sleep(pause)

    def _pause(self, number: int, retry_after: float | None) -> float:
        """Return how long to wait: what the server asked for, else exponential backoff with full jitter."""
        if retry_after is not None:
            return retry_after + random.uniform(0, self._limits.backoff)
        return random.uniform(0, min(self._limits.longest_backoff, self._limits.backoff * 2 ** (number - 1)))

    def _whole(self, body: dict[str, Any], countdown: Countdown) -> Iterator[Completion]:
        text = b"".join(self._exchange(body, countdown))
        try:
            answer = parse(ChatResponse, text)
        except WireError as error:
            raise self._unusable(f"not a chat completion ({error}), but {self._excerpt(text)}") from error
        if answer.error is not None:
            raise self._reported(answer.error)
        if len(answer.choices) != 1:
            raise self._unusable(f"{len(answer.choices)} choices instead of one")
        choice = answer.choices[0]
        content = choice.message.content or choice.message.refusal or ""
        reason = self._finished(choice.finish_reason)
        if not content.strip():
            raise self._unusable("an answer without text")
        usage = Usage(**answer.usage.model_dump()) if answer.usage else None
        yield Completion(content, reason, usage, answer.model or self._model)

    def _pieces(self, body: dict[str, Any], countdown: Countdown) -> Iterator[str | Completion]:
        text: list[str] = []
        reason: str | None = None
        usage: Usage | None = None
        model = ""
        try:
            for data in events(self._exchange(body, countdown)):
                if data == "[DONE]":
                    break
                chunk = parse(ChatChunk, data)
                if chunk.error is not None:
                    raise self._reported(chunk.error)
                usage = Usage(**chunk.usage.model_dump()) if chunk.usage else usage
                model = chunk.model or model
                for choice in chunk.choices[:1]:
                    reason = choice.finish_reason or reason
                    piece = choice.delta.content or choice.delta.refusal
                    if piece:
                        text.append(piece)
                        yield piece
        except WireError as error:
            raise self._unusable(f"a malformed event stream: {error}") from error
        if reason is None:
            raise _Again(self._unusable("an event stream that ended before the answer was finished"))
        finished = self._finished(reason)
        if not "".join(text).strip():
            raise self._unusable("an answer without text")
        yield Completion("".join(text), finished, usage, model or self._model)

    def _exchange(self, body: dict[str, Any], countdown: Countdown) -> Iterator[bytes]:
        """Send one request and yield the body of its answer; every failure is already one of ours."""
        expected = "text/event-stream" if body["stream"] else "application/json"
        request = self._client.build_request(
            "POST",
            self._target,
            content=json.dumps(body, ensure_ascii=False).encode(),
            headers={"Content-Type": "application/json", "Accept": expected},
            extensions=countdown.extensions(),
        )
        response: httpx.Response | None = None
        try:
            response = self._client.send(request, stream=True)
            try:
                self._check(response)
                size = 0
                for chunk in response.iter_raw():
                    size += len(chunk)
                    if size > self._limits.response_bytes:
                        raise self._unusable(f"more than {self._limits.response_bytes} bytes")
                    yield chunk
            finally:
                response.close()
        except httpx.TimeoutException as error:
            late = (
                "its deadline passed"
                if countdown.remaining() <= 0
                else f"silent for {countdown.longest_wait:.0f} s"
            )
            raise _Again(ServiceUnavailable(f"{self._place} did not finish its answer: {late}")) from error
        except httpx.TransportError as error:
            if response is not None and isinstance(error, httpx.RemoteProtocolError):
                raise _Again(self._unusable(f"an answer that breaks off ({error})")) from error
            message = f"{self._place} cannot be reached or broke the connection ({error}): is it running?"
            raise _Again(ServiceUnavailable(message)) from error

    def _check(self, response: httpx.Response) -> None:
        """Raise unless the status is 200 and the body is of a kind that can be read."""
        status = response.status_code
        if status == 200:
            encoding = response.headers.get("content-encoding", "identity")
            if encoding != "identity":
                raise self._unusable(f"a body in the encoding {encoding!r}, which was not asked for")
            if "text/html" in response.headers.get("content-type", ""):
                raise self._unusable(
                    "a web page with status 200: does the URL end where /chat/completions follows?"
                )
            return
        said = self._excerpt(_beginning(response))
        after = _retry_after(response.headers.get("retry-after"))
        if status == 429:
            if "insufficient_quota" in said:
                raise LanguageModelError(f"{self._place}: the account has no quota left: {said}")
            raise _Again(RateLimited(f"{self._place} asks to wait (status 429): {said}", after), after)
        if status in _BUSY:
            raise _Again(ServiceUnavailable(f"{self._place} answers status {status}: {said}"), after)
        if "stream_options" in said and self._counts_streams:
            self._counts_streams = False
            raise _Again(LanguageModelError(f"{self._place} does not count the tokens of streams: {said}"))
        hint = {
            401: "check the key file",
            403: "check what the key may do",
            404: "check the URL and the model's name",
            413: "ask for fewer or shorter chunks",
        }.get(status, "check the URL, the model's name and the generator's options")
        raise LanguageModelError(f"{self._place} answers status {status}: {said}; {hint}")

    def _reported(self, error: Any) -> Exception:
        """Return the exception for an error object that came with status 200."""
        said = self._excerpt(json.dumps(error).encode())
        code = error.get("code") if isinstance(error, dict) else None
        if str(code) in {"429", "rate_limit_exceeded"}:
            return _Again(RateLimited(f"{self._place} asks to wait: {said}"))
        return LanguageModelError(f"{self._place} reports an error: {said}")

    def _finished(self, reason: str | None) -> Literal["stop", "length"]:
        if reason == "content_filter":
            raise LanguageModelError(f"{self._place}: the provider's content filter stopped the answer")
        if reason in {"stop", "length"}:
            return "length" if reason == "length" else "stop"
        raise self._unusable(f"an answer with the finish reason {reason!r}, which is not text")

    def _unusable(self, what: str) -> LanguageModelError:
        return LanguageModelError(f"{self._place} sent {what}")

    def _excerpt(self, content: bytes) -> str:
        """Quote the beginning of what a server sent, on one line and without the key."""
        text = content[:_ERROR_BYTES].decode("utf-8", "replace")
        if self._key:
            text = text.replace(self._key, "***")
        return repr(" ".join(text.split())[:200])


def _completion(last: str | Completion) -> Completion:
    if isinstance(last, str):
        raise TypeError(f"an attempt ended with a piece instead of a completion: {last[:40]!r}")
    return last


def check_url(url: str) -> None:
    """Raise ConfigurationError unless ``url`` can be an endpoint's base URL."""
    _target(url)


def _target(url: str) -> httpx.URL:
    """Return where to post to; raise ConfigurationError for what is not a plain base URL."""
    try:
        base = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"the language model's URL is not valid: {error}") from error
    if base.userinfo or base.query or base.fragment:
        raise ConfigurationError(
            f"the language model's URL on host {base.host!r} must have no user, password, query or fragment: "
            "put the key into a file and name it as key_file"
        )
    if base.scheme not in {"http", "https"} or not base.host:
        raise ConfigurationError(
            f"the language model's URL {url!r} must start with http:// or https:// and a host"
        )
    path = base.path.rstrip("/").removesuffix("/chat/completions").rstrip("/") or "/v1"
    return base.copy_with(path=f"{path}/chat/completions")


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
