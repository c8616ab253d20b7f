"""Approvals: what is asked, what the notary recorded, and whether it allows a promotion."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from llmops.database import Database, connect, connected
from llmops.errors import IntegrityError, MissingInput, NotApproved
from llmops.manifest import Manifest, content_hash
from llmops.release._statement import Approval, Statement, notary_keys, open_statement
from llmops.release._store import StoredReport, read_manifest, read_report
from llmops.settings import Environment


@dataclass(frozen=True)
class ApprovalRequest:
    """One question to the approvers: may exactly this release, on exactly this report, go to production?"""

    nonce: UUID
    release_id: str
    report_hash: str
    assistant: str
    environment: str
    deadline: datetime
    dag_id: str
    run_id: str
    task_id: str
    opened_at: datetime


@dataclass(frozen=True)
class RunReference:
    """Where in Airflow a request is answered."""

    dag_id: str
    run_id: str
    task_id: str


def open_approval(
    environment: Environment, release_id: str, report_hash: str, deadline: datetime, run: RunReference
) -> ApprovalRequest:
    """Write down what the approvers will be asked; opening it again for the same run returns the same request.

    Raises NotApproved unless the report is a PASS of exactly this release.
    """
    url = environment.database_url.get_secret_value()
    manifest = read_manifest(url, release_id)
    report = read_report(url, report_hash)
    if report.release_id != release_id or report.verdict != "PASS":
        raise NotApproved(
            f"report {report_hash[:12]} is {report.verdict} for release {report.release_id[:12]}, "
            f"so it cannot be put before an approver of release {release_id[:12]}"
        )
    with connect(url) as connection:
        connection.execute(
            "INSERT INTO approval_requests "
            "(release_id, report_hash, assistant, environment, deadline, dag_id, run_id, task_id) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (dag_id, run_id, task_id) DO NOTHING",
            (
                *(release_id, report_hash, manifest.assistant, environment.name, deadline),
                *(run.dag_id, run.run_id, run.task_id),
            ),
        )
    request = request_of_run(url, run)
    if (request.release_id, request.report_hash) != (release_id, report_hash):
        raise NotApproved(
            f"run {run.run_id!r} already asked about release {request.release_id[:12]}: start a new run"
        )
    return request


def request_of_run(url: str, run: RunReference) -> ApprovalRequest:
    """Return the request that a run opened; raise MissingInput if it opened none."""
    with connect(url) as connection, connection.cursor(row_factory=class_row(ApprovalRequest)) as cursor:
        cursor.execute(
            "SELECT * FROM approval_requests WHERE dag_id = %s AND run_id = %s AND task_id = %s",
            (run.dag_id, run.run_id, run.task_id),
        )
        request = cursor.fetchone()
    if request is None:
        raise MissingInput(f"run {run.run_id!r} of {run.dag_id!r} opened no approval request")
    return request


def request_text(request: ApprovalRequest, manifest: Manifest, report: StoredReport) -> tuple[str, str]:
    """Return subject and Markdown body of a request: the two hashes, the deadline and the gate's report.

    The notary counts an answer only if exactly this text was shown.
    """
    lines = [
        f"**Release** `{request.release_id}`",
        f"**Gate report** `{request.report_hash}`",
        f"**Answer before** {request.deadline.astimezone(UTC):%Y-%m-%d %H:%M} UTC; no answer is a rejection.",
        _authors_line(manifest),
    ]
    if gate_settings(manifest, report).get("approval") == "personal":
        lines.append(
            "**Sign it too**, with your own key: "
            f"`llmops release approve {request.release_id[:12]} --key <file>`. Without that your answer does not count."
        )
    lines += ["", report.markdown]
    return f"Release {request.release_id[:12]} of {request.assistant} to production?", "\n\n".join(lines)


def _authors_line(manifest: Manifest) -> str:
    names = ", ".join(manifest.authors)
    known = (
        f"**Authors** {names}: none of them may approve."
        if names
        else "**Authors** unknown: two must approve."
    )
    unknown = " Who wrote its code is not known." if manifest.committers is None else ""
    return known + unknown + (" **Made from uncommitted code.**" if manifest.dirty else "")


def gate_settings(manifest: Manifest, report: StoredReport) -> dict[str, Any]:
    """Return the gate's settings that a report was decided with; raise IntegrityError unless the manifest pins them."""
    rules = json.loads(report.report).get("gate")
    settings = (
        {key: value for key, value in rules.items() if key != "digest"} if isinstance(rules, dict) else {}
    )
    if content_hash(settings) != manifest.gate_digest:
        raise IntegrityError(
            f"report {report.report_hash[:12]} was decided with other rules than release {manifest.release_id[:12]} "
            "pins: run release_assistant again"
        )
    return settings


def require_pass(request: ApprovalRequest, manifest: Manifest, report: StoredReport) -> None:
    """Raise NotApproved unless the report is a PASS of exactly the release, assistant and environment asked about."""
    asked = (request.release_id, request.assistant, request.environment)
    if (manifest.release_id, manifest.assistant, manifest.environment) != asked:
        raise NotApproved(
            f"the request for release {request.release_id[:12]} of {request.assistant!r} in "
            f"{request.environment!r} is not about its manifest, of {manifest.assistant!r} in "
            f"{manifest.environment!r}: run release_assistant again"
        )
    require_pass_of(manifest, report)


def require_pass_of(manifest: Manifest, report: StoredReport) -> None:
    """Raise NotApproved unless a gate report is a PASS of exactly this release, by the rules that it pins."""
    if report.verdict != "PASS" or report.release_id != manifest.release_id:
        raise NotApproved(
            f"report {report.report_hash[:12]} is {report.verdict} for release {report.release_id[:12]}, not a PASS of "
            f"release {manifest.release_id[:12]}: run release_assistant again"
        )
    gate_settings(manifest, report)


def approval_of(database: Database, nonce: UUID) -> Approval | None:
    """Return what the notary recorded for a request, or None while it is open."""
    with connected(database) as connection, connection.cursor(row_factory=class_row(Approval)) as cursor:
        cursor.execute("SELECT * FROM approvals WHERE nonce = %s", (nonce,))
        return cursor.fetchone()


def require_approval(environment: Environment, request: ApprovalRequest) -> Statement:
    """Return the notary's statement that allows this promotion now; raise NotApproved saying what is missing.

    Raises SignatureInvalid for a record that the notary did not sign, or not like this.
    """
    approval = approval_of(environment.database_url.get_secret_value(), request.nonce)
    where = f"release {request.release_id[:12]} of {request.assistant!r}"
    if approval is None:
        raise NotApproved(f"{where}: the notary recorded no answer to the request of run {request.run_id!r}")
    if approval.decision != "approved":
        raise NotApproved(f"{where} was rejected: {approval.reason}")
    statement = open_statement(approval, notary_keys(environment))
    if (statement.release_id, statement.report_hash) != (request.release_id, request.report_hash):
        raise NotApproved(
            f"{where}: the approval is of release {statement.release_id[:12]} on report {statement.report_hash[:12]}, "
            f"not of this one on report {request.report_hash[:12]}"
        )
    require_scope(statement, environment, request.assistant)
    if statement.expires_at <= datetime.now(UTC):
        raise NotApproved(
            f"{where}: the approval expired at {statement.expires_at:%Y-%m-%d %H:%M} UTC; ask again"
        )
    return statement


def require_scope(statement: Statement, environment: Environment, assistant: str) -> None:
    """Raise NotApproved unless an approval is for this environment and assistant."""
    if (statement.environment, statement.assistant) != (environment.name, assistant):
        raise NotApproved(
            f"the approval of release {statement.release_id[:12]} is for {statement.assistant!r} in environment "
            f"{statement.environment!r}, this is {assistant!r} in {environment.name!r}"
        )
