"""The wire format of OpenAI-compatible answers: whole JSON bodies and server-sent events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from llmops.endpoints import Wire, WireError

__all__ = ["ChatChunk", "ChatResponse", "events"]

_LONGEST_LINE = 1_048_576


class _Text(Wire):
    content: str | None = None
    refusal: str | None = None


class _Choice(Wire):
    message: _Text
    finish_reason: str | None = None


class _Delta(Wire):
    delta: _Text = _Text()
    finish_reason: str | None = None


class _Usage(Wire):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class ChatResponse(Wire):
    """The body of a plain answer."""

    choices: tuple[_Choice, ...] = ()
    usage: _Usage | None = None
    model: str = ""
    error: Any = None


class ChatChunk(Wire):
    """The data of one event of a streamed answer."""

    choices: tuple[_Delta, ...] = ()
    usage: _Usage | None = None
    model: str = ""
    error: Any = None


def events(chunks: Iterable[bytes]) -> Iterator[str]:
    """Yield the data of each server-sent event, as WHATWG's HTML standard (section 9.2) reads a stream.

    An event that is cut off by the end of the stream is dropped, as there; whether the answer was
    complete is for the caller to judge from what the events said.
    """
    data: list[str] = []
    for line in _lines(chunks):
        if line == "":
            if data:
                yield "\n".join(data)
            data = []
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        rest += chunk
        if len(rest) > _LONGEST_LINE and b"\n" not in rest:
            raise WireError(f"a line of the event stream is longer than {_LONGEST_LINE} bytes")
        *whole, rest = rest.split(b"\n")
        for line in whole:
            try:
                yield line.removesuffix(b"\r").decode("utf-8")
            except UnicodeDecodeError as error:
                raise WireError(f"the event stream is not UTF-8: {error.reason}") from error
