"""The parent's side of the process that forks jailed workers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import llmops
from llmops.corpus._jail import Limits
from llmops.settings import inherited

__all__ = ["Ending", "Nursery", "NurseryGone", "readable_paths"]

_START = (
    "import sys, json; given = json.loads(sys.stdin.readline()); sys.path[:] = given['path']; "
    "from llmops.corpus._sandbox_child import main; main(given)"
)
_PATIENCE = 60.0  # seconds for one answer of the nursery, of which its start is the longest
_BUFFER = 1 << 21
_KEPT = ("LD_LIBRARY_PATH",)  # what the interpreter may need to start; nothing else of ours is its business
_SYSTEM = (
    "/usr", "/lib", "/lib32", "/lib64", "/etc/fonts", "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types",
    "/dev/null", "/dev/random", "/dev/urandom", "/dev/zero",
)  # fmt: skip


class NurseryGone(Exception):
    """The process that forks workers ended, or does not answer."""


@dataclass(frozen=True)
class Ending:
    """How a worker ended: its exit status, minus a signal's number, None where it had to be killed.

    ``growth`` is how many bytes of memory more than at its start it had, at most.
    """

    status: int | None
    growth: int


class Nursery:
    """A clean process with the parsers loaded, started in the background; ``close`` ends it and its workers."""

    def __init__(self, limits: Limits, tasks: str | None = None) -> None:
        self._control, theirs = socket.socketpair()
        self._control.settimeout(_PATIENCE)
        self._ready = False
        root = str(Path(llmops.__file__).resolve().parent.parent)
        # Not from the environment or the working folder: exactly the folders this process imports from.
        path = [root, *(entry for entry in sys.path if os.path.isabs(entry) and entry != root)]
        bytecode = ["-B"] if sys.dont_write_bytecode else []
        environment = {name: value for name, value in inherited().items() if name in _KEPT}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", *bytecode, "-X", "utf8", "-c", _START],
                stdin=theirs.fileno(), stdout=subprocess.DEVNULL, cwd="/", start_new_session=True,
                env={**environment, "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TZ": "UTC"}
                # Threads of a numeric library that are there before the fork are gone after it.
                | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )  # fmt: skip
        given = {"parent": os.getpid(), "path": path, "limits": asdict(limits), "tasks": tasks}
        with suppress(NurseryGone):  # Its first answer, or none, tells.
            self._say({**given, "readable": readable_paths(path)})

    def fork(self) -> tuple[int, socket.socket]:
        """Return a new worker's process and the socket to it."""
        if not self._ready:
            self._hear()
            self._ready = True
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(
                socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER
            )  # Most files go through in one piece.
        try:
            with theirs:
                self._say({"do": "fork"}, theirs.fileno())
            return int(self._hear()["pid"]), ours
        except BaseException:
            ours.close()
            raise

    def end(self, worker: int, patience: float) -> Ending:
        """Return how a worker ended; it is killed when it has not within ``patience`` seconds."""
        self._say({"do": "end", "pid": worker, "patience": patience})
        return Ending(**self._hear())

    def close(self) -> None:
        """End the process and all its workers."""
        self._control.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()  # Its workers die with it.
            self._process.wait()

    def _say(self, message: dict[str, Any], descriptor: int | None = None) -> None:
        line = json.dumps(message).encode() + b"\n"
        try:
            if descriptor is None:
                self._control.sendall(line)
            else:
                socket.send_fds(self._control, [line], [descriptor])
        except OSError as error:
            raise NurseryGone from error

    def _hear(self) -> dict[str, Any]:
        line = b""
        while not line.endswith(b"\n"):
            try:
                data = self._control.recv(4096)
            except OSError as error:
                raise NurseryGone from error
            if not data:
                raise NurseryGone
            line += data
        message: dict[str, Any] = json.loads(line)
        return message


def readable_paths(path: Sequence[str]) -> list[str]:
    """Return what a worker may read: the interpreter, installed packages, this package, the system's libraries.

    Of ``path``, where this process imports from, only folders of installed packages are: others may be a
    person's home. What was imported from those before the jail closed stays usable.
    """
    named = sysconfig.get_paths()
    places = [named[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    places += [os.path.join(prefix, "lib") for prefix in (sys.base_prefix, sys.base_exec_prefix)]
    places += [entry for entry in path if os.path.basename(entry) in ("site-packages", "dist-packages")]
    places.append(str(Path(llmops.__file__).resolve().parent))
    return sorted({*places, *_SYSTEM})
