"""Who gives a command that the ledger remembers: a user of Airflow, or the owner of a reviewer's key."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from llmops.release import Actor, owner_of_key
from llmops.settings import Environment, environ
from llmops.signing import SigningKey
from llmops.stack import AirflowClient, Stack


@dataclass(frozen=True)
class Who:
    """What a person gave to be known by."""

    user: str | None
    key: Path | None

    def actor(self, environment: Environment) -> Actor:
        """Return the name, authenticated: as the owner of a reviewer's key, or by a login at Airflow.

        Raises SignatureInvalid or AirflowError when it cannot be. On a laptop the stack's own users need no password.
        """
        if self.key is not None:
            return owner_of_key(
                environment, SigningKey.load(self.key, lambda: ask_secret("Passphrase").encode())
            )
        user = self.user or environ().get("LLMOPS_USER") or "admin"
        with _client(environment, user) as airflow:
            airflow.sign_in()
        return Actor(user, "Airflow login")


def _client(environment: Environment, user: str) -> AirflowClient:
    given = environ().get("LLMOPS_AIRFLOW_PASSWORD")
    stack = Stack()
    if given is None and stack.is_running and stack.addresses["airflow"] == environment.airflow_url:
        return stack.client(user)
    return AirflowClient(environment.airflow_url, user, given or ask_secret(f"Airflow password of {user}"))


def sign_in(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options ``--user`` and ``--key`` to a command, which gets them as ``who``."""

    @functools.wraps(function)
    def with_who(user: str | None, key: Path | None, **values: Any) -> Any:
        return function(who=Who(user, key), **values)

    by_name = click.option(
        "--user", help="Your user in Airflow, by default LLMOPS_USER; asks for the password."
    )
    by_key = click.option(
        "--key", type=click.Path(path_type=Path), help="Your SSH private key, instead of a login."
    )
    return by_name(by_key(with_who))


def ask_secret(what: str) -> str:
    """Ask for a secret on the terminal without showing it."""
    return str(click.prompt(what, hide_input=True, err=True))
