"""Small HTTP servers on loopback that stand in for a service."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeService(BaseHTTPRequestHandler):
    """A handler that says nothing on the terminal; a test gives it ``do_GET`` or ``do_POST``."""

    def body(self) -> bytes:
        """Return the request's body."""
        return self.rfile.read(int(self.headers["Content-Length"]))

    def reply(self, status: int, body: bytes = b"") -> None:
        """Answer with a status and a body."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@contextmanager
def listening(handler: type[FakeService]) -> Iterator[str]:
    """Serve on a free port and yield the URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
