"""Ports on loopback: the wished one, or another when that one is taken."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import tempfile
from pathlib import Path

from llmops.errors import StackError

__all__ = ["PortHolder"]

_NEIGHBOURS = 50


class PortHolder:
    """Keeps ports for one stack, also while their processes start or restart.

    A lock file per port, released with this process, keeps two stacks of one user from choosing the
    same port before either of them listens.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.gettempdir()) / f"llmops-ports-{os.geteuid()}"
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._held: list[int] = []

    def claim(self, wished: int) -> int:
        """Return ``wished``, or the next free port above it, or any free port; 0 wishes for any."""
        if not 0 <= wished < 65536:
            raise StackError(f"port {wished!r} is not a port: choose 1 to 65535, or 0 for any free one")
        near = range(wished, min(wished + _NEIGHBOURS, 65536)) if wished else ()
        for port in near:
            if self._take(port):
                return port
        for _ in range(_NEIGHBOURS):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = int(probe.getsockname()[1])
            if self._take(port):
                return port
        raise StackError("no free port on 127.0.0.1: end some of the servers that run there")

    def _take(self, port: int) -> bool:
        descriptor = os.open(self._folder / f"{port}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _can_listen(port):
                self._held.append(descriptor)
                return True
        os.close(descriptor)
        return False


def _can_listen(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True
