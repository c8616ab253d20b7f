"""A health endpoint for resident loops: ``GET /healthz`` says whether the loop still turns."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

__all__ = ["Heartbeat"]


class Heartbeat:
    """Answers 200 while the loop has beaten within ``limit_seconds``, 503 otherwise.

    Use it as a context manager around the loop, and call ``beat`` once per turn with what it did.
    """

    def __init__(self, host: str, port: int, *, limit_seconds: float = 60) -> None:
        self._limit = limit_seconds
        self._last = time.monotonic()
        self._details: dict[str, Any] = {}
        heartbeat = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = heartbeat._answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Health checks come every few seconds; they are not worth a log line."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True

    @property
    def port(self) -> int:
        """Return the port it listens on, also when 0 was asked for."""
        return int(self._server.server_address[1])

    def beat(self, **details: Any) -> None:
        """Say that the loop turned; ``details`` are shown by the endpoint."""
        self._last = time.monotonic()
        self._details = details

    def _answer(self, path: str) -> tuple[int, bytes]:
        if path != "/healthz":
            return 404, b'{"error": "only /healthz is served here"}'
        silent = time.monotonic() - self._last
        body = {"healthy": silent <= self._limit, "silent_seconds": round(silent, 1), **self._details}
        return (200 if body["healthy"] else 503), json.dumps(body).encode()

    def __enter__(self) -> Heartbeat:
        """Start answering in a thread of its own."""
        threading.Thread(target=self._server.serve_forever, name="heartbeat", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
