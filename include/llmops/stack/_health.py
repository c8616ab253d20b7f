"""Health checks: each tells whether a process that was started at some time works by now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import httpx

from llmops.stack.postgres import EmbeddedPostgres

__all__ = ["AirflowHealth", "Health", "HttpHealth", "PostgresHealth"]


class Health(Protocol):
    """What the supervisor asks about a process."""

    def healthy(self, since: float) -> bool:
        """Tell whether the process that was started at the Unix time ``since`` works."""


@dataclass(frozen=True)
class HttpHealth:
    """The URL answers with a success."""

    url: str

    def healthy(self, since: float) -> bool:
        """Tell whether the URL answers with a success."""
        return _get(self.url) is not None


@dataclass(frozen=True)
class PostgresHealth:
    """The server accepts connections."""

    server: EmbeddedPostgres

    def healthy(self, since: float) -> bool:
        """Tell whether the server accepts connections."""
        return self.server.ready()


@dataclass(frozen=True)
class AirflowHealth:
    """Airflow's API reports the component as healthy, by a heartbeat of this very process."""

    url: str
    component: str

    def healthy(self, since: float) -> bool:
        """Tell whether the component has sent a heartbeat since it was started."""
        answer = _get(f"{self.url}/api/v2/monitor/health")
        report = answer.json().get(self.component) if answer is not None else None
        if not report or report.get("status") != "healthy":
            return False
        heartbeat = report.get(f"latest_{self.component}_heartbeat")
        return heartbeat is None or datetime.fromisoformat(heartbeat).timestamp() >= since


def _get(url: str) -> httpx.Response | None:
    try:
        answer = httpx.get(url, timeout=10, trust_env=False)
    except httpx.TransportError:
        return None
    return answer if answer.is_success else None
