"""Connections for the answer log: one per call for commands, a pool for the service."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout, TooManyRequests

from llmops.database import connect
from llmops.errors import ServiceUnavailable

__all__ = ["Database", "connection_to", "open_pool"]

Database = str | ConnectionPool


def open_pool(url: str, *, size: int = 8, wait_seconds: float = 5) -> ConnectionPool:
    """Return a pool of at most ``size`` connections that heals by itself after Postgres was away.

    It connects in the background, so that a service starts (and says that it is not ready) without
    Postgres. ``pool.connection()`` waits at most ``wait_seconds``, and when many already wait it refuses
    at once. Close the pool, or use it as a context manager.
    """

    def check(connection: psycopg.Connection) -> None:
        try:
            ConnectionPool.check_connection(connection)
        except psycopg.OperationalError:
            # Its neighbours broke with it, most likely: replace them all, instead of one per attempt.
            pool.check()
            raise

    pool = ConnectionPool(
        url,
        min_size=1,
        max_size=size,
        timeout=wait_seconds,
        max_waiting=16 * size,
        max_idle=300,
        reconnect_timeout=30,
        check=check,
        kwargs={"connect_timeout": 5},
        open=True,
    )
    return pool


@contextlib.contextmanager
def connection_to(database: Database) -> Iterator[psycopg.Connection]:
    """Lend a connection whose transaction is committed when the block ends.

    Raises ServiceUnavailable when there is none to be had, or when it breaks before the commit.
    """
    try:
        with connect(database) if isinstance(database, str) else database.connection() as connection:
            yield connection
    except (PoolTimeout, TooManyRequests) as error:
        raise ServiceUnavailable(
            f"no connection to the answer log is free: {error}. Is Postgres running?"
        ) from error
    except psycopg.OperationalError as error:
        raise ServiceUnavailable(
            f"Postgres went away while the answer log was in use: {str(error).strip()}. Try again"
        ) from error
