"""What the supervisor tells about its processes, in a file that commands read."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import psutil

from llmops.stack._secrets import write_private
from llmops.stack._sessions import Leader, machine

__all__ = ["ProcessState", "Snapshot", "State", "StateFile", "read_state"]


class State(StrEnum):
    """Where a process is in its life."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    DONE = "done"
    UNHEALTHY = "unhealthy"
    RESTARTING = "restarting"
    STOPPED = "stopped"

    @property
    def works(self) -> bool:
        """Tell whether others may rely on the process."""
        return self in (State.READY, State.DONE)


@dataclass(frozen=True)
class ProcessState:
    """One process as its supervisor sees it.

    ``leader`` is the first process of its session; ``seconds`` is how long the latest start took;
    ``failures`` counts starts in a row that did not succeed; ``note`` says why it is not ready.
    """

    name: str
    state: State = State.WAITING
    leader: Leader | None = None
    seconds: float | None = None
    starts: int = 0
    failures: int = 0
    note: str = ""
    address: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """All processes of one supervisor; ``machine`` changes when the machine or container starts anew."""

    supervisor: Leader
    machine: str
    processes: dict[str, ProcessState] = field(default_factory=dict)

    def is_of_this_machine(self) -> bool:
        """Tell whether its process numbers still mean something."""
        return self.machine == machine()


class StateFile:
    """Keeps a snapshot on disk; threads may change their own process's state at any time."""

    def __init__(self, file: Path, names_and_addresses: dict[str, str | None]) -> None:
        self._file = file
        self._changed = threading.Condition()
        processes = {name: ProcessState(name, address=url) for name, url in names_and_addresses.items()}
        self._snapshot = Snapshot(Leader.of(psutil.Process().pid), machine(), processes)
        self._write()

    def __getitem__(self, name: str) -> ProcessState:
        return self._snapshot.processes[name]

    def change(self, name: str, **values: object) -> None:
        """Change fields of one process's state."""
        with self._changed:
            state = dataclasses.replace(self[name], **values)  # type: ignore[arg-type]
            self._snapshot.processes[name] = state
            self._write()
            self._changed.notify_all()

    def wait_until_work(self, names: tuple[str, ...], stopping: threading.Event) -> bool:
        """Wait until all of ``names`` work; return False when the stack stops before."""
        with self._changed:
            while not stopping.is_set():
                if all(self[name].state.works for name in names):
                    return True
                self._changed.wait(0.5)
        return False

    def _write(self) -> None:
        values = dataclasses.asdict(self._snapshot)
        write_private(self._file, json.dumps({**values, "written": time.time()}, indent=1))


def read_state(file: Path) -> Snapshot | None:
    """Return the latest snapshot, or None if there is none that can be read."""
    try:
        values = json.loads(file.read_text("utf-8"))
        values.pop("written")
        supervisor = Leader(**values.pop("supervisor"))
        processes = {name: _process(state) for name, state in values.pop("processes").items()}
        return Snapshot(supervisor=supervisor, processes=processes, **values)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _process(values: dict[str, object]) -> ProcessState:
    leader = values.pop("leader")
    state = ProcessState(**values, leader=Leader(**leader) if isinstance(leader, dict) else None)  # type: ignore[arg-type]
    return dataclasses.replace(state, state=State(state.state))
