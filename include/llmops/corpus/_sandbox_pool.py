"""The loop that keeps jailed workers busy, and takes what each makes of its calls."""

from __future__ import annotations

import logging
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any, get_args

from llmops.corpus._jail import Limits
from llmops.corpus._problems import Problem, Unreadable
from llmops.corpus._sandbox_frames import EXIT_MEMORY, BrokenFrame, Frames
from llmops.corpus._sandbox_nursery import Ending, Nursery, NurseryGone
from llmops.errors import StackError

__all__ = ["Pool", "Ticket", "unreadable"]

log = logging.getLogger(__name__)

_MOST_QUEUED, _MOST_QUEUED_BYTES = 8, 256 << 10  # sent to a worker ahead of its answers
_CHUNK = 1 << 20
_STARTING_SECONDS = 60.0
_MOST_RESTARTS = 3
_AGAIN: frozenset[Problem] = frozenset({"memory", "crashed"})


class Ticket:
    """One call: its frame until there is an outcome, a value or the reason why there is none."""

    def __init__(self, frame: bytes) -> None:
        self.frame = frame
        self.size = len(frame)
        self.done = False
        self.outcome: Any = None

    def finish(self, outcome: Any, size: int = 0) -> None:
        """Keep the outcome, which has ``size`` bytes, and let the frame go."""
        self.frame, self.size, self.done, self.outcome = b"", size, True, outcome


class _Worker:
    """A jailed process: the calls it was sent, in their order, and what is still to be sent."""

    def __init__(self, process: int, pipe: socket.socket, limits: Limits, now: float) -> None:
        pipe.setblocking(False)
        self.process, self.pipe, self.since = process, pipe, now
        self.frames = Frames(limits.output_bytes)
        self.queue: deque[Ticket] = deque()
        self.unsent: deque[memoryview] = deque()
        self.ready = self.alone = self.worn = False
        self.answered = 0

    @property
    def open(self) -> bool:
        """Return whether it can be sent one more call."""
        if self.alone or self.worn:
            return False
        waiting = sum(ticket.size for ticket in self.queue)
        return len(self.queue) < _MOST_QUEUED and waiting < _MOST_QUEUED_BYTES

    def give(self, ticket: Ticket, now: float) -> None:
        """Put a call at the end of the queue and send what the pipe takes."""
        if not self.queue and self.ready:
            self.since = now
        self.queue.append(ticket)
        self.unsent.append(memoryview(ticket.frame))
        self.send()

    def send(self) -> None:
        """Send what the pipe takes now."""
        while self.unsent:
            try:
                sent = self.pipe.send(self.unsent[0])
            except BlockingIOError:
                return
            except OSError:  # It ended, which reading from it tells.
                self.unsent.clear()
                return
            rest = self.unsent.popleft()[sent:]
            if rest:
                self.unsent.appendleft(rest)


class Pool:
    """Up to ``workers`` jailed processes; ``step`` moves everything on, and nothing moves in between.

    ``accept`` is asked with the missing protections of each new worker, and raises where that must not be.
    A call that ends its worker there, after other calls, is made once more in a fresh one: only what happens
    there is its own doing.
    """

    def __init__(
        self, workers: int, limits: Limits, accept: Callable[[list[str]], None], tasks: str | None = None
    ) -> None:
        self._most, self._limits, self._accept, self._tasks = workers, limits, accept, tasks
        self._pending: deque[Ticket] = deque()
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self._restarts, self._clock, self._entered = 0, 0.0, 0.0
        self._nursery: Nursery | None = Nursery(limits, tasks)

    def submit(self, frame: bytes) -> Ticket:
        """Return the ticket of a new call."""
        ticket = Ticket(frame)
        self._pending.append(ticket)
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Do not make a call, unless it has been sent already."""
        if ticket in self._pending:
            self._pending.remove(ticket)

    def close(self) -> None:
        """End all processes; calls without an outcome will have none."""
        nursery, self._nursery = self._nursery, None
        for worker in self._workers:
            worker.pipe.close()
        self._workers.clear()
        self._selector.close()
        if nursery is not None:
            nursery.close()

    def step(self, *, wait: bool = True) -> None:
        """Send calls, take answers, end what is over its limit; ``wait`` for something to happen."""
        self._running()
        self._entered = time.monotonic()
        try:
            self._assign()
            self._exchange(self._patience() if wait else 0.0)
            self._expire()
        except NurseryGone:
            self._restart()
        finally:
            # Only time in here counts against a call: elsewhere nobody takes its answer.
            self._clock, self._entered = self._now(), 0.0

    def _now(self) -> float:
        return self._clock + (time.monotonic() - self._entered)

    def _assign(self) -> None:
        """Give calls that wait to the workers with the fewest, or to new ones."""
        while self._pending:
            open_ones = [worker for worker in self._workers if worker.open]
            best = min(open_ones, key=lambda worker: len(worker.queue), default=None)
            if (best is None or best.queue) and len(self._workers) < self._most:
                best = self._fork()
            if best is None:
                return
            best.give(self._pending.popleft(), self._now())

    def _fork(self) -> _Worker:
        process, pipe = self._running().fork()
        worker = _Worker(process, pipe, self._limits, self._now())
        self._workers.append(worker)
        self._selector.register(pipe, selectors.EVENT_READ, worker)
        return worker

    def _patience(self) -> float:
        ends = [self._deadline(worker) for worker in self._workers if worker.queue or not worker.ready]
        return max(0.0, min(ends, default=self._now()) - self._now())

    def _deadline(self, worker: _Worker) -> float:
        return worker.since + (self._limits.wall_seconds if worker.ready else _STARTING_SECONDS)

    def _exchange(self, patience: float) -> None:
        for worker in self._workers:
            both = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.unsent else 0)
            if self._selector.get_key(worker.pipe).events != both:
                self._selector.modify(worker.pipe, both, worker)
        for key, events in self._selector.select(patience):
            if events & selectors.EVENT_WRITE:
                key.data.send()
            if events & selectors.EVENT_READ:
                self._read(key.data)

    def _read(self, worker: _Worker) -> None:
        """Take what a worker says; whoever says what no worker of ours says is ended."""
        try:
            data = worker.pipe.recv(_CHUNK)
        except ConnectionResetError:
            data = b""
        try:
            for message, size in worker.frames.feed(data):
                if not self._heard(worker, message, size):
                    return
        except BrokenFrame:
            self._bury(worker, "crashed")
        else:
            if not data:
                self._bury(worker, None, patience=1.0)
            elif worker.worn and not worker.queue:
                self._release(worker)

    def _heard(self, worker: _Worker, message: Any, size: int) -> bool:
        """Take one message of a worker; return whether the worker goes on."""
        if not worker.ready:
            self._accept(message["missing"])
            worker.ready, worker.since = True, self._now()
            return True
        if message == {"worn": True}:
            worker.worn = True
            return True
        outcome = self._outcome(message)
        if not worker.queue or isinstance(outcome, str):
            self._bury(worker, "memory" if outcome == "memory" else "crashed")
            return False
        worker.queue.popleft().finish(outcome[0], size)
        worker.answered += 1
        worker.alone, worker.since = False, self._now()
        return True

    def _outcome(self, message: Any) -> tuple[Any] | str:
        """Return what a call came to, or the class of failure that ends its worker."""
        match message:
            case {"value": value, **more} if not more:
                return (value,)
            case {"reason": str(reason), "problem": str(problem)} if problem in get_args(Problem):
                return (Unreadable(reason[:2000], problem),)  # type: ignore[arg-type]
            case {"failed": "too_large"}:
                return (unreadable("too_large", self._limits),)
            case {"failed": "unreadable", "type": str(name)}:
                return (unreadable("unreadable", self._limits, name[:100]),)
            case {"failed": "memory"}:
                return "memory"
        return "crashed"

    def _expire(self) -> None:
        for worker in [worker for worker in self._workers if self._now() >= self._deadline(worker)]:
            if not worker.ready:
                raise StackError(
                    f"a worker of the sandbox was not ready within {_STARTING_SECONDS:g} s: try again"
                )
            if worker.queue:
                self._bury(worker, "timeout")

    def _bury(self, worker: _Worker, problem: Problem | None, patience: float = 0.0) -> None:
        """Take a worker away with the call it was at; the calls behind that one go to others."""
        ending = self._release(worker, patience)
        if not worker.ready:
            raise StackError(
                f"a worker of the sandbox ended before it was ready (exit status {ending.status}): see what it "
                "wrote to the log"
            )
        if not worker.queue:
            return
        found = problem or self._cause(ending)
        ticket = worker.queue.popleft()
        self._pending.extendleft(reversed(worker.queue))
        log.info("A sandboxed call ended its worker: %s (exit status %s)", found, ending.status)
        if worker.answered and found in _AGAIN:
            self._pending.appendleft(ticket)
            fresh = self._fork()
            fresh.give(self._pending.popleft(), self._now())
            fresh.alone = True
        else:
            ticket.finish(unreadable(found, self._limits))

    def _release(self, worker: _Worker, patience: float = 0.0) -> Ending:
        ending = self._running().end(worker.process, patience)
        self._workers.remove(worker)
        self._selector.unregister(worker.pipe)
        worker.pipe.close()
        return ending

    def _cause(self, ending: Ending) -> Problem:
        if ending.status in (-signal.SIGPROF, -signal.SIGXCPU):
            return "timeout"
        # Whoever ends one of our workers by SIGKILL is the kernel, for want of memory.
        if ending.status in (EXIT_MEMORY, -signal.SIGKILL) or ending.growth > self._limits.memory_bytes * 0.9:
            return "memory"
        return "crashed"

    def _restart(self) -> None:
        """Start again with a new nursery: the old one, and so its workers, are gone."""
        self._restarts += 1
        if self._restarts > _MOST_RESTARTS:
            raise StackError(
                f"the process that starts sandboxed workers ended {self._restarts} times: see what it wrote to "
                "the log, and whether the machine has memory left"
            )
        log.warning("The process that starts sandboxed workers ended: starting it again")
        for worker in self._workers:
            self._selector.unregister(worker.pipe)
            worker.pipe.close()
            self._pending.extendleft(reversed(worker.queue))
        self._workers.clear()
        if self._nursery is not None:
            self._nursery.close()
        self._nursery = Nursery(self._limits, self._tasks)

    def _running(self) -> Nursery:
        if self._nursery is None:
            raise StackError(
                "the sandbox is closed: use it, and what its `map` yields, inside its `with` block"
            )
        return self._nursery


def unreadable(problem: Problem, limits: Limits, kind: str = "") -> Unreadable:
    """Return the reason for a call that ended without one; ``kind`` is the type of what it raised."""
    return Unreadable(_message(problem, limits, kind), problem)


def _message(problem: Problem, limits: Limits, kind: str) -> str:
    """Say what happened without what differs from run to run, such as a signal, a time or an address."""
    match problem:
        case "timeout":
            within = f"{limits.cpu_seconds} s of computing, or {limits.wall_seconds:g} s in all"
            return f"reading it did not end within {within}: split it, or exclude it"
        case "memory":
            return f"reading it takes more than {limits.memory_bytes >> 20:,} MiB of memory: split it, or exclude it"
        case "too_large":
            return (
                f"what is read from it has more than {limits.output_bytes:,} bytes: split it, or exclude it"
            )
        case "unreadable":
            return f"its reader failed on it ({kind}): repair it, or save it in another format"
    return "its reader crashed on it: it is damaged, or made to do damage; repair it, or exclude it"
