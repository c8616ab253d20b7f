"""Follows production by the ledger: loads what it names, swaps whole, and says which release is served."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from llmops.chain import Chain
from llmops.serving._problems import Problem, RequestRefused

__all__ = ["Assistants", "Followed", "Release", "ReleaseFollower", "ReleaseSource"]

log = logging.getLogger(__name__)

Assistants = Callable[[], Sequence[str]]
"""Says which assistants there are; asked again and again, since one may be added while the service runs."""


class Release(Protocol):
    """A release that is ready to answer."""

    @property
    def release_id(self) -> str:
        """Return the id."""

    @property
    def chain(self) -> Chain:
        """Return what answers."""

    def close(self) -> None:
        """Give back what it holds; nobody uses it any more."""


class ReleaseSource(Protocol):
    """Where releases come from."""

    def current(self, assistant: str) -> str | None:
        """Return the id of the production release, cheaply, or None when there is none."""

    def load(self, assistant: str) -> Release | None:
        """Return the production release, every part checked and ready to answer."""

    def doubt(self, assistant: str) -> str | None:
        """Return what disagrees with the production release elsewhere, None when nothing does."""

    def report(self, assistant: str, release_id: str) -> None:
        """Tell everyone that this replica answers with that release."""


@dataclass(frozen=True)
class Followed:
    """What is known about one assistant: the release it is served from, and what is wrong."""

    assistant: str
    release_id: str | None = None
    polled: bool = False
    error: str | None = None


class _Held:
    """A release with the number of requests that answer from it; closed when retired and unused."""

    def __init__(self, release: Release) -> None:
        self.release = release
        self._lock = threading.Lock()
        self._users = 0
        self._retired = False

    def enter(self) -> bool:
        """Count a request in; return False when the release has been retired."""
        with self._lock:
            self._users += not self._retired
            return not self._retired

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            last = self._retired and not self._users
        if last:
            self._close()

    def retire(self) -> None:
        with self._lock:
            self._retired = True
            unused = not self._users
        if unused:
            self._close()

    def _close(self) -> None:
        self.release.chain.close()
        self.release.close()


def _warmed(release: Release) -> _Held:
    """Return a release whose first question will find everything loaded; close one that cannot answer."""
    held = _Held(release)
    try:
        release.chain.warm()
    except BaseException:
        held.retire()
        raise
    return held


class ReleaseFollower:
    """Keeps one release per assistant at hand; a thread per assistant polls and swaps.

    A request keeps the release it started with. When polling or loading fails, the old release goes on
    answering and ``status`` has the error.
    """

    def __init__(
        self, source: ReleaseSource, assistants: Assistants, *, poll: float = 1.0, report: float = 5.0
    ) -> None:
        self._source = source
        self._assistants = assistants
        self._poll = poll
        self._report = report
        self._held: dict[str, _Held] = {}
        self._status: dict[str, Followed] = {}
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._include()

    def start(self) -> None:
        """Begin to follow, also assistants that are added later."""
        for thread in list(self._threads):
            thread.start()
        discovery = threading.Thread(target=self._discover, name="discover", daemon=True)
        discovery.start()
        self._threads.insert(0, discovery)

    def stop(self) -> None:
        """Stop following and retire every release."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout=30)
        for name in list(self._held):
            self._held.pop(name).retire()

    def status(self) -> list[Followed]:
        """Return what is known about each assistant."""
        return list(self._status.values())

    @contextlib.contextmanager
    def lease(self, assistant: str) -> Iterator[Release]:
        """Lend the release in production now; it stays usable until the block ends.

        Raises RequestRefused (503) when there is none.
        """
        while True:
            held = self._held.get(assistant)
            if held is None:
                message = f"No release of {assistant!r} is in production: run release_assistant, approve it."
                raise RequestRefused(Problem(503, message, "server_error", "no_release", 5))
            if held.enter():
                break
        try:
            yield held.release
        finally:
            held.leave()

    def _include(self) -> list[threading.Thread]:
        """Make a thread for every assistant that has none yet; an assistant's release stays when its file goes."""
        new = [name for name in self._assistants() if name not in self._status]
        self._status.update({name: Followed(name) for name in new})
        threads = [
            threading.Thread(target=self._follow, args=(name,), name=f"follow-{name}", daemon=True)
            for name in new
        ]
        self._threads += threads
        return threads

    def _discover(self) -> None:
        while not self._stopping.wait(self._report):
            for thread in self._include():
                log.info("A new assistant is followed: %s", thread.name.removeprefix("follow-"))
                thread.start()

    def _follow(self, assistant: str) -> None:
        reported = float("-inf")
        doubt: str | None = None
        while not self._stopping.is_set():
            problem, swapped = None, False
            due = time.monotonic() - reported >= self._report
            try:
                swapped = self._catch_up(assistant)
            except Exception as error:  # noqa: BLE001 - the edge of this thread: recorded, and tried again
                problem = f"{type(error).__name__}: {error}"
            # Also a replica that cannot catch up says what it serves: silence would look like being gone.
            release_id = self._status[assistant].release_id
            if release_id and (swapped or due):
                try:
                    self._source.report(assistant, release_id)
                    reported = time.monotonic()
                except Exception as error:  # noqa: BLE001 - likewise
                    problem = problem or f"{type(error).__name__}: {error}"
            if due or swapped:
                try:
                    doubt = self._source.doubt(assistant)
                except Exception as error:  # noqa: BLE001 - likewise
                    doubt = f"{type(error).__name__}: {error}"
            self._note(assistant, problem or doubt)
            self._stopping.wait(self._poll)

    def _catch_up(self, assistant: str) -> bool:
        """Serve what is in production now; return whether that was something else before."""
        held = self._held.get(assistant)
        current = self._source.current(assistant)
        if current == (held.release.release_id if held else None):
            return False
        release = self._source.load(assistant) if current else None
        if release is None:
            self._held.pop(assistant, None)
        else:
            self._held[assistant] = _warmed(release)
        release_id = release.release_id if release else None
        self._status[assistant] = replace(self._status[assistant], release_id=release_id)
        log.info("%s: now answering with release %s", assistant, (release_id or "none")[:12])
        if held:
            held.retire()
        return True

    def _note(self, assistant: str, error: str | None) -> None:
        """Remember how the poll went; log only when that changed."""
        before = self._status[assistant]
        self._status[assistant] = replace(before, polled=True, error=error)
        if error != before.error and error:
            log.warning("%s: something is wrong about the production release: %s", assistant, error)
        elif error != before.error:
            log.info("%s: nothing is wrong about the production release any more", assistant)
