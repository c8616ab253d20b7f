"""Where one stack keeps its files, which ports it has and which secrets."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llmops.settings import include_root, inherited
from llmops.stack._secrets import load_secrets
from llmops.stack.postgres import EmbeddedPostgres

__all__ = ["MARK", "PORTS", "SUPERVISOR_MARK", "USERS", "Layout", "Options"]

MARK = "LLMOPS_STACK"
"""The variable that marks a process as one of the stack in this home."""

SUPERVISOR_MARK = "LLMOPS_STACK_SUPERVISOR"
"""The variable that marks the supervisor of the stack in this home; its children do not carry it."""

PORTS = {"airflow": 8080, "mlflow": 5000, "serving": 8000, "follower": 8011, "notary": 8012}
"""The port each service has by default; ``LLMOPS_<NAME>_PORT`` changes it."""

USERS = {"admin": "admin", "author": "user", "reviewer": "user", "service": "viewer"}
"""Airflow's users and their roles: a user may answer an approval, a viewer may read it."""

_SECRETS = {
    **dict.fromkeys(("fernet", "airflow_api", "mlflow_gateway"), 32),
    "airflow_jwt": 48,  # it signs with HS512
    **{f"user_{name}": 12 for name in USERS},
}


@dataclass(frozen=True)
class Options:
    """What a person decides about a stack.

    ``only`` names the processes to run, by default all; what they require comes with them.
    ``ports`` are wishes. ``dags`` is the DAG folder, by default ``dags`` in the checkout.
    """

    home: Path
    only: tuple[str, ...] = ()
    ports: Mapping[str, int] = field(default_factory=dict)
    dags: Path | None = None


class Layout:
    """Everything the process table is made from."""

    def __init__(self, options: Options, ports: Mapping[str, int]) -> None:
        self.home = options.home
        self.home.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.root = include_root().parent
        self.dags = options.dags or self.root / "dags"
        self.ports = dict(ports)
        self.secrets = load_secrets(self.home / "secrets.json", _SECRETS)
        self.postgres = EmbeddedPostgres(self.home / "postgres")

    @property
    def logs(self) -> Path:
        """Return the folder with one log file per process."""
        return self.home / "logs"

    @property
    def airflow_home(self) -> Path:
        """Return Airflow's own folder."""
        return self.home / "airflow"

    @property
    def notary_key(self) -> Path:
        """Return the file of the notary's private key."""
        return self.home / "notary" / "key"

    @property
    def notary_keys(self) -> Path:
        """Return the file of the notary's public keys."""
        return self.home / "notary" / "keys"

    def address(self, service: str) -> str:
        """Return the URL of a service."""
        return f"http://127.0.0.1:{self.ports[service]}"

    def password(self, user: str) -> str:
        """Return the password of an Airflow user."""
        return self.secrets[f"user_{user}"]

    def published(self, role: str = "llmops_worker") -> dict[str, str]:
        """Return the variables through which processes find each other, with the database as ``role``."""
        storage = inherited().get("LLMOPS_STORAGE_ROOT") or str(self.home / "lakehouse")
        return {
            "LLMOPS_DATABASE_URL": self.postgres.url(role),
            "LLMOPS_MLFLOW_URL": self.address("mlflow"),
            "LLMOPS_AIRFLOW_URL": self.address("airflow"),
            "LLMOPS_SERVING_URL": self.address("serving"),
            "LLMOPS_NOTARY_URL": self.address("notary"),
            "LLMOPS_STORAGE_ROOT": storage,
            "LLMOPS_NOTARY_KEYS": str(self.notary_keys),
        }

    def environment(self, role: str = "llmops_worker") -> dict[str, str]:
        """Return the environment of a process of ours: what this one has, and where the others are."""
        own = inherited()
        for name in ("PYTHONDONTWRITEBYTECODE", SUPERVISOR_MARK):
            own.pop(name, None)
        include = str(include_root())
        paths = [include, str(self.root / "config"), own.get("PYTHONPATH", "")]
        loopback = ["127.0.0.1", "localhost", own.get("NO_PROXY", own.get("no_proxy", ""))]
        no_proxy = ",".join(filter(None, loopback))
        return {
            "LLMOPS_ENV": "dev",
            **own,
            **self.published(role),
            MARK: str(self.home),
            "LLMOPS_HOME": str(self.home),
            "LLMOPS_INCLUDE": include,
            "PYTHONPATH": ":".join(filter(None, paths)),
            "PYTHONUNBUFFERED": "1",
            "NO_PROXY": no_proxy,
            "no_proxy": no_proxy,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        }

    @staticmethod
    def python(*arguments: str) -> tuple[str, ...]:
        """Return the command that runs a module of this installation."""
        return (sys.executable, "-m", *arguments)
