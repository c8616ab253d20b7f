"""The notary: the one process that signs approvals and heads of the ledger, after reading everything for itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from llmops.assistant import load_assistant
from llmops.database import connect
from llmops.errors import IntegrityError, LlmopsError, NotApproved
from llmops.evaluation import GateReport, replay
from llmops.heartbeat import Heartbeat
from llmops.release._approval import ApprovalRequest, gate_settings, request_text, require_pass
from llmops.release._attempts import ENTERED_PER_PERSON
from llmops.release._gate_texts import with_texts
from llmops.release._judge import Finding, Hearing, body_hash, judge
from llmops.release._ledger import (
    NewEntry,
    SignedHead,
    append_entry,
    check_ledger,
    ledger,
    sign_head,
    signed_heads,
)
from llmops.release._statement import (
    Statement,
    notary_keys,
    personal_signatures,
    reviewer_keys,
    sign_statement,
)
from llmops.release._store import read_manifest, read_report
from llmops.settings import Environment
from llmops.signing import SigningKey

log = logging.getLogger(__name__)

_POLL_SECONDS = 2.0
_ATTEMPTS = 100
_NAME = "notary"


class Reader(Protocol):
    """Where the notary reads what Airflow knows."""

    def answer(self, request: ApprovalRequest) -> dict[str, Any] | None:
        """Return the record of the question to the approvers, or None while it has not been asked."""

    def run(self, request: ApprovalRequest) -> dict[str, Any] | None:
        """Return the record of the run that asks, or None when it was deleted."""


class Copies(Protocol):
    """Where signed heads are kept outside the database."""

    def keep(self, head: SignedHead) -> None:
        """Keep a head; raise ServiceUnavailable when that is not possible now."""

    def kept(self) -> Sequence[SignedHead]:
        """Return what was kept; raise ServiceUnavailable when that cannot be said now."""


class Notary:
    """Watches open requests, signs how each ended, exactly once, and signs the ledger's heads.

    ``copies`` keeps a signed head outside this database, and has those that were kept before.
    """

    def __init__(
        self,
        environment: Environment,
        reader: Reader,
        key: SigningKey,
        copies: Copies | None = None,
    ) -> None:
        self._environment = environment
        self._url = environment.database_url.get_secret_value()
        self._reader = reader
        self._key = key
        self._copies = copies
        self._unkept: SignedHead | None = None
        self._last: SignedHead | None = None
        self._waiting: dict[UUID, str] = {}

    def turn(self) -> int:
        """Look at every open request once, enter refused attempts, sign the ledger; return how many were settled.

        A request that cannot be settled now does not keep the others waiting; it is tried again.
        """
        settled = 0
        waiting: dict[UUID, str] = {}
        for request in self._open_requests():
            try:
                settled += self._settle(request)
            except LlmopsError as error:
                waiting[request.nonce] = str(error)
                if self._waiting.get(request.nonce) != str(error):  # said once, not at every turn
                    log.warning("The request of run %r cannot be settled now: %s", request.run_id, error)
        self._waiting = waiting
        self._enter_attempts()
        self._sign_ledger()
        return settled

    def run(self, host: str, port: int) -> None:
        """Turn for ever, answering ``/healthz``; an outage is logged and waited out."""
        with Heartbeat(host, port) as heartbeat:
            log.info(
                "Notary of environment %r, key %s, watches approval requests",
                self._environment.name, self._key.fingerprint,
            )  # fmt: skip
            while True:
                try:
                    settled = self.turn()
                    heartbeat.beat(settled=settled)
                except (LlmopsError, psycopg.Error) as error:
                    log.warning("The notary cannot do its work now and tries again: %s", error)
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
        hearing: Hearing | None = None
        try:
            hearing = self._hear(request)
            finding = judge(hearing, datetime.now(UTC))
            if finding is not None and finding.decision == "approved":
                self._require_same_verdict(request)
        except (NotApproved, IntegrityError) as objection:
            finding = Finding("rejected", None, str(objection), "airflow", None)
        if finding is None:
            return False
        self._record(request, hearing, finding, timedelta(hours=rules.valid_hours))
        log.info("Release %s: %s (%s)", request.release_id[:12], finding.decision, finding.reason)
        return True

    def _hear(self, request: ApprovalRequest) -> Hearing:
        """Return everything that the decision rests on.

        Raises NotApproved or IntegrityError when that allows no approval, whatever a person says.
        """
        manifest, report = (
            read_manifest(self._url, request.release_id),
            read_report(self._url, request.report_hash),
        )
        require_pass(request, manifest, report)
        assistant = load_assistant(request.assistant, self._environment)
        if assistant.gate.digest != manifest.gate_digest:
            raise NotApproved(
                f"release {manifest.release_id[:12]} pins other gate rules than the notary's own file of "
                f"{request.assistant!r} has: bring both to the same configuration, run release_assistant again"
            )
        needs_signature = gate_settings(manifest, report).get("approval") == "personal"
        if needs_signature:
            reviewer_keys(self._environment)
        return Hearing(
            request=request,
            manifest=manifest,
            rules=assistant.approval,
            question=request_text(request, manifest, report),
            answer=self._reader.answer(request),
            run=self._reader.run(request),
            personal=personal_signatures(self._environment, request.release_id),
            needs_signature=needs_signature,
            people=self._environment.people,
        )

    def _require_same_verdict(self, request: ApprovalRequest) -> None:
        """Raise NotApproved unless the report's verdict follows from its scores, and its page from the report.

        Any task can store a report: what its rules make of its scores is decided again here.
        """
        stored = read_report(self._url, request.report_hash)
        report = GateReport.parse(stored.report, stored.report_hash)
        if not replay(report).equal:
            raise NotApproved(
                f"report {request.report_hash[:12]} was decided again from its own scores and came out otherwise: "
                f"`llmops gate replay {request.report_hash[:12]}` shows where"
            )
        if with_texts(self._url, report).markdown() != stored.markdown:
            raise NotApproved(f"the page of report {request.report_hash[:12]} is not what the report gives")

    def _record(
        self, request: ApprovalRequest, hearing: Hearing | None, finding: Finding, valid: timedelta
    ) -> None:
        now = datetime.now(UTC)
        statement = Statement(
            nonce=request.nonce,
            assistant=request.assistant,
            environment=request.environment,
            release_id=request.release_id,
            report_hash=request.report_hash,
            body_hash=body_hash(hearing.question[1]) if hearing else None,
            decision=finding.decision,
            approver=finding.approver,
            authors=hearing.manifest.authors if hearing else (),
            trigger=hearing.trigger if hearing else "not read",
            reason=finding.reason,
            channel=finding.channel,
            opened_at=request.opened_at,
            answered_at=finding.answered_at,
            expires_at=(finding.answered_at or now) + valid,
            signed_at=now,
            personal=finding.personal,
        )
        with connect(self._url) as connection:
            made = connection.execute(
                "INSERT INTO approvals (nonce, release_id, report_hash, decision, approver, reason, channel, "
                "environment, answered_at, expires_at, statement, signature) "
                "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (nonce) DO NOTHING",
                (
                    *(statement.nonce, statement.release_id, statement.report_hash, statement.decision),
                    *(statement.approver, statement.reason, statement.channel, statement.environment),
                    *(statement.answered_at, statement.expires_at),
                    *(statement.text(), sign_statement(statement, self._key)),
                ),
            )
            if made.rowcount:
                append_entry(connection, _entry_of(statement))

    def _enter_attempts(self) -> None:
        """Enter answers that Airflow refused into the ledger, each once.

        Of one person about one request only the first few: whoever repeats them cannot fill the ledger.
        """
        with connect(self._url) as connection:
            refused = connection.execute(
                "SELECT t.attempt, t.person, t.chosen, t.status, r.assistant, r.release_id, r.report_hash FROM ("
                "  SELECT *, row_number() OVER ("
                "    PARTITION BY dag_id, run_id, task_id, person ORDER BY attempt) AS place "
                "  FROM approval_attempts WHERE status >= 400 AND person IS NOT NULL) t "
                "JOIN approval_requests r USING (dag_id, run_id, task_id) "
                "WHERE t.entry IS NULL AND t.place <= %s AND r.environment = %s ORDER BY t.attempt LIMIT %s",
                (ENTERED_PER_PERSON, self._environment.name, _ATTEMPTS),
            ).fetchall()
        for attempt, person, chosen, status, assistant, release_id, report_hash in refused:
            with connect(self._url) as connection:
                entry = append_entry(
                    connection,
                    NewEntry(
                        assistant=assistant,
                        action="refuse",
                        actor=person,
                        authentication="Airflow login",
                        reason=f"Airflow refused the answer {chosen!r} with status {status}",
                        to_release=release_id,
                        report_hash=report_hash,
                    ),
                )
                connection.execute(
                    "UPDATE approval_attempts SET entry = %s WHERE attempt = %s", (entry.entry, attempt)
                )

    def _sign_ledger(self) -> None:
        """Sign the newest entry, if the whole chain up to it holds; a head that could not be copied is tried again.

        The chain has to fit every head that there is a copy of, and the last one that this process signed: a ledger
        whose end was cut off together with its heads is not signed anew.
        """
        with connect(self._url) as connection:
            row = connection.execute(
                "SELECT (SELECT max(entry) FROM release_ledger), (SELECT max(entry) FROM ledger_heads)"
            ).fetchone()
        newest, signed = row or (None, None)
        if newest is not None and newest != signed:
            entries = ledger(self._url)
            heads = [*signed_heads(self._url), *(self._copies.kept() if self._copies else ())]
            heads += [self._last] if self._last else []
            checked = check_ledger(entries, heads, self._environment.name, notary_keys(self._environment))
            if checked.faults:
                fault = checked.faults[0]
                raise IntegrityError(
                    f"the ledger is damaged at entry {fault.entry}: {fault.problem}. It is not signed any more until "
                    "somebody looks: `llmops ledger verify`"
                )
            self._last = self._unkept = sign_head(self._environment.name, entries[-1], self._key)
            with connect(self._url) as connection:
                connection.execute(
                    "INSERT INTO ledger_heads (entry, statement, signature) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                    (self._unkept.entry, self._unkept.statement, self._unkept.signature),
                )
        if self._unkept is not None and self._copies is not None:
            self._copies.keep(self._unkept)
            self._unkept = None


def _entry_of(statement: Statement) -> NewEntry:
    """Return the ledger's line about a decision."""
    return NewEntry(
        assistant=statement.assistant,
        action="approve" if statement.decision == "approved" else "reject",
        actor=statement.approver or _NAME,
        authentication=f"Airflow login, {statement.channel}" if statement.approver else _NAME,
        reason=statement.reason,
        to_release=statement.release_id,
        report_hash=statement.report_hash,
        approval_nonce=statement.nonce,
    )
