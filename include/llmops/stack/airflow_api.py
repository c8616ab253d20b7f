"""A small client of Airflow's public API: runs of DAGs, and requests that wait for a person."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import httpx

from llmops.errors import ServiceUnavailable, TerminalError

__all__ = ["AirflowClient", "AirflowError"]

_FINISHED = ("success", "failed")
_PATIENCE = httpx.Timeout(120, connect=30)


class AirflowError(TerminalError):
    """Airflow refused a request; ``status`` is the HTTP status of its answer."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class AirflowClient:
    """Talks to Airflow at ``url`` as ``user``; the token is fetched when first needed."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url = url.rstrip("/")
        self.user = user
        self._password = password
        self._http = httpx.Client(base_url=self.url, timeout=_PATIENCE, trust_env=False)
        self._token: str | None = None

    def __enter__(self) -> AirflowClient:
        """Return the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close its connections."""
        self._http.close()

    def request(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """Return the answer's JSON to a request below ``/api/v2``.

        Raises ServiceUnavailable when Airflow does not answer or fails, AirflowError when it refuses.
        """
        answer = self._send(method, f"/api/v2{path}", body, query)
        if answer.status_code == 401:
            self._token = None
            answer = self._send(method, f"/api/v2{path}", body, query)
        _check(answer, f"{method} {path} as {self.user!r}")
        return answer.json() if answer.content else None

    def wait_for_dag(self, dag_id: str, *, timeout_seconds: float = 120) -> None:
        """Wait until Airflow has read the file of a DAG."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                self.request("GET", f"/dags/{dag_id}")
                return
            except AirflowError as error:
                if error.status != 404:
                    raise
            if time.monotonic() > deadline:
                problems = [e["stack_trace"].strip() for e in self.import_errors()]
                raise ServiceUnavailable(
                    f"Airflow did not find the DAG {dag_id!r} within {timeout_seconds:.0f} s. "
                    + ("\n".join(problems) or "See `llmops stack logs airflow-dag-processor`")
                )
            time.sleep(0.5)

    def import_errors(self) -> list[dict[str, Any]]:
        """Return the DAG files that could not be imported."""
        errors: list[dict[str, Any]] = self.request("GET", "/importErrors")["import_errors"]
        return errors

    def unpause(self, dag_id: str) -> None:
        """Let a DAG's runs start."""
        self.request("PATCH", f"/dags/{dag_id}", {"is_paused": False})

    def trigger(
        self, dag_id: str, conf: Mapping[str, Any] | None = None, *, logical_date: str | None = None
    ) -> str:
        """Start a run; return its id."""
        body = {"logical_date": logical_date, "conf": dict(conf or {})}
        return str(self.request("POST", f"/dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def runs(self, dag_id: str, *, limit: int = 100) -> list[dict[str, Any]]:
        """Return the latest runs of a DAG, newest first."""
        found: list[dict[str, Any]] = self.request(
            "GET", f"/dags/{dag_id}/dagRuns", limit=limit, order_by="-run_after"
        )["dag_runs"]
        return found

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Return one run."""
        found: dict[str, Any] = self.request("GET", _run(dag_id, run_id))
        return found

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the task instances of a run."""
        found: list[dict[str, Any]] = self.request("GET", f"{_run(dag_id, run_id)}/taskInstances", limit=500)[
            "task_instances"
        ]
        return found

    def wait_for_run(
        self,
        dag_id: str,
        run_id: str,
        *,
        timeout_seconds: float = 600,
        progress: Callable[[list[dict[str, Any]]], None] | None = None,
    ) -> str:
        """Wait until a run ends; return ``success`` or ``failed``.

        ``progress`` is given the task instances at every look. A moment without an answer is waited out.
        """
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            try:
                state = str(self.run(dag_id, run_id)["state"])
                if progress:
                    progress(self.tasks(dag_id, run_id))
                if state in _FINISHED:
                    return state
            except ServiceUnavailable:
                pass
            time.sleep(0.5)
        raise ServiceUnavailable(
            f"the run {run_id!r} of {dag_id!r} did not end within {timeout_seconds:.0f} s: see {self.url}"
        )

    def result(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1) -> Any:
        """Return what a task returned; of a mapped one, what its instance ``map_index`` did."""
        path = f"{_run(dag_id, run_id)}/taskInstances/{task_id}/xcomEntries/return_value"
        return self.request("GET", path, deserialize=True, map_index=map_index)["value"]

    def log(self, dag_id: str, run_id: str, task_id: str, *, attempt: int = 1) -> str:
        """Return the text of a task's log, with each exception's type and message and each skip's reason."""
        path = f"{_run(dag_id, run_id)}/taskInstances/{task_id}/logs/{attempt}"
        content = self.request("GET", path, full_content=True)["content"]
        return "\n".join(_text(part) for part in content)

    def question(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any] | None:
        """Return what a task asks a person and what was answered, or None if it has not asked."""
        try:
            found: dict[str, Any] = self.request("GET", _question(dag_id, run_id, task_id))
        except AirflowError as error:
            if error.status == 404:
                return None
            raise
        return found

    def answer(
        self, dag_id: str, run_id: str, task_id: str, option: str, form: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Answer a task's question with one of its options and the fields of its form.

        Raises AirflowError when it has not asked, was answered before, or may not be answered by this user.
        """
        body = {"chosen_options": [option], "params_input": dict(form or {})}
        given: dict[str, Any] = self.request("PATCH", _question(dag_id, run_id, task_id), body)
        return given

    def sign_in(self) -> None:
        """Fetch a token; raise AirflowError when Airflow does not know this user with this password."""
        try:
            answer = self._http.post("/auth/token", json={"username": self.user, "password": self._password})
        except httpx.TransportError as error:
            raise self._silent(error) from error
        _check(answer, f"the sign-in as {self.user!r}")
        self._token = str(answer.json()["access_token"])

    def _send(self, method: str, path: str, body: Any, query: Mapping[str, Any]) -> httpx.Response:
        try:
            if self._token is None:
                self.sign_in()
            headers = {"Authorization": f"Bearer {self._token}"}
            return self._http.request(method, path, json=body, params=query or None, headers=headers)
        except httpx.TransportError as error:
            raise self._silent(error) from error

    def _silent(self, error: httpx.TransportError) -> ServiceUnavailable:
        return ServiceUnavailable(
            f"Airflow does not answer at {self.url}: {error!r}. On a laptop: `llmops stack status`"
        )


def _text(part: Any) -> str:
    """Return one entry of a task's log as text, with the reason and the errors that it carries."""
    if not isinstance(part, Mapping):
        return str(part)
    errors = [
        f"{error.get('exc_type')}: {error.get('exc_value')}" for error in part.get("error_detail") or ()
    ]
    reason = f" {part['reason']}" if part.get("reason") else ""
    return "\n".join([f"{part.get('event', part)}{reason}", *errors])


def _check(answer: httpx.Response, what: str) -> None:
    if answer.status_code >= 500:
        raise ServiceUnavailable(f"Airflow failed at {what}: {answer.status_code} {answer.text[:300]!r}")
    if not answer.is_success:
        raise AirflowError(
            f"Airflow refused {what}: {answer.status_code} {answer.text[:500]!r}", answer.status_code
        )


def _run(dag_id: str, run_id: str) -> str:
    return f"/dags/{quote(dag_id, safe='')}/dagRuns/{quote(run_id, safe='')}"


def _question(dag_id: str, run_id: str, task_id: str) -> str:
    return f"{_run(dag_id, run_id)}/taskInstances/{quote(task_id, safe='')}/-1/hitlDetails"
