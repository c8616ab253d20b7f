"""The resident follower: within seconds every generation holds what the chunks table holds."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg

from llmops.database import connect
from llmops.embedding import Embedder
from llmops.errors import ServiceUnavailable, WriteConflict
from llmops.index._generations import Generation, generations
from llmops.index._sync import is_current, sync
from llmops.lakehouse import LakeTable

__all__ = ["follow"]

log = logging.getLogger(__name__)

_LEASE = "index follower"
_LONGEST_WAIT = 30.0
_LONGEST_PAUSE = 300.0


def follow(
    url: str,
    chunks_of: Callable[[Generation], LakeTable],
    load_embedder: Callable[[Generation], Embedder],
    *,
    stop: threading.Event,
    beat: Callable[..., None] = lambda **details: None,
    poll_seconds: float = 2.0,
) -> None:
    """Keep every building and live generation at its chunks table's newest version until ``stop`` is set.

    One follower per database works, held by a lease that ends with its connection; others wait for it.
    Postgres may come and go. A generation that fails is logged and tried again ever more slowly, the
    others go on. ``beat`` is called once per turn and during long work with what is being done.
    """
    follower = _Follower(url, chunks_of, load_embedder, stop, beat)
    pause = poll_seconds
    while not stop.is_set():
        try:
            with _lease(url, stop, beat, poll_seconds) as lease:
                while not stop.is_set():
                    lease.execute("SELECT 1")
                    follower.turn()
                    pause = poll_seconds
                    stop.wait(poll_seconds)
        except (ServiceUnavailable, psycopg.OperationalError) as error:
            log.warning(
                "Postgres is away, trying again in %.0f s: %s", pause, str(error).strip().splitlines()[0]
            )
            beat(state="waiting for Postgres")
            stop.wait(pause * random.uniform(0.8, 1.2))
            pause = min(pause * 2, _LONGEST_WAIT)


@dataclass
class _Follower:
    """What one process remembers between turns: loaded embedders, and generations that failed lately."""

    url: str
    chunks_of: Callable[[Generation], LakeTable]
    load_embedder: Callable[[Generation], Embedder]
    stop: threading.Event
    beat: Callable[..., None]
    embedders: dict[str, Embedder] = field(default_factory=dict)
    failures: dict[str, tuple[int, float]] = field(default_factory=dict)

    def turn(self) -> None:
        """Look at every generation once."""
        followed = [generation for generation in generations(self.url) if generation.state != "retired"]
        used = {generation.fingerprint for generation in followed}
        self.embedders = {key: embedder for key, embedder in self.embedders.items() if key in used}
        self.failures = {g.id: self.failures[g.id] for g in followed if g.id in self.failures}
        for generation in followed:
            self.beat(state="following", generations=len(followed), failing=sorted(self.failures))
            if self.stop.is_set():
                return
            if self.failures.get(generation.id, (0, 0.0))[1] <= time.monotonic():
                self._visit(generation)
        self.beat(state="following", generations=len(followed), failing=sorted(self.failures))

    def _visit(self, generation: Generation) -> None:
        try:
            self._bring_up(generation)
        except WriteConflict:
            log.debug("Another process is writing generation %s", generation.id)
        except (ServiceUnavailable, psycopg.OperationalError):
            raise
        except Exception:  # the edge of a resident process: one generation must not stop the others
            times = self.failures.get(generation.id, (0, 0.0))[0] + 1
            pause = min(2.0**times, _LONGEST_PAUSE)
            self.failures[generation.id] = (times, time.monotonic() + pause)
            log.exception("Generation %s failed %d times, next try in %.0f s", generation.id, times, pause)
        else:
            self.failures.pop(generation.id, None)

    def _bring_up(self, generation: Generation) -> None:
        chunks = self.chunks_of(generation)
        if chunks.version() is None or is_current(generation, chunks):
            return
        embedder = self.embedders.get(generation.fingerprint)
        if embedder is None:
            embedder = self.embedders[generation.fingerprint] = self.load_embedder(generation)

        def progress(done: int, of: int) -> None:
            self.beat(state="embedding", generation=generation.id, done=done, of=of)

        def index_progress(done: int, of: int) -> None:
            self.beat(state="indexing", generation=generation.id, done=done, of=of)

        sync(
            self.url, generation.id, chunks, embedder,
            wait_seconds=1, progress=progress, index_progress=index_progress,
        )  # fmt: skip


@contextlib.contextmanager
def _lease(
    url: str, stop: threading.Event, beat: Callable[..., None], poll_seconds: float
) -> Iterator[psycopg.Connection[Any]]:
    """Wait until no other follower works, then lend the connection that holds the lease."""
    with connect(url, autocommit=True) as connection:
        waiting = False
        while not stop.is_set():
            row = connection.execute(
                "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (_LEASE,)
            ).fetchone()
            if row and row[0]:
                log.info("Following the chunks tables")
                break
            if not waiting:
                log.info("Another follower works; waiting to take over from it")
                waiting = True
            beat(state="waiting for the other follower")
            stop.wait(poll_seconds)
        yield connection
