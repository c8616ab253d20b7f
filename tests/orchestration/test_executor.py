"""The stack's executor: a task whose last process still seems to run is not begun again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

KEY = ("release_assistant", "ask_reviewer", "run", 1, -1)


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The executor, with a list ``sent`` for workers."""
    from airflow.executors import local_executor

    from llmops.orchestration.executor import LocalExecutor

    made = LocalExecutor(parallelism=2)
    made.sent = []

    def send(self: Any, workloads: list[Any]) -> None:
        for workload in workloads:
            del self.queued_tasks[workload.key]
            self.sent.append(workload.key)

    monkeypatch.setattr(local_executor.LocalExecutor, "_process_workloads", send)
    return made


def queue(executor: Any, key: Any = KEY) -> None:
    executor.queued_tasks[key] = SimpleNamespace(key=key, ti=SimpleNamespace(priority_weight=1, key=key))


def test_a_task_is_begun_again_only_after_its_first_process_has_ended(executor: Any) -> None:
    queue(executor)
    executor.trigger_tasks(2)
    queue(executor)
    queue(executor, "another")
    executor.trigger_tasks(2)
    assert executor.sent == [KEY, "another"]
    assert executor.has_task(SimpleNamespace(id=0, key=KEY))
    executor.change_state(KEY, "running")
    executor.trigger_tasks(2)
    assert executor.sent == [KEY, "another"]
    executor.change_state(KEY, "success")
    executor.trigger_tasks(2)
    assert executor.sent == [KEY, "another", KEY]
    assert not executor.queued_tasks


def test_what_the_workers_have_no_room_for_stays_queued(executor: Any) -> None:
    queue(executor)
    queue(executor, "another")
    executor.trigger_tasks(1)
    assert len(executor.sent) == len(executor.queued_tasks) == 1
    executor.trigger_tasks(1)
    assert sorted(executor.sent, key=str) == sorted([KEY, "another"], key=str)


def test_a_worker_that_was_killed_does_not_hold_its_task_for_ever(
    executor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("llmops.orchestration.executor.time.monotonic", lambda: now[0])
    for seconds, begun in ((0, 1), (0, 1), (119, 1), (2, 2), (0, 2), (119, 2), (2, 3)):
        now[0] += seconds
        queue(executor)
        executor.trigger_tasks(2)
        assert len(executor.sent) == begun, now[0]
