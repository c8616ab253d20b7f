"""``llmops database``: create and migrate the ``llmops`` database."""

from __future__ import annotations

import click
from psycopg.conninfo import make_conninfo

from llmops.database import ROLES, initialise, migrate
from llmops.errors import ConfigurationError
from llmops.settings import environ


@click.group()
def command() -> None:
    """Create and migrate the database."""


@command.command()
def init() -> None:
    """Create databases, roles and the vector extension, then migrate.

    LLMOPS_DATABASE_URL is a superuser's; LLMOPS_PASSWORD_{OWNER,WORKER,SERVING,NOTARY,AIRFLOW,MLFLOW} are
    the passwords that the roles get. Running it again changes nothing but the passwords.
    """
    passwords = {}
    for role in (*ROLES, "airflow", "mlflow"):
        passwords[role] = _variable(f"LLMOPS_PASSWORD_{role.removeprefix('llmops_').upper()}")
    admin_url = _variable("LLMOPS_DATABASE_URL")
    initialise(admin_url, passwords)
    owner = make_conninfo(admin_url, dbname="llmops", user="llmops_owner", password=passwords["llmops_owner"])
    _report(migrate(owner))


@command.command("migrate")
def migrate_command() -> None:
    """Apply the migrations that are missing; LLMOPS_DATABASE_URL is the owner's."""
    _report(migrate(_variable("LLMOPS_DATABASE_URL")))


def _variable(name: str) -> str:
    value = environ().get(name)
    if not value:
        raise ConfigurationError(f"{name} is not set: see `llmops database init --help`")
    return value


def _report(applied: list[str]) -> None:
    click.echo("\n".join(f"applied {name}" for name in applied) or "the database is up to date")
