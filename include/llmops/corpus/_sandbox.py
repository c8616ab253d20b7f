"""Read untrusted bytes in jailed processes: a hostile file ends as a reason, and nothing else notices."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from llmops.corpus._jail import FILE_RULES, SYSCALL_FILTER, Limits, supported
from llmops.corpus._problems import Unreadable
from llmops.corpus._sandbox_frames import pack
from llmops.corpus._sandbox_pool import Pool, Ticket, unreadable
from llmops.corpus._sandbox_tasks import TASKS, result_type
from llmops.errors import ConfigurationError
from llmops.settings import environ

__all__ = ["Limits", "Sandbox"]

log = logging.getLogger(__name__)

K = TypeVar("K")
Argument = str | bytes | int | float | bool | None | dict[str, Any] | list[Any]

_JOBS_AHEAD = 16  # per worker: pulled, and not yet given back
_BYTES_AHEAD = 128 << 20
_DEFAULT = Limits()
_warned: set[str] = set()


class Sandbox:
    """A pool of jailed processes that read untrusted bytes; a context manager that leaves none behind.

    ``workers`` is how many run at once, by default one per core this process may use. ``limits`` hold for each
    call. Threads may share it; they take turns. Raises ConfigurationError on a machine that cannot jail a
    process, unless ``LLMOPS_SANDBOX=limits-only`` allows limits of time and memory alone.
    """

    def __init__(
        self, *, workers: int | None = None, limits: Limits = _DEFAULT, _tasks: str | None = None
    ) -> None:
        self._workers = workers or _cores()
        self._limits = limits
        self._tasks = _tasks  # A module with more TASKS; only tests name one.
        self._places = {**TASKS, **import_module(_tasks).TASKS} if _tasks else TASKS
        self._pool: Pool | None = None
        self._turn = threading.RLock()

    def __enter__(self) -> Self:
        """Start in the background: the parsers are loaded while the caller goes on."""
        self._started()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every process; calls that are not done have no outcome."""
        if self._pool is not None:
            self._pool.close()

    def call(self, task: str, *arguments: Argument) -> Any:
        """Return what a task of ``_sandbox_tasks`` makes of its arguments; raises Unreadable with a reason."""
        with self._turn:
            pool = self._started()
            ticket = self._submit(pool, task, arguments)
            while not ticket.done:
                pool.step()
        outcome = self._outcome(task, ticket)
        if isinstance(outcome, Unreadable):
            raise outcome
        return outcome

    def map(
        self, task: str, jobs: Iterable[tuple[K, tuple[Any, ...]]]
    ) -> Iterator[tuple[K, Any | Unreadable]]:
        """Yield each job's key and what the task makes of its arguments, in the order of the jobs.

        Jobs are pulled as there is room for them: a few per worker, and no more than some 128 MiB. A job that
        cannot be read yields its Unreadable, and no other job notices. What pulls jobs, and what takes
        results, may itself use the sandbox.
        """
        pool, source, more = self._started(), iter(jobs), True
        waiting: deque[tuple[K, Ticket]] = deque()
        try:
            while more or waiting:
                if more and self._room(waiting) and not (waiting and waiting[0][1].done):
                    job = next(source, None)
                    more = job is not None
                    if job is not None:
                        with self._turn:
                            waiting.append((job[0], self._submit(pool, task, job[1])))
                            pool.step(wait=False)
                    continue
                key, ticket = waiting[0]
                while not ticket.done:
                    with self._turn:
                        pool.step()
                waiting.popleft()
                yield key, self._outcome(task, ticket)
        finally:
            with self._turn:
                for _, ticket in waiting:
                    pool.cancel(ticket)

    def _started(self) -> Pool:
        if self._pool is None:
            allowed = _only_limits()
            if not supported() and not allowed:
                _refuse([SYSCALL_FILTER])
            self._pool = Pool(self._workers, self._limits, _accept, self._tasks)
        return self._pool

    def _room(self, waiting: deque[tuple[Any, Ticket]]) -> bool:
        held = sum(ticket.size for _, ticket in waiting)
        return len(waiting) < _JOBS_AHEAD * self._workers and held < _BYTES_AHEAD

    def _submit(self, pool: Pool, task: str, arguments: tuple[Any, ...]) -> Ticket:
        if task not in self._places:
            raise LookupError(f"the sandbox has no task {task!r}: there are {sorted(self._places)}")
        return pool.submit(pack([task, arguments]))

    def _outcome(self, task: str, ticket: Ticket) -> Any:
        """Return what a call came to as the type that its function names, or the Unreadable it ended with."""
        if isinstance(ticket.outcome, Unreadable):
            return ticket.outcome
        try:
            return _adapter(self._places[task]).validate_python(ticket.outcome)
        except ValidationError:  # No function of ours returns that: somebody else ran in there.
            return unreadable("crashed", self._limits)


@cache
def _adapter(place: str) -> TypeAdapter[Any]:
    return TypeAdapter(result_type(place))


def _cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _accept(missing: list[str]) -> None:
    """Refuse a worker that lacks a protection, or say once what it lacks where that is allowed."""
    if not missing:
        return
    if missing != [FILE_RULES] and not _only_limits():
        _refuse(missing)
    if not _warned:
        _warned.update(missing)
        log.warning("Untrusted files are read without %s: %s", " and ".join(missing), _consequence(missing))


def _consequence(missing: list[str]) -> str:
    if missing == [FILE_RULES]:
        return "a reader can open no file at all, so one that needs to fails"
    return "LLMOPS_SANDBOX=limits-only allows it; what a hostile file can make its reader do is not contained"


def _refuse(missing: list[str]) -> NoReturn:
    raise ConfigurationError(
        f"this machine cannot jail what reads untrusted files, it lacks {' and '.join(missing)}: run on Linux "
        "(x86-64 or aarch64) in a container that permits seccomp, or set LLMOPS_SANDBOX=limits-only to do "
        "without, for trusted files alone"
    )


def _only_limits() -> bool:
    chosen = environ().get("LLMOPS_SANDBOX", "")
    if chosen not in ("", "limits-only"):
        raise ConfigurationError(
            f"LLMOPS_SANDBOX={chosen!r} is not known: unset it, or set it to limits-only"
        )
    return chosen == "limits-only"
