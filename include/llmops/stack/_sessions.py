"""Ending whole sessions: a process and everything it started, also what changed its process group."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass

import psutil

__all__ = ["Leader", "end_session", "marked_leaders", "members"]


@dataclass(frozen=True)
class Leader:
    """The first process of a session; the start time tells it from a later process with its number."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> Leader:
        """Return the identity of a running process."""
        return cls(pid, psutil.Process(pid).create_time())

    def alive(self) -> bool:
        """Tell whether exactly this process still runs."""
        try:
            process = psutil.Process(self.pid)
            return process.create_time() == self.started and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def members(leader: Leader) -> list[psutil.Process]:
    """Return the living processes of the session, none if its number was taken over by another one."""
    with contextlib.suppress(psutil.NoSuchProcess):
        if psutil.Process(leader.pid).create_time() != leader.started:
            return []
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            same = os.getsid(process.pid) == leader.pid and process.create_time() >= leader.started
            if same and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end_session(leader: Leader, *, first: signal.Signals = signal.SIGTERM, grace_seconds: float = 10) -> int:
    """End every process of the session: a signal to its leader, a wait, then KILL to all that are left.

    Returns the number of processes that had to be killed.
    """
    if leader.alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(leader.pid, first)
        psutil.wait_procs(members(leader), timeout=grace_seconds)
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
                found.append(Leader(process.pid, process.create_time()))
    return found
