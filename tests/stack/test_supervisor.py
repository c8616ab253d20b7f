"""How one process is kept, with small programs instead of the real ones."""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from llmops.stack import _supervisor
from llmops.stack._sessions import Leader, end_session, members
from llmops.stack._spawn import spawn
from llmops.stack._state import State, StateFile, read_state
from llmops.stack._supervisor import Keeper
from llmops.stack.processes import Process
from support.stacks import wait_until


class Switch:
    """A health check that a test turns on and off."""

    def __init__(self, on: bool = True) -> None:
        self.on = on

    def healthy(self, since: float) -> bool:
        return self.on


class Bench:
    """Runs keepers of rows and stops them all."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.stopping = threading.Event()
        self.keepers: list[Keeper] = []

    def run(self, *rows: Process) -> StateFile:
        states = StateFile(self.home / "processes.json", {row.name: None for row in rows})
        self.keepers = [Keeper(row, self.home, states, self.stopping) for row in rows]
        for keeper in self.keepers:
            keeper.thread.start()
        return states


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A place to run rows of a test's own."""
    bench = Bench(tmp_path)
    yield bench
    bench.stopping.set()
    for keeper in bench.keepers:
        keeper.thread.join()
        keeper.stop()


def _python(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", text)


def _row(name: str, text: str = "import time; time.sleep(60)") -> Process:
    return Process(name=name, command=_python(text), environment={}, health=Switch())


def test_a_process_waits_for_what_it_requires(bench: Bench) -> None:
    gate = Switch(on=False)
    first = dataclasses.replace(_row("first"), health=gate)
    states = bench.run(first, dataclasses.replace(_row("second"), requires=("first",)))
    wait_until(lambda: states["first"].state is State.STARTING)
    time.sleep(0.5)
    assert states["second"].starts == 0
    gate.on = True
    wait_until(lambda: states["second"].state is State.READY)


def test_a_process_that_does_not_answer_for_long_is_started_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_supervisor, "_CHECK_EVERY", 0.1)
    monkeypatch.setattr(_supervisor, "_HUNG_AFTER", 1.0)
    answers = Switch()
    states = bench.run(dataclasses.replace(_row("hangs"), health=answers))
    wait_until(lambda: states["hangs"].state is State.READY)
    answers.on = False
    wait_until(lambda: states["hangs"].starts == 2, 30)
    answers.on = True
    wait_until(lambda: states["hangs"].state is State.READY)


def test_starts_that_fail_are_counted_with_growing_pauses(bench: Bench) -> None:
    states = bench.run(dataclasses.replace(_row("fails", "raise SystemExit(3)"), health=Switch(on=False)))
    began = time.monotonic()
    wait_until(lambda: states["fails"].failures == 3)
    assert time.monotonic() - began > 2
    assert states["fails"].note == "ended with exit code 3"


def test_a_step_runs_once_and_can_be_skipped(bench: Bench) -> None:
    step = dataclasses.replace(
        _row("step", f"open({str(bench.home / 'ran')!r}, 'a').write('x')"), health=None
    )
    skipped = dataclasses.replace(_row("skipped", "raise SystemExit(1)"), health=None, skip=lambda: True)
    states = bench.run(step, skipped)
    wait_until(lambda: states["step"].state is State.DONE and states["skipped"].state is State.DONE)
    time.sleep(0.5)
    assert (bench.home / "ran").read_text() == "x"
    assert states["skipped"].starts == 0


def test_what_a_process_left_running_ends_before_it_is_started_again(bench: Bench) -> None:
    child = "import subprocess, time; subprocess.Popen(['sleep', '61'], process_group=0); time.sleep(60)"
    states = bench.run(_row("parent", child))
    wait_until(lambda: states["parent"].state is State.READY)
    leader = states["parent"].leader
    assert leader is not None
    wait_until(lambda: len(members(leader)) == 2)
    orphan = next(process for process in members(leader) if process.pid != leader.pid)
    psutil.Process(leader.pid).kill()
    wait_until(lambda: states["parent"].starts == 2)
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE


def test_commands_read_what_the_supervisor_wrote(bench: Bench) -> None:
    states = bench.run(_row("one"))
    wait_until(lambda: states["one"].state is State.READY)
    snapshot = read_state(bench.home / "processes.json")
    assert snapshot is not None
    assert snapshot.processes == {"one": states["one"]}
    assert snapshot.supervisor.alive()
    assert snapshot.is_of_this_machine()


def test_a_stranger_that_took_over_a_process_number_is_left_alone(tmp_path: Path) -> None:
    child = spawn(_python("import time; time.sleep(60)"), 1, environment={}, folder=tmp_path)
    now = Leader.of(child.pid)
    end_session(Leader(now.pid, now.started - 100))
    assert now.alive()
    end_session(now)
    assert not now.alive()
    child.wait()
