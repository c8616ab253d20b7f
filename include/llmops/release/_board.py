"""What the pages about releases show: reads only, a page at a time.

Everything here may have been written by somebody who means harm: what is damaged or not signed comes back with the
reason beside it, so that one bad row hides no other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar
from uuid import UUID

from psycopg.rows import class_row, dict_row

from llmops.database import connect
from llmops.errors import ConfigurationError, IntegrityError, SignatureInvalid
from llmops.manifest import parse_manifest
from llmops.release._approval import ApprovalRequest
from llmops.release._ledger import HEADS, LedgerEntry, SignedHead, open_head
from llmops.release._statement import APPROVALS, Approval, Statement, notary_keys, open_statement
from llmops.settings import Environment

ItemT = TypeVar("ItemT")


@dataclass(frozen=True)
class Listing(Generic[ItemT]):
    """One page of a list; ``more`` says that the list goes on."""

    items: tuple[ItemT, ...]
    more: bool


@dataclass(frozen=True)
class ReleaseLine:
    """One release in the list; ``dirty`` is None and ``fault`` says why where the manifest is damaged.

    ``decision`` and ``approver`` are as the database has them, ``waiting`` says that the notary recorded no answer to a
    request about it yet: a line is an overview, not evidence.
    """

    release_id: str
    created_at: datetime
    verdict: str | None
    decision: str | None
    approver: str | None
    waiting: bool
    aliases: tuple[str, ...]
    revoked: bool
    dirty: bool | None
    fault: str | None


@dataclass(frozen=True)
class Evidence:
    """What is behind the notary's record of an answer.

    ``statement`` is what the notary signed and ``fingerprint`` the key that signed it; both are None when ``fault``
    says why the record proves nothing here.
    """

    statement: Statement | None
    fingerprint: str | None
    fault: str | None


@dataclass(frozen=True)
class Question:
    """One approval request, how it ended (None while it is open) and what that is worth."""

    request: ApprovalRequest
    approval: Approval | None
    evidence: Evidence | None


@dataclass(frozen=True)
class ReportLine:
    """One gate report of a release."""

    report_hash: str
    verdict: str
    baseline: str | None
    created_at: datetime


@dataclass(frozen=True)
class SeenAttempt:
    """One answer that reached Airflow, with the status it got."""

    run_id: str
    person: str | None
    chosen: str
    status: int
    at: datetime


@dataclass(frozen=True)
class Coverage:
    """How far the notary's signatures cover the ledger.

    ``signed`` is the newest entry whose hash the notary signed, 0 for none; ``last`` is the newest entry. ``fault``
    says what is wrong with the newest head, or why it cannot be checked here.
    """

    last: int
    signed: int
    signed_at: datetime | None
    fingerprint: str | None
    fault: str | None


def board_assistants(url: str) -> tuple[str, ...]:
    """Return the names of all assistants that have a release or a line in the ledger, in alphabetical order."""
    with connect(url) as connection:
        rows = connection.execute(
            "SELECT assistant FROM releases UNION SELECT assistant FROM release_ledger ORDER BY 1 LIMIT 200"
        ).fetchall()
    return tuple(str(row[0]) for row in rows)


def release_lines(url: str, assistant: str, *, offset: int = 0, limit: int = 25) -> Listing[ReleaseLine]:
    """Return releases of one assistant, newest first."""
    with connect(url) as connection, connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            """
            WITH heads AS (
                SELECT DISTINCT ON (alias) alias, to_release FROM release_ledger
                WHERE assistant = %(assistant)s AND alias IS NOT NULL ORDER BY alias, entry DESC
            )
            SELECT r.release_id, r.created_at, r.manifest, g.verdict, a.decision, a.approver,
                EXISTS (SELECT FROM approval_requests q LEFT JOIN approvals USING (nonce)
                        WHERE q.release_id = r.release_id AND approvals.nonce IS NULL) AS waiting,
                ARRAY(SELECT alias FROM heads WHERE to_release = r.release_id ORDER BY alias) AS aliases,
                EXISTS (SELECT FROM release_ledger l
                        WHERE l.to_release = r.release_id AND l.action = 'revoke') AS revoked
            FROM releases r
            LEFT JOIN LATERAL (SELECT verdict FROM gate_reports WHERE release_id = r.release_id
                               ORDER BY created_at DESC LIMIT 1) g ON true
            LEFT JOIN LATERAL (SELECT decision, approver FROM approvals WHERE release_id = r.release_id
                               ORDER BY recorded_at DESC LIMIT 1) a ON true
            WHERE r.assistant = %(assistant)s
            ORDER BY r.created_at DESC, r.release_id LIMIT %(limit)s OFFSET %(offset)s
            """,
            {"assistant": assistant, "limit": limit + 1, "offset": offset},
        )
        rows = cursor.fetchall()
    lines = []
    for row in rows[:limit]:
        dirty, fault = _look_into(row.pop("manifest"), row["release_id"])
        lines.append(ReleaseLine(**{**row, "aliases": tuple(row["aliases"])}, dirty=dirty, fault=fault))
    return Listing(tuple(lines), len(rows) > limit)


def open_questions(url: str, *, limit: int = 100) -> Listing[ApprovalRequest]:
    """Return the requests that the notary recorded no answer to, the next deadline first."""
    with connect(url) as connection, connection.cursor(row_factory=class_row(ApprovalRequest)) as cursor:
        cursor.execute(
            "SELECT q.* FROM approval_requests q LEFT JOIN approvals a USING (nonce) WHERE a.nonce IS NULL "
            "ORDER BY q.deadline, q.opened_at LIMIT %s",
            (limit + 1,),
        )
        rows = cursor.fetchall()
    return Listing(tuple(rows[:limit]), len(rows) > limit)


def questions_of(environment: Environment, release_id: str, *, limit: int = 20) -> tuple[Question, ...]:
    """Return the approval requests of a release with their answers, newest first."""
    url = environment.database_url.get_secret_value()
    with connect(url) as connection:
        with connection.cursor(row_factory=class_row(ApprovalRequest)) as cursor:
            requests = cursor.execute(
                "SELECT * FROM approval_requests WHERE release_id = %s ORDER BY opened_at DESC LIMIT %s",
                (release_id, limit),
            ).fetchall()
        nonces = [request.nonce for request in requests]
        with connection.cursor(row_factory=class_row(Approval)) as answered:
            found = answered.execute("SELECT * FROM approvals WHERE nonce = ANY(%s)", (nonces,)).fetchall()
    approvals: dict[UUID, Approval] = {approval.nonce: approval for approval in found}
    return tuple(
        Question(request, approval, evidence_of(environment, approval) if approval else None)
        for request in requests
        for approval in [approvals.get(request.nonce)]
    )


def evidence_of(environment: Environment, approval: Approval) -> Evidence:
    """Return what the notary signed about an answer, or why its record proves nothing here."""
    try:
        keys = notary_keys(environment)
        statement = open_statement(approval, keys)
        assert approval.statement is not None
        assert approval.signature is not None
        signer = keys.verify(approval.statement.encode(), approval.signature, APPROVALS, statement.signed_at)
    except (SignatureInvalid, ConfigurationError) as error:
        return Evidence(None, None, str(error))
    return Evidence(statement, signer.fingerprint, None)


def reports_of(url: str, release_id: str, *, limit: int = 20) -> tuple[ReportLine, ...]:
    """Return the gate reports of a release, newest first."""
    with connect(url) as connection, connection.cursor(row_factory=class_row(ReportLine)) as cursor:
        cursor.execute(
            "SELECT report_hash, verdict, baseline, created_at FROM gate_reports WHERE release_id = %s "
            "ORDER BY created_at DESC LIMIT %s",
            (release_id, limit),
        )
        return tuple(cursor.fetchall())


def attempts_of(url: str, release_id: str, *, limit: int = 50) -> Listing[SeenAttempt]:
    """Return the answers that Airflow got to requests of a release, newest first."""
    with connect(url) as connection, connection.cursor(row_factory=class_row(SeenAttempt)) as cursor:
        cursor.execute(
            "SELECT t.run_id, t.person, t.chosen, t.status, t.at FROM approval_attempts t "
            "JOIN approval_requests q USING (dag_id, run_id, task_id) WHERE q.release_id = %s "
            "ORDER BY t.attempt DESC LIMIT %s",
            (release_id, limit + 1),
        )
        rows = cursor.fetchall()
    return Listing(tuple(rows[:limit]), len(rows) > limit)


def ledger_lines(
    url: str,
    assistant: str | None = None,
    *,
    release_id: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> Listing[LedgerEntry]:
    """Return lines of the ledger, newest first: of one assistant, about one release, older than an entry."""
    with connect(url) as connection, connection.cursor(row_factory=class_row(LedgerEntry)) as cursor:
        cursor.execute(
            "SELECT * FROM release_ledger WHERE (%(assistant)s::text IS NULL OR assistant = %(assistant)s) "
            "AND (%(release)s::text IS NULL OR %(release)s IN (to_release, from_release)) "
            "AND (%(before)s::bigint IS NULL OR entry < %(before)s) ORDER BY entry DESC LIMIT %(limit)s",
            {"assistant": assistant, "release": release_id, "before": before, "limit": limit + 1},
        )
        rows = cursor.fetchall()
    return Listing(tuple(rows[:limit]), len(rows) > limit)


def faults_of(entries: Sequence[LedgerEntry]) -> dict[int, str]:
    """Return what is wrong with single lines, by entry: content that does not give its hash."""
    return {
        entry.entry: "was edited: its content does not give its hash"
        for entry in entries
        if entry.computed_hash() != entry.hash
    }


def ledger_coverage(environment: Environment) -> Coverage:
    """Return how far the newest signed head in the database covers the ledger.

    Copies of heads elsewhere, and every line before, are what ``llmops ledger verify`` looks at.
    """
    url = environment.database_url.get_secret_value()
    with connect(url) as connection:
        row = connection.execute(
            "SELECT max(l.entry), (SELECT max(entry) FROM ledger_heads) FROM release_ledger l"
        ).fetchone()
        last, signed = (row[0] or 0, row[1]) if row else (0, None)
        with connection.cursor(row_factory=class_row(SignedHead)) as cursor:
            cursor.execute("SELECT entry, statement, signature FROM ledger_heads WHERE entry = %s", (signed,))
            newest = cursor.fetchone()
        found = connection.execute("SELECT hash FROM release_ledger WHERE entry = %s", (signed,)).fetchone()
    if newest is None:
        return Coverage(last, 0, None, None, None)
    try:
        keys = notary_keys(environment)
        head = open_head(newest, environment.name, keys)
        signer = keys.verify(newest.statement.encode(), newest.signature, HEADS, head.signed_at)
    except (SignatureInvalid, ConfigurationError) as error:
        return Coverage(last, 0, None, None, str(error))
    if found is None or found[0] != head.hash:
        fault = f"the notary signed another entry {head.entry} than the ledger has: it was cut or rewritten"
        return Coverage(last, 0, head.signed_at, signer.fingerprint, fault)
    return Coverage(last, head.entry, head.signed_at, signer.fingerprint, None)


def report_texts(url: str, digests: Collection[str]) -> dict[str, str | None]:
    """Return the texts that gate reports name by these digests: None for an erased one, nothing for an unknown one."""
    with connect(url) as connection:
        rows = connection.execute(
            "SELECT digest, content FROM gate_texts WHERE digest = ANY(%s)", (list(digests),)
        ).fetchall()
    return {digest: text for digest, text in rows}


def _look_into(manifest: str, release_id: str) -> tuple[bool | None, str | None]:
    try:
        return parse_manifest(manifest, release_id).dirty, None
    except IntegrityError as error:
        return None, str(error)
