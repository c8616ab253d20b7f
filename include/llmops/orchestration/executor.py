"""The local executor of the stack, which begins no task anew before it has noted that its process ended."""

from __future__ import annotations

import time
from typing import Any

from airflow.executors import local_executor
from airflow.utils.state import TaskInstanceState

__all__ = ["LocalExecutor"]

_ENDED = (TaskInstanceState.SUCCESS, TaskInstanceState.FAILED)
_LOST_AFTER_SECONDS = 120.0


class LocalExecutor(local_executor.LocalExecutor):
    """Airflow's local executor without a race when a task resumes.

    A task that asks a person, or defers, ends its process and is queued again with the same key once it is
    answered. Airflow's own executor sends it to a worker at once. When the end of the first process is read
    only after that, the scheduler takes it for the end of the second, "killed externally", and fails the
    task: an approval given within seconds on a busy machine was lost. Here the task stays queued until the
    first process is known to have ended, which the scheduler knows how to read.

    A worker that was killed reports nothing: its task is begun again after two minutes.
    """

    queued_tasks: dict[Any, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._under_way: set[Any] = set()
        self._held_since: dict[Any, float] = {}

    def trigger_tasks(self, open_slots: int) -> None:
        """Send what waits to the workers, without the tasks whose last process still seems to run."""
        waiting = self.queued_tasks
        self.queued_tasks = {key: task for key, task in waiting.items() if not self._held(key)}
        ready = set(self.queued_tasks)
        try:
            super().trigger_tasks(open_slots)
        finally:
            sent = ready - self.queued_tasks.keys()
            self._under_way |= sent
            self.queued_tasks = {key: task for key, task in waiting.items() if key not in sent}
            self._held_since = {key: at for key, at in self._held_since.items() if key in self.queued_tasks}

    def change_state(self, key: Any, state: Any, info: Any = None, remove_running: bool = True) -> None:
        """Note how the process of a task ended."""
        super().change_state(key, state, info, remove_running)
        if state in _ENDED:
            self._under_way.discard(key)

    def _held(self, key: Any) -> bool:
        """Tell whether a task has to wait for the end of its last process."""
        if key not in self._under_way:
            return False
        since = self._held_since.setdefault(key, time.monotonic())
        if time.monotonic() - since < _LOST_AFTER_SECONDS:
            return True
        self.log.warning(
            "The process of %s reported no end for %.0f s: it begins again", key, _LOST_AFTER_SECONDS
        )
        return False
