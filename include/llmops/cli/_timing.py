"""Where the demo's time went."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Ledger:
    """Collects the seconds that stages, task bodies and people took."""

    began: float = field(default_factory=time.monotonic)
    stages: dict[str, float] = field(default_factory=dict)
    tasks: dict[str, Mapping[str, float]] = field(default_factory=dict)
    human: float = 0.0

    def stage(self, title: str, seconds: float) -> None:
        """Enter how long a stage took, people included."""
        self.stages[title] = seconds

    def enter(self, dag_id: str, run_id: str, results: Mapping[str, Any]) -> None:
        """Enter what the steps of one run measured themselves: seconds of imports and of work."""
        for task_id, result in results.items():
            if isinstance(result, Mapping) and "seconds" in result:
                self.tasks[f"{dag_id}/{run_id}/{task_id}"] = result["seconds"]

    def split(self) -> dict[str, float]:
        """Return the total without people, and its parts; orchestration is what no part explains."""
        total = time.monotonic() - self.began - self.human
        stack = next(iter(self.stages.values()), 0.0)
        work = sum(seconds["work"] for seconds in self.tasks.values())
        imports = sum(seconds["imports"] for seconds in self.tasks.values())
        return {
            "total": total,
            "human": self.human,
            "stack": stack,
            "work": work,
            "imports": imports,
            "orchestration": max(0.0, total - stack - work - imports),
        }
