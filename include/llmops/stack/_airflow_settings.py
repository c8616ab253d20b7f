"""Loading ``airflow_settings.yaml``, the Astro CLI's format for connections, variables and pools."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from llmops.errors import ConfigurationError
from llmops.settings import Section, read_yaml, validate
from llmops.stack.airflow_api import AirflowClient

__all__ = ["AirflowSettings", "load_airflow_settings", "read_airflow_settings"]

log = logging.getLogger(__name__)


class Connection(Section):
    """One entry of ``connections``."""

    conn_id: str
    conn_type: str
    conn_host: str | None = None
    conn_schema: str | None = None
    conn_login: str | None = None
    conn_password: str | None = None
    conn_port: int | None = None
    conn_uri: None = None
    conn_extra: dict[str, Any] | str | None = None

    def entity(self) -> dict[str, Any]:
        """Return it as Airflow's API wants it."""
        extra = self.conn_extra
        return {
            "connection_id": self.conn_id,
            "conn_type": self.conn_type,
            "host": self.conn_host,
            "schema": self.conn_schema,
            "login": self.conn_login,
            "password": self.conn_password,
            "port": self.conn_port,
            "extra": json.dumps(extra) if isinstance(extra, dict) else extra,
        }


class Variable(Section):
    """One entry of ``variables``."""

    variable_name: str
    variable_value: Any

    def entity(self) -> dict[str, Any]:
        """Return it as Airflow's API wants it."""
        return {"key": self.variable_name, "value": self.variable_value}


class Pool(Section):
    """One entry of ``pools``."""

    pool_name: str
    pool_slot: int
    pool_description: str | None = None

    def entity(self) -> dict[str, Any]:
        """Return it as Airflow's API wants it."""
        return {"name": self.pool_name, "slots": self.pool_slot, "description": self.pool_description}


class AirflowSettings(Section):
    """What ``airflow:`` holds in the file."""

    connections: list[Connection] = Field(default_factory=list)
    variables: list[Variable] = Field(default_factory=list)
    pools: list[Pool] = Field(default_factory=list)

    @field_validator("connections", "variables", "pools", mode="before")
    @classmethod
    def _empty(cls, value: Any) -> Any:
        """Take a key without a value as an empty list, as the Astro CLI does."""
        return [] if value is None else value

    def at(self, places: Mapping[str, Mapping[str, Any]]) -> AirflowSettings:
        """Return the same, with the connections named in ``places`` pointed at other addresses."""
        moved = [c.model_copy(update=dict(places.get(c.conn_id, {}))) for c in self.connections]
        return self.model_copy(update={"connections": moved})


class _File(Section):
    airflow: AirflowSettings


def read_airflow_settings(file: Path) -> AirflowSettings:
    """Return what the file holds; raise ConfigurationError that names what is wrong in it."""
    return validate(_File, read_yaml(file), file).airflow


def load_airflow_settings(settings: AirflowSettings, client: AirflowClient) -> dict[str, int]:
    """Create what is missing in Airflow and overwrite what is there; return how many of each kind.

    Raises ConfigurationError when Airflow does not accept an entry.
    """
    kinds: dict[str, Sequence[Connection | Variable | Pool]] = {
        "pools": settings.pools,
        "connections": settings.connections,
        "variables": settings.variables,
    }
    for kind, entries in kinds.items():
        if not entries:
            continue
        entities = [entry.entity() for entry in entries]
        action = {"action": "create", "action_on_existence": "overwrite", "entities": entities}
        outcome = client.request("PATCH", f"/{kind}", {"actions": [action]})["create"]
        if outcome["errors"]:
            raise ConfigurationError(
                f"Airflow did not accept some of the {kind} in airflow_settings.yaml: {outcome['errors']!r}"
            )
    counts = {kind: len(entries) for kind, entries in kinds.items()}
    log.info("Loaded %s into Airflow", counts)
    return counts
