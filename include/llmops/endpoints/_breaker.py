"""Fails fast while an endpoint is down, so that callers do not queue up behind its timeouts."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from llmops.errors import LlmopsError, ServiceUnavailable

__all__ = ["Breaker"]


class Breaker:
    """Counts answers in a row that ended in ServiceUnavailable; thread-safe.

    After ``failures`` of them it refuses everything for ``cooldown`` seconds, then lets one caller try
    in each such time until one succeeds.
    """

    def __init__(self, failures: int, cooldown: float) -> None:
        self._failures = failures
        self._cooldown = cooldown
        self._lock = threading.Lock()
        self._count = 0
        self._closed_until = 0.0

    def enter(self, place: str) -> None:
        """Let a caller through, or raise ServiceUnavailable."""
        with self._lock:
            if self._count < self._failures:
                return
            left = self._closed_until - time.monotonic()
            if left > 0:
                raise ServiceUnavailable(
                    f"{place} did not answer {self._count} times in a row: not asked again for {left:.1f} s"
                )
            self._closed_until = time.monotonic() + self._cooldown

    def failed(self) -> None:
        """Count a call that found the endpoint down."""
        with self._lock:
            self._count += 1
            self._closed_until = time.monotonic() + self._cooldown

    def succeeded(self) -> None:
        """Forget all failures: the endpoint answered, be it with an error."""
        with self._lock:
            self._count = 0

    @contextlib.contextmanager
    def watch(self, place: str) -> Iterator[None]:
        """Let one call through and learn from how it ends."""
        self.enter(place)
        try:
            yield
        except ServiceUnavailable:
            self.failed()
            raise
        except LlmopsError:
            self.succeeded()
            raise
        else:
            self.succeeded()
