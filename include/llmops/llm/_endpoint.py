"""A client for the chat completions of any OpenAI-compatible URL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from llmops.endpoints import Again, Countdown, EndpointLimits, JsonEndpoint, WireError, base_url, parse
from llmops.errors import LanguageModelError
from llmops.llm._events import ChatChunk, ChatResponse, events
from llmops.llm._messages import Completion, Message, Usage

__all__ = ["ChatEndpoint", "EndpointLimits", "check_url"]

_PATH = "/chat/completions"
_HINTS = {
    200: f"does the URL end where {_PATH} follows?",
    401: "check the key file",
    403: "check what the key may do",
    404: "check the URL and the model's name",
    413: "ask for fewer or shorter chunks",
}


class ChatEndpoint:
    """One model behind one URL; thread-safe, keeps its connections, never follows a redirect.

    ``url`` is the base that ``/chat/completions`` is appended to (``/v1`` when it has no path). Every
    failure is one of RateLimited, ServiceUnavailable and LanguageModelError, raised within the deadline;
    an answer is returned only when the endpoint said that it is complete.
    """

    def __init__(
        self, url: str, model: str, *, key: str | None = None, limits: EndpointLimits | None = None
    ) -> None:
        target = base_url(url, _PATH, "language model")
        self._model = model
        self._counts_streams = True
        self._endpoint = JsonEndpoint(
            target,
            f"{target.scheme}://{target.netloc.decode()} (model {model!r})",
            key=key,
            limits=limits or EndpointLimits(),
            unusable=LanguageModelError,
            hints=_HINTS,
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

        *_, last = self._endpoint.attempts(attempt, timeout)
        return last

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

        return self._endpoint.attempts(attempt, timeout)

    def close(self) -> None:
        """Close all connections."""
        self._endpoint.close()

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

    def _whole(self, body: dict[str, Any], countdown: Countdown) -> Iterator[Completion]:
        text = b"".join(self._endpoint.post(body, countdown))
        try:
            answer = parse(ChatResponse, text)
        except WireError as error:
            what = f"not a chat completion ({error}), but {self._endpoint.excerpt(text)}"
            raise self._endpoint.unusable(what) from error
        if answer.error is not None:
            raise self._endpoint.reported(answer.error)
        if len(answer.choices) != 1:
            raise self._endpoint.unusable(f"{len(answer.choices)} choices instead of one")
        choice = answer.choices[0]
        content = choice.message.content or choice.message.refusal or ""
        reason = self._finished(choice.finish_reason)
        if not content.strip():
            raise self._endpoint.unusable("an answer without text")
        usage = Usage(**answer.usage.model_dump()) if answer.usage else None
        yield Completion(content, reason, usage, answer.model or self._model)

    def _pieces(self, body: dict[str, Any], countdown: Countdown) -> Iterator[str | Completion]:
        text: list[str] = []
        reason: str | None = None
        usage: Usage | None = None
        model = ""
        chunks = self._endpoint.post(
            body, countdown, accept="text/event-stream", reconsider=self._without_counts
        )
        try:
            for data in events(chunks):
                if data == "[DONE]":
                    break
                chunk = parse(ChatChunk, data)
                if chunk.error is not None:
                    raise self._endpoint.reported(chunk.error)
                usage = Usage(**chunk.usage.model_dump()) if chunk.usage else usage
                model = chunk.model or model
                for choice in chunk.choices[:1]:
                    reason = choice.finish_reason or reason
                    piece = choice.delta.content or choice.delta.refusal
                    if piece:
                        text.append(piece)
                        yield piece
        except WireError as error:
            raise self._endpoint.unusable(f"a malformed event stream: {error}") from error
        if reason is None:
            raise Again(self._endpoint.unusable("an event stream that ended before the answer was finished"))
        finished = self._finished(reason)
        if not "".join(text).strip():
            raise self._endpoint.unusable("an answer without text")
        yield Completion("".join(text), finished, usage, model or self._model)

    def _without_counts(self, said: str) -> LanguageModelError | None:
        """Return an error worth another attempt when the endpoint refuses to count the tokens of streams."""
        if "stream_options" not in said or not self._counts_streams:
            return None
        self._counts_streams = False
        return LanguageModelError(f"{self._endpoint.place} does not count the tokens of streams: {said}")

    def _finished(self, reason: str | None) -> Literal["stop", "length"]:
        if reason == "content_filter":
            raise LanguageModelError(
                f"{self._endpoint.place}: the provider's content filter stopped the answer"
            )
        if reason in {"stop", "length"}:
            return "length" if reason == "length" else "stop"
        raise self._endpoint.unusable(f"an answer with the finish reason {reason!r}, which is not text")


def check_url(url: str) -> None:
    """Raise ConfigurationError unless ``url`` can be an endpoint's base URL."""
    base_url(url, _PATH, "language model")
