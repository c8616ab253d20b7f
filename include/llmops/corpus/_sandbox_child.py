"""The jailed side of the sandbox: a process that has the parsers loaded, and the workers it forks.

The process that forks (the nursery) never sees a byte of a document. It has one thread, speaks JSON lines
with the parent over its standard input, and ends with it. A worker speaks frames with the parent over a socket
of its own, closes its jail before the first of them, and reads one file after another.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import signal
import socket
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NoReturn

from llmops.corpus._jail import Limits, close_jail, die_with_parent
from llmops.corpus._problems import Unreadable
from llmops.corpus._sandbox_frames import EXIT_MEMORY, Frames, FrameTooLarge, pack
from llmops.corpus._sandbox_tasks import TASKS, function_of, preload

__all__ = ["main"]

_MOST_CALLS, _MOST_SECONDS, _MOST_GROWTH = 300, 60, 256 << 20  # what makes a worker worn
_CHUNK = 1 << 18
_PIPE = 3


@dataclass(frozen=True)
class _Setting:
    """What the nursery was started with."""

    limits: Limits
    readable: list[str]
    functions: dict[str, Callable[..., Any]]


def main(given: dict[str, Any]) -> NoReturn:
    """Load the parsers, say so, and fork a worker per request until the parent is gone.

    ``given`` holds ``parent`` (its process), ``limits``, ``readable`` and ``tasks``, the module of more tasks or
    None. A request is ``{"do": "fork"}`` with a socket beside it, answered with the worker's ``pid``; or
    ``{"do": "end", "pid", "patience"}``, answered with how it ended.
    """
    control = socket.socket(fileno=0)
    tasks = TASKS if given["tasks"] is None else {**TASKS, **import_module(given["tasks"]).TASKS}
    preload()
    functions = {name: function_of(place) for name, place in tasks.items()}
    setting = _Setting(Limits(**given["limits"]), given["readable"], functions)
    gc.collect()
    gc.freeze()  # Workers share these pages with the nursery as long as nobody writes to them.
    _say(control, {"ready": True})
    workers: set[int] = set()
    while (request := _hear(control, given["parent"])) is not None:
        message, descriptors = request
        if message["do"] == "fork":
            workers.add(pid := _fork(descriptors[0], setting))
            _say(control, {"pid": pid})
        else:
            workers.discard(message["pid"])
            _say(control, _end(message["pid"], message["patience"]))
    for pid in workers:
        _end(pid, 0)
    os._exit(0)


def _hear(control: socket.socket, parent: int) -> tuple[dict[str, Any], list[int]] | None:
    """Return the next request with what came beside it, None when the parent is gone."""
    while not select.select([control], [], [], 1.0)[0]:
        # A process that the parent started may hold the other end open after the parent died.
        if os.getppid() != parent:
            return None
    try:
        line, descriptors, _, _ = socket.recv_fds(control, 4096, 1)
    except ConnectionResetError:
        return None
    return (json.loads(line), descriptors) if line else None


def _say(control: socket.socket, message: dict[str, Any]) -> None:
    with suppress(BrokenPipeError):  # The parent is gone, which the next request, or none, tells.
        control.sendall(json.dumps(message).encode() + b"\n")


def _fork(pipe: int, setting: _Setting) -> int:
    nursery = os.getpid()
    pid = os.fork()
    if pid:
        os.close(pipe)
        return pid
    status = 1
    try:
        _work(pipe, nursery, setting)
        status = 0
    except MemoryError:
        status = EXIT_MEMORY
    except BaseException:  # noqa: BLE001 - the edge of this process: shown while there is where to, then it ends
        traceback.print_exc()
    finally:
        os._exit(status)


def _end(pid: int, patience: float) -> dict[str, Any]:
    """Wait for a worker that is ending, or end it; return its status and its growth in bytes."""
    until = time.monotonic() + patience
    found, status, usage = os.wait4(pid, os.WNOHANG)
    while not found and time.monotonic() < until:
        time.sleep(0.001)
        found, status, usage = os.wait4(pid, os.WNOHANG)
    if found:
        growth = (usage.ru_maxrss - resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024
        return {"status": os.waitstatus_to_exitcode(status), "growth": growth}
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return {"status": None, "growth": 0}


def _work(pipe: int, nursery: int, setting: _Setting) -> None:
    """Close the jail, tell the parent which of its protections are missing, and answer calls."""
    die_with_parent(nursery)
    _keep_only(pipe)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    missing = close_jail(setting.limits, setting.readable)
    os.dup2(0, 2)
    _write(pack({"missing": missing}))
    frames, calls, start = Frames(), 0, _peak()
    while data := os.read(_PIPE, _CHUNK):
        for (name, arguments), _ in frames.feed(data):
            answer = _answer(setting, name, arguments)
            calls += 1
            used = resource.getrusage(resource.RUSAGE_SELF)
            worn = calls >= _MOST_CALLS or used.ru_utime + used.ru_stime > _MOST_SECONDS
            if worn or _peak() - start > _MOST_GROWTH:
                answer += pack({"worn": True})
            _write(answer)


def _keep_only(pipe: int) -> None:
    """Leave no file open but the pipe and, until the jail is closed, the log."""
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.dup2(pipe, _PIPE)
    for descriptor in map(int, os.listdir("/dev/fd")):
        if descriptor > _PIPE:
            with suppress(OSError):  # The one that listed them is closed already.
                os.close(descriptor)


def _answer(setting: _Setting, name: str, arguments: list[Any]) -> bytes:
    """Return the outcome of one call as a frame: a value, a reason, or the class of a failure."""
    # The kernel counts the time of all threads and ends the process, in whatever code it is.
    signal.setitimer(signal.ITIMER_PROF, setting.limits.cpu_seconds)
    try:
        value = setting.functions[name](*arguments)
        return pack({"value": value}, setting.limits.output_bytes)
    except FrameTooLarge:
        return pack({"failed": "too_large"})
    except MemoryError:
        return pack({"failed": "memory"})
    except Unreadable as error:
        if _lacked_memory(error):
            return pack({"failed": "memory"})
        return pack({"reason": str(error), "problem": error.problem})
    except BaseException as error:  # noqa: BLE001 - the edge to parsers: on a hostile file they raise anything
        failed = "memory" if _lacked_memory(error) else "unreadable"
        return pack({"failed": failed, "type": type(error).__name__})
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _lacked_memory(error: BaseException | None) -> bool:
    """Return whether an error came of a MemoryError, which parsers turn into errors of their own."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _write(data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(_PIPE, rest) :]
