"""The background process that starts the table's processes and starts again what dies."""

from __future__ import annotations

import logging
import signal
import subprocess
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from llmops.stack._sessions import Leader, end_session
from llmops.stack._spawn import START_OF_LOG, spawn
from llmops.stack._state import State, StateFile
from llmops.stack.processes import Process

__all__ = ["Keeper", "Supervisor"]

log = logging.getLogger(__name__)

_LOOK = 0.25
_CHECK_EVERY = 10.0
_HUNG_AFTER = 180.0
_SETTLED_AFTER = 60.0
_LONGEST_PAUSE = 30.0
_LARGEST_LOG = 20 << 20


class Supervisor:
    """Runs a selection of the process table until ``stop``; one thread keeps each process."""

    def __init__(self, table: tuple[Process, ...], home: Path) -> None:
        self._home = home
        self._stopping = threading.Event()
        self._states = StateFile(home / "run" / "processes.json", {row.name: row.address for row in table})
        self._keepers = [Keeper(row, home, self._states, self._stopping) for row in table]

    def run(self) -> None:
        """Start everything, wait for a signal to end, stop everything."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: self._stopping.set())
        for keeper in self._keepers:
            keeper.thread.start()
        while not self._stopping.wait(1):
            pass
        log.info("Stopping %d processes", len(self._keepers))
        for keeper in self._keepers:
            keeper.thread.join()
        stores = [keeper for keeper in self._keepers if keeper.process.name == "postgres"]
        self._stop(keeper for keeper in self._keepers if keeper not in stores)
        self._stop(stores)
        log.info("Stopped")

    @staticmethod
    def _stop(keepers: Iterable[Keeper]) -> None:
        with ThreadPoolExecutor(max_workers=16) as pool:
            list(pool.map(lambda keeper: keeper.stop(), keepers))


class Keeper:
    """Keeps one process alive: start, wait for health, watch, and again when it ends."""

    def __init__(self, process: Process, home: Path, states: StateFile, stopping: threading.Event) -> None:
        self.process = process
        self.thread = threading.Thread(target=self._run, name=process.name, daemon=True)
        self._home = home
        self._states = states
        self._stopping = stopping
        self._leader: Leader | None = None

    def stop(self) -> None:
        """End the process and everything it started."""
        self._end()
        self._states.change(self.process.name, state=State.STOPPED, leader=None)

    def _run(self) -> None:
        failures = 0
        while self._states.wait_until_work(self.process.requires, self._stopping):
            began = time.monotonic()
            try:
                note = self._live()
            except Exception as error:
                log.exception("%s could not be kept", self.process.name)
                note = f"{type(error).__name__}: {error}"
            if self._stopping.is_set() or self._states[self.process.name].state is State.DONE:
                return
            self._end()
            failures = 0 if time.monotonic() - began > _SETTLED_AFTER else failures + 1
            log.warning("%s: %s; starting it again", self.process.name, note)
            self._states.change(
                self.process.name, state=State.RESTARTING, leader=None, failures=failures, note=note
            )
            self._stopping.wait(min(2.0 ** (failures - 1), _LONGEST_PAUSE) if failures > 1 else 0.2)

    def _live(self) -> str:
        """Run the process once; return how it ended."""
        row, name = self.process, self.process.name
        if row.skip and row.skip():
            self._states.change(name, state=State.DONE, seconds=0.0, note="nothing to do")
            return ""
        began = time.monotonic()
        self._states.change(name, state=State.STARTING, starts=self._states[name].starts + 1)
        if row.before:
            row.before()
        with self._open_log() as output:
            started = time.time()
            child = spawn(
                row.command,
                output,
                environment=row.environment,
                folder=row.folder or self._home,
                account=row.account,
            )
        self._leader = Leader.of(child.pid)
        self._states.change(name, leader=self._leader)
        if row.health is None:
            return self._finish_step(child, began)
        while not row.health.healthy(started):
            if self._stopping.wait(_LOOK) or child.poll() is not None:
                return _ending(child)
            if time.monotonic() - began > row.start_seconds:
                return f"did not become healthy within {row.start_seconds:.0f} s"
        seconds = round(time.monotonic() - began, 1)
        self._states.change(name, state=State.READY, seconds=seconds, failures=0, note="")
        log.info("%s is ready after %.1f s", name, seconds)
        return self._watch(child, started)

    def _finish_step(self, child: subprocess.Popen[bytes], began: float) -> str:
        while child.poll() is None:
            if self._stopping.wait(_LOOK):
                return "stopping"
            if time.monotonic() - began > self.process.start_seconds:
                return f"did not finish within {self.process.start_seconds:.0f} s"
        if child.returncode == 0:
            if self.process.after:
                self.process.after()
            seconds = round(time.monotonic() - began, 1)
            self._states.change(self.process.name, state=State.DONE, leader=None, seconds=seconds, note="")
        return _ending(child)

    def _watch(self, child: subprocess.Popen[bytes], started: float) -> str:
        """Return when the process ended, or hung for long although what it requires works."""
        assert self.process.health is not None
        seen = checked = time.monotonic()
        while not self._stopping.wait(_LOOK) and child.poll() is None:
            now = time.monotonic()
            if now - checked < _CHECK_EVERY:
                continue
            healthy = self.process.health.healthy(started)
            checked = time.monotonic()
            if healthy or not all(self._states[need].state.works for need in self.process.requires):
                seen = checked
            state = State.READY if healthy else State.UNHEALTHY
            if state is not self._states[self.process.name].state:
                note = "" if healthy else "does not answer its health check"
                self._states.change(self.process.name, state=state, note=note)
            if checked - seen > _HUNG_AFTER:
                return f"did not answer for {_HUNG_AFTER:.0f} s"
        return _ending(child)

    def _end(self) -> None:
        if self._leader is not None:
            end_session(self._leader, first=self.process.stop_signal, grace_seconds=self.process.stop_seconds)
        self._leader = None

    def _open_log(self) -> IO[bytes]:
        file = self._home / "logs" / f"{self.process.name}.log"
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists() and file.stat().st_size > _LARGEST_LOG:
            file.replace(file.with_suffix(".log.1"))
        output = file.open("ab")
        output.write(f"{START_OF_LOG} {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n".encode())
        output.flush()
        return output


def _ending(child: subprocess.Popen[bytes]) -> str:
    code = child.poll()
    if code is None:
        return "stopping"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
