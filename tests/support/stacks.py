"""Looking at the processes of a stack from outside."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil

from llmops.stack import Stack

DAGS = Path(__file__).parent.parent / "stack" / "dags"


def leftovers(stack: Stack) -> list[str]:
    """Return the living processes that work for a stack, found without the stack's own records."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd", "status"]):
        about = [*(process.info["cmdline"] or []), process.info["cwd"] or ""]
        alive = process.info["status"] != psutil.STATUS_ZOMBIE
        if alive and any(str(stack.home) in part for part in about):
            found.append(f"{process.pid} {' '.join(about)}")
    return found


def process_of(stack: Stack, name: str) -> psutil.Process:
    """Return the first process of a row of the table."""
    leader = next(state.leader for state in stack.status() if state.name == name)
    assert leader is not None
    return psutil.Process(leader.pid)


def wait_until(condition: Callable[[], bool], seconds: float = 90) -> None:
    """Wait until ``condition`` holds; fail when it does not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
