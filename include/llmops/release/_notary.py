"""The notary: the one process that may write approvals, after reading Airflow's answer for itself."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
import psycopg
from psycopg.rows import class_row

from llmops.assistant import Approval as ApprovalRules
from llmops.assistant import load_assistant
from llmops.database import connect
from llmops.errors import IntegrityError, LlmopsError, NotApproved, ServiceUnavailable
from llmops.heartbeat import Heartbeat
from llmops.release._approval import ApprovalRequest, require_pass
from llmops.release._store import read_manifest, read_report
from llmops.settings import Environment

log = logging.getLogger(__name__)

_POLL_SECONDS = 2.0
_GRACE = timedelta(seconds=60)


@dataclass(frozen=True)
class Finding:
    """What the notary concluded about one request."""

    decision: str
    approver: str | None
    reason: str
    channel: str
    answered_at: datetime | None


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

    def ended(self, request: ApprovalRequest) -> str | None:
        """Return how the run of a request ended, in words, or None while it can still be answered."""
        run = self._read(_run_path(request))
        if run is None:
            return "the run was deleted"
        return "the run failed" if run.get("state") == "failed" else None

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


def judge(
    request: ApprovalRequest,
    authors: tuple[str, ...],
    rules: ApprovalRules,
    answer: dict[str, Any] | None,
    now: datetime,
) -> Finding | None:
    """Return how a request ended, or None while it is open.

    ``answer`` is Airflow's record of it. An approval counts only when a person on the approvers' list, who is not an
    author, chose Approve between asking and deadline, on a text that carries both hashes. Everything else that
    ends a request is a rejection with its reason.
    """
    if answer is None or not answer.get("response_received"):
        if now > request.deadline + _GRACE:
            return Finding("rejected", None, "nobody answered before the deadline", "airflow", None)
        return None
    person = (answer.get("responded_by_user") or {}).get("name")
    channel = "demo" if (answer.get("params_input") or {}).get("channel") == "demo" else "airflow"
    answered_at = _time(answer.get("responded_at"))
    chosen = answer.get("chosen_options")
    objection = None
    if person is None:
        objection = "nobody answered before the deadline"
    elif chosen != ["Approve"]:
        objection = f"{person} chose {', '.join(chosen or []) or 'nothing'}"
    elif person not in rules.approvers:
        objection = f"{person} is not on the list of approvers ({', '.join(rules.approvers)})"
    elif person in authors:
        objection = f"{person} is an author of this release; somebody else must approve it"
    elif request.release_id not in (body := answer.get("body") or "") or request.report_hash not in body:
        objection = "the text that was approved does not carry the hashes of this release and its report"
    elif (
        answered_at is None or not (_time(answer.get("created_at")) or now) <= answered_at <= request.deadline
    ):
        objection = f"the answer of {answered_at} is not between asking and the deadline {request.deadline}"
    elif channel == "demo" and request.environment != "dev":
        objection = f"an answer of the demo counts in environment 'dev' only, not in {request.environment!r}"
    if channel == "demo" and request.environment != "dev":
        channel = "airflow"
    if objection:
        return Finding("rejected", person, objection, channel, answered_at)
    return Finding("approved", person, f"{person} approved", channel, answered_at)


class Notary:
    """Watches open requests and records how each ended, exactly once."""

    def __init__(self, environment: Environment, reader: AirflowReader) -> None:
        self._environment = environment
        self._url = environment.database_url.get_secret_value()
        self._reader = reader

    def turn(self) -> int:
        """Look at every open request once; return how many were settled.

        A request that cannot be settled now does not keep the others waiting; it is tried again.
        """
        settled = 0
        for request in self._open_requests():
            try:
                settled += self._settle(request)
            except LlmopsError as error:
                log.warning("The request of run %r cannot be settled now: %s", request.run_id, error)
        return settled

    def run(self, host: str, port: int) -> None:
        """Turn for ever, answering ``/healthz``; an outage is logged and waited out."""
        with Heartbeat(host, port) as heartbeat:
            log.info("Notary of environment %r watches approval requests", self._environment.name)
            while True:
                try:
                    settled = self.turn()
                    heartbeat.beat(settled=settled)
                except (LlmopsError, psycopg.Error) as error:
                    log.warning("The notary cannot settle requests now and tries again: %s", error)
                time.sleep(_POLL_SECONDS)

    def _open_requests(self) -> list[ApprovalRequest]:
        with (
            connect(self._url) as connection,
            connection.cursor(row_factory=class_row(ApprovalRequest)) as cursor,
        ):
            cursor.execute(
                "SELECT r.* FROM approval_requests r LEFT JOIN approvals a USING (nonce) "
                "WHERE a.nonce IS NULL AND r.environment = %s ORDER BY r.opened_at",
                (self._environment.name,),
            )
            return cursor.fetchall()

    def _settle(self, request: ApprovalRequest) -> bool:
        rules = load_assistant(request.assistant, self._environment).approval
        try:
            finding = self._find(request, rules)
        except (NotApproved, IntegrityError) as objection:
            finding = Finding("rejected", None, str(objection), "airflow", None)
        if finding is None:
            return False
        expires = (finding.answered_at or datetime.now(UTC)) + timedelta(hours=rules.valid_hours)
        with connect(self._url) as connection:
            connection.execute(
                "INSERT INTO approvals (nonce, release_id, report_hash, decision, approver, reason, channel, "
                "environment, answered_at, expires_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) "
                "ON CONFLICT (nonce) DO NOTHING",
                (
                    *(
                        request.nonce,
                        request.release_id,
                        request.report_hash,
                        finding.decision,
                        finding.approver,
                    ),
                    *(finding.reason, finding.channel, request.environment, finding.answered_at, expires),
                ),
            )
        log.info("Release %s: %s (%s)", request.release_id[:12], finding.decision, finding.reason)
        return True

    def _find(self, request: ApprovalRequest, rules: ApprovalRules) -> Finding | None:
        """Return how a request ended, or None while it is open.

        Raises NotApproved or IntegrityError when what it rests on allows no approval, whatever a person says.
        """
        manifest = read_manifest(self._url, request.release_id)
        require_pass(request, manifest, read_report(self._url, request.report_hash))
        finding = judge(request, manifest.authors, rules, self._reader.answer(request), datetime.now(UTC))
        if finding is None and (ended := self._reader.ended(request)):
            return Finding("rejected", None, f"{ended} before anybody answered", "airflow", None)
        return finding


def _time(value: Any) -> datetime | None:
    """Return an ISO timestamp of Airflow's as a datetime with zone, None when there is none."""
    return datetime.fromisoformat(str(value).replace("Z", "+00:00")) if value else None
