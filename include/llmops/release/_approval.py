"""Approvals: what is asked, what the notary recorded, and whether it allows a promotion."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from psycopg.rows import class_row

from llmops.database import connect
from llmops.errors import MissingInput, NotApproved
from llmops.manifest import Manifest
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
class Approval:
    """The notary's record of how a request ended."""

    nonce: UUID
    release_id: str
    report_hash: str
    decision: str
    approver: str | None
    reason: str
    channel: str
    environment: str
    answered_at: datetime | None
    expires_at: datetime
    recorded_at: datetime


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


def request_text(url: str, request: ApprovalRequest) -> tuple[str, str]:
    """Return subject and Markdown body of a request: the two hashes, the deadline and the gate's report."""
    report = read_report(url, request.report_hash)
    manifest = read_manifest(url, request.release_id)
    lines = [
        f"**Release** `{request.release_id}`",
        f"**Gate report** `{request.report_hash}`",
        f"**Answer before** {request.deadline.astimezone(UTC):%Y-%m-%d %H:%M} UTC; no answer is a rejection.",
        f"**Authors** {', '.join(manifest.authors)}: none of them may approve."
        + (" **Made from uncommitted code.**" if manifest.dirty else ""),
        "",
        report.markdown,
    ]
    return f"Release {request.release_id[:12]} of {request.assistant} to production?", "\n\n".join(lines)


def require_pass(request: ApprovalRequest, manifest: Manifest, report: StoredReport) -> None:
    """Raise NotApproved unless the report is a PASS of exactly the release, assistant and environment asked about."""
    asked = (request.release_id, request.assistant, request.environment)
    if report.verdict != "PASS" or (report.release_id, manifest.assistant, manifest.environment) != asked:
        raise NotApproved(
            f"the request for release {request.release_id[:12]} of {request.assistant!r} in "
            f"{request.environment!r} rests on report {request.report_hash[:12]}, which is {report.verdict} for "
            f"release {report.release_id[:12]} of {manifest.assistant!r} in {manifest.environment!r}: "
            "run release_assistant again"
        )


def approval_of(url: str, nonce: UUID) -> Approval | None:
    """Return what the notary recorded for a request, or None while it is open."""
    with connect(url) as connection, connection.cursor(row_factory=class_row(Approval)) as cursor:
        cursor.execute("SELECT * FROM approvals WHERE nonce = %s", (nonce,))
        return cursor.fetchone()


def require_approval(environment: Environment, request: ApprovalRequest) -> Approval:
    """Return the approval that allows this promotion now; raise NotApproved saying what is missing."""
    approval = approval_of(environment.database_url.get_secret_value(), request.nonce)
    where = f"release {request.release_id[:12]} of {request.assistant!r}"
    if approval is None:
        raise NotApproved(f"{where}: the notary recorded no answer to the request of run {request.run_id!r}")
    if approval.decision != "approved":
        raise NotApproved(f"{where} was rejected: {approval.reason}")
    if (approval.release_id, approval.report_hash) != (request.release_id, request.report_hash):
        raise NotApproved(
            f"{where}: the approval is of release {approval.release_id[:12]} on report {approval.report_hash[:12]}, "
            f"not of this one on report {request.report_hash[:12]}"
        )
    if approval.environment != environment.name:
        raise NotApproved(
            f"{where}: the approval is for environment {approval.environment!r}, this is {environment.name!r}"
        )
    if approval.expires_at <= datetime.now(UTC):
        raise NotApproved(
            f"{where}: the approval expired at {approval.expires_at:%Y-%m-%d %H:%M} UTC; ask again"
        )
    return approval
