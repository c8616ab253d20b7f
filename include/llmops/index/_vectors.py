"""The index of vectors: built once everything is loaded, in parallel where the server has the memory for it."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg

from llmops.database import connect
from llmops.index._generations import Generation

__all__ = ["build_vectors", "index_progress"]

log = logging.getLogger(__name__)

_BUILD = "SELECT index_generation_vectors(%s, %s, %s)"
_PROGRESS = (
    "SELECT blocks_done, blocks_total FROM pg_stat_progress_create_index WHERE pid = %s AND blocks_total > 0"
)
_FOUND = """
SELECT blocks_done, blocks_total FROM pg_stat_progress_create_index
WHERE relid = to_regclass(%s) AND datname = current_database() AND blocks_total > 0
"""
_POLL_SECONDS = 1.0


def build_vectors(
    url: str,
    connection: psycopg.Connection[Any],
    known: Generation,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Build the index of vectors of a loaded generation, as one transaction: a kill leaves none behind.

    An index that is not valid or searches in another way is replaced. ``progress`` is called every second with
    the parts of the table that were read and how many there are.
    """
    connection.add_notice_handler(_warn)
    row = connection.execute("SHOW max_parallel_maintenance_workers").fetchone()
    workers, free = int(row[0]) if row else 0, _free_kilobytes(connection)
    with _watched(url, connection.info.backend_pid, progress):
        try:
            connection.execute(_BUILD, (known.id, workers, free))
        except (psycopg.errors.DiskFull, psycopg.errors.OutOfMemory) as error:
            if not workers:
                raise
            # A parallel build keeps the whole graph in shared memory, of which containers have 64 MB.
            log.warning("Building the index of %s with one process: %s", known.id, str(error).split("\n")[0])
            connection.execute(_BUILD, (known.id, 0, free))


def index_progress(url: str, generation_id: str) -> float | None:
    """Return which part of its table the index of vectors has read, None when none is being built."""
    with connect(url) as connection:
        name = f"public.generation_{generation_id}"
        row = connection.execute(_FOUND, (name,)).fetchone()
    return None if row is None else int(row[0]) / int(row[1])


def _free_kilobytes(connection: psycopg.Connection[Any]) -> int | None:
    """Return half of what is free in memory when the server runs on this machine, else None: nobody knows."""
    import psutil

    local = connection.info.host.startswith("/")
    return int(psutil.virtual_memory().available) // 2048 if local else None


@contextlib.contextmanager
def _watched(url: str, pid: int, progress: Callable[[int, int], None] | None) -> Iterator[None]:
    """Report how far the session ``pid`` is with an index while the block lasts."""
    if progress is None:
        yield
        return
    over = threading.Event()
    with ThreadPoolExecutor(1, "index-progress") as pool:
        watching = pool.submit(_watch, url, pid, progress, over)
        try:
            yield
        finally:
            over.set()
    watching.result()


def _watch(url: str, pid: int, progress: Callable[[int, int], None], over: threading.Event) -> None:
    with connect(url, autocommit=True) as connection:
        while not over.wait(_POLL_SECONDS):
            row = connection.execute(_PROGRESS, (pid,)).fetchone()
            if row:
                progress(int(row[0]), int(row[1]))


def _warn(notice: psycopg.errors.Diagnostic) -> None:
    message = notice.message_primary or ""
    if notice.severity_nonlocalized == "WARNING" or "no longer fits" in message:
        log.warning("Postgres: %s", message)
