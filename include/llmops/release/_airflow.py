"""Airflow as the notary sees it: read with an account that can do nothing else."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx

from llmops.errors import ServiceUnavailable
from llmops.release._approval import ApprovalRequest


class AirflowReader:
    """Reads answers to approval requests with an account that can do nothing else."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self._client = httpx.Client(base_url=url.rstrip("/"), timeout=30)
        self._login = {"username": user, "password": password}
        self._token: str | None = None

    def answer(self, request: ApprovalRequest) -> dict[str, Any] | None:
        """Return Airflow's record of a request, or None while the task has not asked yet.

        Raises ServiceUnavailable when Airflow does not answer as it should.
        """
        return self._read(
            f"{_run_path(request)}/taskInstances/{quote(request.task_id, safe='')}/-1/hitlDetails"
        )

    def run(self, request: ApprovalRequest) -> dict[str, Any] | None:
        """Return Airflow's record of the run that asked, or None when it was deleted."""
        return self._read(_run_path(request))

    def _read(self, path: str) -> dict[str, Any] | None:
        try:
            response = self._get(path)
            if response.status_code == 401:
                self._token = None
                response = self._get(path)
            if response.status_code == 404:
                return None
            response.raise_for_status()
            record = response.json()
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise ServiceUnavailable(
                f"Airflow at {self._client.base_url} cannot be read: {error!r}"
            ) from error
        if not isinstance(record, dict):
            raise ServiceUnavailable(f"Airflow at {self._client.base_url} answered {path} with no record")
        return record

    def _get(self, path: str) -> httpx.Response:
        if self._token is None:
            login = self._client.post("/auth/token", json=self._login)
            login.raise_for_status()
            self._token = str(login.json()["access_token"])
        return self._client.get(path, headers={"Authorization": f"Bearer {self._token}"})


def _run_path(request: ApprovalRequest) -> str:
    return f"/api/v2/dags/{quote(request.dag_id, safe='')}/dagRuns/{quote(request.run_id, safe='')}"
