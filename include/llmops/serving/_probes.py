"""Proof that a replica can answer with the release that it reports."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from llmops.errors import LlmopsError, ServiceUnavailable
from llmops.release import code_digest
from llmops.serving._follower import ReleaseFollower

__all__ = ["Probes"]

log = logging.getLogger(__name__)

_QUESTION = "Is this release able to answer?"
_PAUSE_SECONDS = 5.0


class Probes:
    """Answers one question per release, and remembers how that went."""

    def __init__(self, follower: ReleaseFollower, seconds: float) -> None:
        self._follower = follower
        self._seconds = seconds
        self._lock = threading.Lock()
        self._done: dict[str, dict[str, Any]] = {}
        self._failed: dict[str, tuple[str, float]] = {}

    def probe(self, assistant: str) -> dict[str, Any]:
        """Return the release that answered, the code that did, and how long it took.

        Raises ServiceUnavailable when the release cannot answer, also for five seconds after it could not.
        """
        with self._lock, self._follower.lease(assistant) as release:
            known = self._done.get(assistant)
            if known and known["release"] == release.release_id:
                return known
            said, until = self._failed.get(release.release_id, ("", 0.0))
            if time.monotonic() < until:
                raise ServiceUnavailable(said)
            began = time.monotonic()
            try:
                release.chain.answer(_QUESTION, timeout=self._seconds)
            except LlmopsError as error:
                said = f"release {release.release_id[:12]} cannot answer: {error}"
                self._failed = {release.release_id: (said, time.monotonic() + _PAUSE_SECONDS)}
                raise ServiceUnavailable(said) from error
            self._done[assistant] = {
                "assistant": assistant,
                "release": release.release_id,
                "code": code_digest(),
                "seconds": round(time.monotonic() - began, 3),
            }
            log.info("%s: release %s answers", assistant, release.release_id[:12])
            return self._done[assistant]
