"""Connections to checked addresses only: a name cannot lead into a network that a website has no business in."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable
from typing import Any

import httpcore

__all__ = ["AddressRefused", "Deadline", "GuardedBackend", "forbidden", "resolve"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NEVER = [
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",  # this host
        "169.254.0.0/16",  # link-local: what clouds tell their machines, credentials among it
        "100.100.100.200/32",  # the same, of Alibaba Cloud
        "168.63.129.16/32",  # the same, of Azure
        "192.0.0.192/32",  # the same, of Oracle Cloud
        "fd00:ec2::/32",  # the same, of AWS
        "fd20:ce::/32",  # the same, of Google Cloud
        "fe80::/10",
        "fec0::/10",
        "::/128",
    )
]
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")


class AddressRefused(Exception):
    """A host whose address must not be connected to."""


class Deadline:
    """When a request must be over; None while there is none."""

    def __init__(self) -> None:
        self.at: float | None = None

    def left(self, timeout: float | None) -> float | None:
        """Return the shorter of a timeout and what is left; raise ReadTimeout when nothing is."""
        if self.at is None:
            return timeout
        left = self.at - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("it was not over in time")
        return left if timeout is None else min(timeout, left)


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host; raises OSError when it has none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def forbidden(text: str, *, allow_private: bool) -> str | None:
    """Return why an address must not be connected to, None when it may be.

    ``allow_private`` opens private networks and this machine itself, never link-local addresses, nor what is no
    address of one host.
    """
    address = _embedded(ipaddress.ip_address(text.partition("%")[0]))
    if any(address.version == network.version and address in network for network in _NEVER):
        return "link-local or otherwise never a website's"
    if address.is_multicast:
        return "multicast"
    if address.is_loopback or address.is_private or (address.version == 4 and not address.is_global):
        kind = "loopback" if address.is_loopback else "reserved" if address.is_reserved else "private"
        return None if allow_private and kind != "reserved" else kind
    if address.is_reserved or not address.is_global:
        return "reserved"
    return None


def _embedded(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, or the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64 or address in _LOCAL_NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address.teredo is not None:
        return address.teredo[1]
    if int(address) >> 32 == 0 and int(address) > 1:  # ::a.b.c.d, long out of use
        return ipaddress.IPv4Address(int(address))
    return address.ipv4_mapped or address.sixtofour or address


class GuardedBackend(httpcore.NetworkBackend):
    """Connects to the very address that was checked, so that a second look-up cannot give another.

    Everything that is read and written is over by ``deadline``.
    """

    def __init__(self, deadline: Deadline, *, allow_private: bool) -> None:
        self._deadline, self._allow_private = deadline, allow_private
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to one of the host's addresses; raises AddressRefused when any of them is forbidden."""
        try:
            addresses = resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"the host {host!r} has no address: {error}") from error
        for address in addresses:
            if reason := forbidden(address, allow_private=self._allow_private):
                raise AddressRefused(f"{host!r} has the address {address}, which is {reason}")
        failure: Exception = httpcore.ConnectError(f"the host {host!r} has no address")
        for address in addresses:
            try:
                stream = self._inner.connect_tcp(
                    address, port, self._deadline.left(timeout), local_address, socket_options
                )
                return _TimedStream(stream, self._deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class _TimedStream(httpcore.NetworkStream):
    """A stream that is over by a deadline, however slowly the other side drips."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        inner = self._stream.start_tls(ssl_context, server_hostname, self._deadline.left(timeout))
        return _TimedStream(inner, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
