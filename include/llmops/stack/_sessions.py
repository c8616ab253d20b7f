"""Ending whole sessions: a process and everything it started, also what changed its process group."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["Leader", "end_session", "machine", "marked_leaders", "members"]

_SAME = 1.0
_ORPHANS_GRACE = 1.0


@dataclass(frozen=True)
class Leader:
    """The first process of a session.

    ``started`` tells it from a later process with its number, in seconds since the machine started: the
    time of day may be set while processes run.
    """

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> Leader:
        """Return the identity of a running process."""
        return cls(pid, _started(psutil.Process(pid)))

    def alive(self) -> bool:
        """Tell whether exactly this process still runs."""
        try:
            process = psutil.Process(self.pid)
            return self.is_process(process) and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def is_process(self, process: psutil.Process) -> bool:
        """Tell whether ``process`` is this one, not a later one with its number."""
        return process.pid == self.pid and abs(_started(process) - self.started) < _SAME


def members(leader: Leader) -> list[psutil.Process]:
    """Return the living processes of the session, none if its number was taken over by another one."""
    with contextlib.suppress(psutil.NoSuchProcess):
        if not leader.is_process(psutil.Process(leader.pid)):
            return []
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            same = os.getsid(process.pid) == leader.pid and _started(process) > leader.started - _SAME
            if same and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end_session(leader: Leader, *, first: signal.Signals = signal.SIGTERM, grace_seconds: float = 10) -> int:
    """End every process of the session: a signal to its leader, a wait, then KILL to all that are left.

    Returns the number of processes that had to be killed.
    """
    if leader.alive():
        with contextlib.suppress(psutil.NoSuchProcess):
            head = psutil.Process(leader.pid)
            head.send_signal(first)
            psutil.wait_procs([head], timeout=grace_seconds)
        psutil.wait_procs(members(leader), timeout=_ORPHANS_GRACE)
    killed = 0
    while left := members(leader):
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                killed += 1
        psutil.wait_procs(left, timeout=5)
    return killed


def marked_leaders(variable: str, value: str) -> list[Leader]:
    """Return the session leaders that were started with ``variable`` set to ``value``."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.Error):
            if os.getsid(process.pid) == process.pid and process.environ().get(variable) == value:
                found.append(Leader(process.pid, _started(process)))
    return found


def machine() -> str:
    """Return a text that changes when the machine or the container starts anew."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    name = boot.read_text().strip() if boot.exists() else ""
    return f"{name}/{_started(psutil.Process(1)):.0f}"


def _started(process: psutil.Process) -> float:
    return process.create_time() - psutil.boot_time()
