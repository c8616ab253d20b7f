"""The ``llmops`` database: connections, roles and numbered migrations."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Mapping
from importlib import resources

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from llmops.errors import ConfigurationError, IntegrityError, ServiceUnavailable, WriteConflict

__all__ = [
    "ROLES",
    "Database",
    "advisory_lock",
    "connect",
    "connected",
    "initialise",
    "migrate",
    "on_database",
]

log = logging.getLogger(__name__)

ROLES = ("llmops_owner", "llmops_worker", "llmops_serving", "llmops_notary")
"""Who connects to the ``llmops`` database: the owner migrates it, the others own nothing."""

_DATABASES = {"airflow": "airflow", "mlflow": "mlflow", "llmops": "llmops_owner"}
_MIGRATION_LOCK = 7_311_001
_LOST = ("08", "57P")  # SQLSTATE classes: connection exceptions, and the server's shutdown or crash


@contextlib.contextmanager
def connect(url: str, *, autocommit: bool = False) -> Iterator[psycopg.Connection]:
    """Open a connection that commits when the block ends and rolls back when it raises.

    Raises ServiceUnavailable when the server cannot be reached or the connection is lost in the block,
    and ConfigurationError for a URL that cannot be read; no message has credentials. All other errors of
    the database come out as they are.
    """
    try:
        connection = psycopg.connect(url, autocommit=autocommit, connect_timeout=10)
    except psycopg.ProgrammingError:
        raise ConfigurationError(
            "the database URL cannot be read: write postgresql://user:password@host:port/database, "
            "with special characters percent-encoded"
        ) from None  # libpq quotes the part that it cannot read, which may be the password
    except psycopg.OperationalError as error:
        raise ServiceUnavailable(
            f"Postgres does not answer at {_place(url)}: {str(error).strip()}. "
            "Is it running? On a laptop: `llmops stack status`"
        ) from error
    with connection:
        try:
            yield connection
            if not connection.closed:
                connection.commit()
        except psycopg.OperationalError as error:
            if not (connection.broken or (error.sqlstate or "").startswith(_LOST)):
                raise
            raise ServiceUnavailable(
                f"the connection to Postgres at {_place(url)} was lost: {str(error).strip()}. Try again; "
                "is it running? On a laptop: `llmops stack status`"
            ) from error


Database = str | psycopg.Connection
"""A database by its URL, or by a connection that is open already."""


@contextlib.contextmanager
def connected(database: Database) -> Iterator[psycopg.Connection]:
    """Yield an open connection as it is, or open one to a URL like ``connect``."""
    if isinstance(database, psycopg.Connection):
        yield database
        return
    with connect(database) as connection:
        yield connection


@contextlib.contextmanager
def advisory_lock(url: str, name: str, *, wait_seconds: float = 600) -> Iterator[None]:
    """Hold a lock that one process at a time can have; it goes with the connection, also after a kill.

    Raises WriteConflict when another process keeps it longer than ``wait_seconds``.
    """
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
    with connect(url, autocommit=True) as connection:
        connection.execute("SELECT set_config('lock_timeout', %s, false)", (f"{int(wait_seconds * 1000)}ms",))
        try:
            connection.execute("SELECT pg_advisory_lock(%s)", (key,))
        except psycopg.errors.LockNotAvailable as error:
            raise WriteConflict(
                f"another process has been holding the lock {name!r} for more than {wait_seconds:.0f} s: "
                "try again later"
            ) from error
        yield


def on_database(url: str, database: str) -> str:
    """Return ``url`` (a URL or conninfo string) pointed at another database of the same server."""
    return make_conninfo(url, dbname=database)


def initialise(admin_url: str, passwords: Mapping[str, str]) -> None:
    """Create the databases, roles and the vector extension that are missing, and set all passwords.

    ``admin_url`` connects as a superuser; ``passwords`` has one entry for ``airflow``, ``mlflow``
    and each of ROLES. Running it again changes nothing but the passwords.
    """
    missing = {*ROLES, "airflow", "mlflow"} - set(passwords)
    if missing:
        raise ConfigurationError(f"no password given for the database roles {sorted(missing)}")
    with connect(admin_url, autocommit=True) as connection:
        for role, password in passwords.items():
            known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
            connection.execute(
                sql.SQL("{} ROLE {} WITH LOGIN PASSWORD {}").format(
                    sql.SQL("ALTER" if known else "CREATE"), sql.Identifier(role), sql.Literal(password)
                )
            )
        for database, owner in _DATABASES.items():
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).fetchone():
                connection.execute(
                    sql.SQL("CREATE DATABASE {} OWNER {}").format(
                        sql.Identifier(database), sql.Identifier(owner)
                    )
                )
            connection.execute(
                sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database))
            )
            users = ROLES if database == "llmops" else (database,)
            connection.execute(
                sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(
                    sql.Identifier(database), sql.SQL(", ").join(map(sql.Identifier, users))
                )
            )
    with connect(on_database(admin_url, "llmops"), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        connection.execute("GRANT CREATE, USAGE ON SCHEMA public TO llmops_owner")


def migrate(owner_url: str) -> list[str]:
    """Apply the numbered migrations that the database does not have yet; return their names.

    Each runs in its own transaction under a lock, so that any number of processes may start at once.
    Raises IntegrityError when an applied migration's text has changed since.
    """
    folder = resources.files("llmops") / "migrations"
    files = sorted((f.name, f.read_text("utf-8")) for f in folder.iterdir() if f.name.endswith(".sql"))
    applied = []
    with connect(owner_url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (_MIGRATION_LOCK,))
        connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations ("
            "name text PRIMARY KEY, digest text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        known = dict(connection.execute("SELECT name, digest FROM schema_migrations").fetchall())
        for name, text in files:
            digest = hashlib.sha256(text.encode()).hexdigest()
            if known.get(name, digest) != digest:
                raise IntegrityError(
                    f"migration {name} was changed after it was applied to {_place(owner_url)}: "
                    "restore it and put the change into a new migration"
                )
            if name in known:
                continue
            with connection.transaction():
                connection.execute(text)  # our own files, not input
                connection.execute(
                    "INSERT INTO schema_migrations (name, digest) VALUES (%s, %s)", (name, digest)
                )
            applied.append(name)
    if applied:
        log.info("Applied %d migrations to %s: %s", len(applied), _place(owner_url), ", ".join(applied))
    return applied


def _place(url: str) -> str:
    """Describe where ``url`` points without its credentials."""
    parts = conninfo_to_dict(url)
    return f"{parts.get('host', 'localhost')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"
