"""A bounded number of threads with a bounded queue in front of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from llmops.serving._problems import Problem, RequestRefused

__all__ = ["Workers"]

ResultT = TypeVar("ResultT")


class Workers:
    """Runs at most ``running`` calls at once and lets ``waiting`` more wait; refuses the rest with 429."""

    def __init__(self, running: int, waiting: int, name: str) -> None:
        self._places = running + waiting
        self._taken = 0
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(running, name)

    def submit(self, call: Callable[[], ResultT]) -> Future[ResultT]:
        """Run ``call`` in a thread; raise RequestRefused when every place is taken."""
        with self._lock:
            if self._taken >= self._places:
                raise RequestRefused(
                    Problem(
                        429,
                        "Too many requests at once: try again in a moment.",
                        "rate_limit_error",
                        "busy",
                        1,
                    )
                )
            self._taken += 1
        future = self._pool.submit(call)
        future.add_done_callback(self._give_back)
        return future

    def close(self) -> None:
        """Let running calls end and drop waiting ones."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _give_back(self, future: Future[ResultT]) -> None:
        with self._lock:
            self._taken -= 1
