"""An HTTP transport whose timeout counts down over a whole exchange.

The timeouts of httpx start again with every read, so a server that sends one byte a second holds its
client for ever, in the body as in the headers. Here the timeout of a request is a ``Countdown``, and
every connect, read and write under it gets only what is left.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Iterable, Iterator

import httpcore
import httpx

__all__ = ["Countdown", "CountdownTransport"]

_SocketOptions = Iterable[
    tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
]


class Countdown(float):
    """Seconds until a deadline, fixed when made; ``longest_wait`` bounds each single wait under it."""

    ends: float
    longest_wait: float

    def __new__(cls, seconds: float, longest_wait: float = float("inf")) -> Countdown:
        """Start counting down from ``seconds`` now."""
        countdown = super().__new__(cls, seconds)
        countdown.ends = time.monotonic() + seconds
        countdown.longest_wait = longest_wait
        return countdown

    def remaining(self) -> float:
        """Return the seconds left, negative once the deadline has passed."""
        return self.ends - time.monotonic()

    def extensions(self) -> dict[str, dict[str, float]]:
        """Return the httpx request extensions that put a request under this deadline."""
        return {
            "timeout": {"connect": self, "read": self, "write": self, "pool": max(self.remaining(), 0.001)}
        }


class CountdownTransport(httpx.BaseTransport):
    """Sends requests over pooled connections; direct, so proxies named in the environment are not used."""

    def __init__(self, connections: int) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=30,
            network_backend=_Backend(httpcore.SyncBackend()),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request and return its response as soon as the headers are there."""
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        with _httpx_errors():
            response = self._pool.handle_request(
                httpcore.Request(
                    method=request.method,
                    url=url,
                    headers=request.headers.raw,
                    content=request.read(),
                    extensions=dict(request.extensions),
                )
            )
        return httpx.Response(response.status, headers=response.headers, stream=_Body(response))

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        with _httpx_errors():
            yield from self._response.iter_stream()

    def close(self) -> None:
        self._response.close()


@contextlib.contextmanager
def _httpx_errors() -> Iterator[None]:
    try:
        yield
    except (httpcore.ConnectTimeout, httpcore.ConnectError) as error:
        raise httpx.ConnectError(str(error)) from error
    except httpcore.TimeoutException as error:
        raise httpx.ReadTimeout(str(error)) from error
    except httpcore.RemoteProtocolError as error:
        raise httpx.RemoteProtocolError(str(error)) from error
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
        raise httpx.TransportError(str(error)) from error


class _Backend(httpcore.NetworkBackend):
    def __init__(self, backend: httpcore.NetworkBackend) -> None:
        self._backend = backend

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: _SocketOptions | None = None,
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._backend.connect_tcp(host, port, left, local_address, socket_options))


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


def _left(timeout: float | None, expired: type[httpcore.TimeoutException]) -> float | None:
    """Return what a single wait may take; raise when the countdown of its request is over."""
    if not isinstance(timeout, Countdown):
        return timeout
    left = min(timeout.remaining(), timeout.longest_wait)
    if left <= 0:
        raise expired("the deadline of the request has passed")
    return left
