"""A language model that says what it is told to: a real HTTP server on loopback for tests and demos.

It speaks the chat completions protocol, plain and streamed, from a queue of scripted replies and
failures, and keeps a history of what it was asked.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Protocol

__all__ = [
    "Drip",
    "Failure",
    "FakeLanguageModel",
    "Malformed",
    "Page",
    "Reply",
    "Reset",
    "Stall",
    "Truncated",
]


@dataclass(frozen=True)
class Asked:
    """One request as the fake received it."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]

    @property
    def messages(self) -> list[dict[str, str]]:
        """Return the conversation."""
        return list(self.body.get("messages", []))


class Scripted(Protocol):
    """What can be put into the queue."""

    def send(self, exchange: Exchange) -> None:
        """Answer one request."""


@dataclass(frozen=True)
class Reply:
    """An answer, complete and correct; streamed word by word, ``pause`` seconds apart."""

    text: str
    finish_reason: str = "stop"
    prompt_tokens: int = 11
    completion_tokens: int = 7
    pause: float = 0.0

    def send(self, exchange: Exchange) -> None:
        """Answer as asked, plain or streamed."""
        if not exchange.streamed:
            exchange.respond(200, json.dumps(self._whole()).encode())
            return
        exchange.start_events()
        for data in self.events():
            exchange.write(data)
            time.sleep(self.pause)

    def events(self) -> Iterator[bytes]:
        """Yield the events of the streamed answer."""
        for piece in re.findall(r"\s*\S+\s*|\s+", self.text):
            yield _event({"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]})
        yield _event({"choices": [{"index": 0, "delta": {}, "finish_reason": self.finish_reason}]})
        yield _event({"choices": [], "usage": self._usage()})
        yield b"data: [DONE]\n\n"

    def _usage(self) -> dict[str, int]:
        total = self.prompt_tokens + self.completion_tokens
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": total,
        }

    def _whole(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": self.text}
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        return {
            "id": "fake",
            "object": "chat.completion",
            "created": 0,
            "model": "fake",
            "choices": [choice],
            "usage": self._usage(),
        }


@dataclass(frozen=True)
class Failure:
    """An error status in OpenAI's shape."""

    status: int
    message: str = "scripted failure"
    headers: Mapping[str, str] = field(default_factory=dict)
    code: str | None = None

    def send(self, exchange: Exchange) -> None:
        """Answer with the status."""
        body = {"error": {"message": self.message, "type": "scripted", "code": self.code}}
        exchange.respond(self.status, json.dumps(body).encode(), headers=self.headers)


@dataclass(frozen=True)
class Page:
    """A web page with status 200, as a wrong URL or a login wall gives."""

    html: str = "<!doctype html><title>Sign in</title>"
    content_type: str = "text/html"

    def send(self, exchange: Exchange) -> None:
        """Answer with the page."""
        exchange.respond(200, self.html.encode(), content_type=self.content_type)


@dataclass(frozen=True)
class Truncated:
    """An answer whose connection closes in order, but after ``events`` events or half of the body."""

    text: str
    events: int = 2

    def send(self, exchange: Exchange) -> None:
        """Answer in part."""
        reply = Reply(self.text)
        if exchange.streamed:
            exchange.start_events()
            for data in list(reply.events())[: self.events]:
                exchange.write(data)
        else:
            whole = json.dumps({"choices": [{"message": {"content": self.text}}]}).encode()
            exchange.respond(200, whole[: len(whole) // 2], declared=len(whole))


@dataclass(frozen=True)
class Malformed:
    """A stream, or a body, that is not the protocol."""

    data: bytes = b'data: {"choices": [{"delta": {"conte\n\n'

    def send(self, exchange: Exchange) -> None:
        """Answer with the bytes."""
        if exchange.streamed:
            exchange.start_events()
            exchange.write(self.data)
        else:
            exchange.respond(200, self.data)


@dataclass(frozen=True)
class Stall:
    """Silence for ``seconds``: before the headers, or after ``events`` events of a streamed answer."""

    seconds: float
    text: str = ""
    events: int = 0

    def send(self, exchange: Exchange) -> None:
        """Wait, then close without finishing."""
        if exchange.streamed and self.events:
            exchange.start_events()
            for data in list(Reply(self.text).events())[: self.events]:
                exchange.write(data)
        exchange.sleep(self.seconds)


@dataclass(frozen=True)
class Drip:
    """An endless answer, one byte every ``pause`` seconds; from the headers on if ``headers``."""

    pause: float
    headers: bool = False

    def send(self, exchange: Exchange) -> None:
        """Answer until the client or the fake goes away."""
        if not self.headers:
            exchange.start(200, {"Content-Type": "text/event-stream"})
        else:
            exchange.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while exchange.sleep(self.pause):
            exchange.write(b"x")


@dataclass(frozen=True)
class Reset:
    """A connection reset: at once, or after ``events`` events of a streamed answer."""

    text: str = ""
    events: int = 0

    def send(self, exchange: Exchange) -> None:
        """Reset the connection."""
        if exchange.streamed and self.events:
            exchange.start_events()
            for data in list(Reply(self.text).events())[: self.events]:
                exchange.write(data)
            time.sleep(0.05)
        exchange.reset()


class Exchange:
    """One request that a scripted item answers."""

    def __init__(self, handler: BaseHTTPRequestHandler, asked: Asked, closing: threading.Event) -> None:
        self._handler = handler
        self._closing = closing
        self.asked = asked
        self.streamed = bool(asked.body.get("stream"))

    def respond(
        self,
        status: int,
        body: bytes,
        *,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        declared: int | None = None,
    ) -> None:
        """Send a whole response; ``declared`` is a Content-Length that is not the body's."""
        length = len(body) if declared is None else declared
        self.start(status, {"Content-Type": content_type, "Content-Length": str(length), **(headers or {})})
        self.write(body)

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Send a status and headers."""
        self._handler.send_response(status)
        for name, value in {"Connection": "close", **headers}.items():
            self._handler.send_header(name, value)
        self._handler.end_headers()

    def start_events(self) -> None:
        """Start a stream of events whose end is the end of the connection."""
        self.start(200, {"Content-Type": "text/event-stream", "Cache-Control": "no-store"})

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self._handler.wfile.write(data)
        self._handler.wfile.flush()

    def sleep(self, seconds: float) -> bool:
        """Wait; return False as soon as the fake is closed."""
        return not self._closing.wait(seconds)

    def reset(self) -> None:
        """Close so that the client sees a reset instead of an end."""
        linger = struct.pack("ii", 1, 0)
        self._handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._handler.connection.close()


class FakeLanguageModel:
    """Serves scripted replies in order, then what ``respond`` makes of the conversation.

    A context manager; ``url`` is the base URL for a client. With ``key`` it answers 401 to any other.
    Asking for more than was queued, without ``respond``, gets status 500 that says so.
    """

    def __init__(
        self,
        *replies: str | Scripted,
        respond: Callable[[list[dict[str, str]]], str] | None = None,
        key: str | None = None,
        port: int = 0,
    ) -> None:
        self.history: list[Asked] = []
        self._queue: deque[Scripted] = deque()
        self._respond = respond
        self._key = key
        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self.queue(*replies)

    @property
    def url(self) -> str:
        """Return the base URL, ending in ``/v1``."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def queue(self, *replies: str | Scripted) -> None:
        """Append replies and failures; a string is a Reply."""
        self._queue.extend(Reply(item) if isinstance(item, str) else item for item in replies)

    def __enter__(self) -> FakeLanguageModel:
        """Start answering in threads of its own."""
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop answering, also what is stalled."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def _next(self, asked: Asked) -> Scripted:
        if self._key is not None and asked.headers.get("Authorization") != f"Bearer {self._key}":
            return Failure(401, "no or wrong key")
        if asked.path != "/v1/chat/completions":
            return Failure(404, f"nothing is served at {asked.path}")
        try:
            return self._queue.popleft()
        except IndexError:
            if self._respond is None:
                return Failure(500, "the fake language model has no reply left in its queue")
            return Reply(self._respond(asked.messages))

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                asked = Asked(self.path, dict(self.headers.items()), json.loads(content))
                fake.history.append(asked)
                self.close_connection = True
                try:
                    fake._next(asked).send(Exchange(self, asked, fake._closing))
                except OSError:
                    self.log_error("the client went away")

            def log_message(self, format: str, *args: Any) -> None:
                """Requests are in the history."""

        return Handler


def _event(data: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps({"id": "fake", "model": "fake", **data}).encode() + b"\n\n"
