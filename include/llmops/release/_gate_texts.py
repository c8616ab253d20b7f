"""Questions and answers that gate reports name by digest: stored once, shown side by side, erased one by one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row

from llmops.database import connect
from llmops.errors import ConfigurationError, IntegrityError, MissingInput
from llmops.evaluation import GateReport, digest_text
from llmops.release._ledger import current_release
from llmops.release._store import StoredReport, read_report


@dataclass(frozen=True)
class GateText:
    """One text of a report by its digest; ``content`` is None once it was erased, at ``erased_at``."""

    digest: str
    content: Mapping[str, Any] | None
    erased_at: datetime | None


@dataclass(frozen=True)
class ReportedOutput:
    """What one side answered to one question, and what that was worth.

    ``text`` is None when nothing was stored; ``error`` is the kind of error that left the question without
    scores, ``missing`` names the scores that could not be had.
    """

    text: GateText | None
    scores: Mapping[str, float]
    missing: tuple[str, ...]
    error: str | None


@dataclass(frozen=True)
class ReportedCase:
    """One question of a report with the answers of both sides; ``baseline`` is None when there was none."""

    id: str
    slice: str
    synthetic: bool
    case: GateText
    candidate: ReportedOutput
    baseline: ReportedOutput | None

    @property
    def question(self) -> str | None:
        """Return the question, or None once it was erased."""
        return None if self.case.content is None else str(self.case.content["question"])


@dataclass(frozen=True)
class NamingReport:
    """A report that names a text; ``awaited`` says that approvers are asked about it and the notary has no answer."""

    report_hash: str
    release_id: str
    awaited: bool


def save_gate_texts(url: str, texts: Mapping[str, str]) -> None:
    """Store texts under their digests; what is there already, be it erased, stays as it is."""
    with connect(url) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO gate_texts (digest, content) VALUES (%s, %s) ON CONFLICT DO NOTHING",
            sorted(texts.items()),
        )


def read_gate_texts(url: str, digests: Sequence[str]) -> dict[str, GateText]:
    """Return texts by digest, erased ones included.

    Raises IntegrityError for one that was never stored or is not what its digest says.
    """
    with connect(url) as connection:
        rows = connection.execute(
            "SELECT digest, content, erased_at FROM gate_texts WHERE digest = ANY(%s)", (list(digests),)
        ).fetchall()
    _check(digests, {digest: content for digest, content, _ in rows})
    return {
        digest: GateText(digest, None if content is None else json.loads(content), erased_at)
        for digest, content, erased_at in rows
    }


def with_texts(url: str, report: GateReport) -> GateReport:
    """Return the same report with those of its texts that are stored and not erased, for its page to show."""
    with connect(url) as connection:
        return GateReport(report.content, _left(connection, report))


def erase_gate_text(url: str, digest: str) -> None:
    """Erase one text and show it as erased on the page of every report that names it; again changes nothing.

    Its digest stays, and with it the hash of every report. Raises MissingInput for a digest that names no text, and
    ConfigurationError where the connection's role may not erase.
    """
    with connect(url) as connection, _erasing():
        known = connection.execute("SELECT 1 FROM gate_texts WHERE digest = %s", (digest,)).fetchone()
        if known is None:
            raise MissingInput(
                f"no text {digest!r} in the database: a report names its texts by 64 hexadecimal digits"
            )
        connection.execute(
            "UPDATE gate_texts SET content = NULL, erased_at = now() WHERE digest = %s AND content IS NOT NULL",
            (digest,),
        )
        reports = connection.execute(
            "SELECT report_hash, report FROM gate_reports WHERE position(%s IN report) > 0", (digest,)
        ).fetchall()
        for report_hash, text in reports:
            report = GateReport.parse(text, report_hash)
            page = GateReport(report.content, _left(connection, report)).markdown()
            connection.execute(
                "UPDATE gate_reports SET markdown = %s WHERE report_hash = %s", (page, report_hash)
            )


def reports_naming(url: str, digests: Sequence[str]) -> tuple[NamingReport, ...]:
    """Return the reports that name any of these texts: those on whose pages erasing one may show.

    Raises ConfigurationError where the connection's role may not erase.
    """
    with (
        connect(url) as connection,
        _erasing(),
        connection.cursor(row_factory=class_row(NamingReport)) as cursor,
    ):
        cursor.execute(
            "SELECT report_hash, release_id, EXISTS (SELECT FROM approval_requests q LEFT JOIN approvals a "
            "USING (nonce) WHERE q.report_hash = g.report_hash AND a.nonce IS NULL) AS awaited FROM gate_reports g "
            "WHERE EXISTS (SELECT FROM unnest(%s::text[]) d WHERE position(d IN report) > 0) "
            "ORDER BY created_at, report_hash",
            (list(digests),),
        )
        return tuple(cursor.fetchall())


def report_cases(url: str, report_hash: str) -> tuple[ReportedCase, ...]:
    """Return every question of a report with both answers and their scores, in the order of case ids.

    Raises MissingInput for a report that is not there, IntegrityError when it or one of its texts was changed.
    """
    report = GateReport.parse(read_report(url, report_hash).report, report_hash)
    texts = read_gate_texts(url, report.digests())
    return tuple(
        ReportedCase(
            id=result["id"],
            slice=result["slice"],
            synthetic=result["synthetic"],
            case=texts[result["case"]],
            candidate=_output(result["candidate"], texts),
            baseline=_output(result["baseline"], texts) if result["baseline"] else None,
        )
        for result in report.content["results"]
    )


def find_report(url: str, beginning: str) -> str:
    """Return the hash of the report that starts with ``beginning``; raise MissingInput unless there is exactly one."""
    with connect(url) as connection:
        rows = connection.execute(
            "SELECT report_hash FROM gate_reports WHERE starts_with(report_hash, %s) LIMIT 2", (beginning,)
        ).fetchall()
    if len(rows) != 1:
        raise MissingInput(
            f"{beginning!r} fits {'several gate reports' if rows else 'no gate report'}: "
            "the page that approvers see ends with the report's hash"
        )
    return str(rows[0][0])


def production_report(url: str, assistant: str) -> StoredReport | None:
    """Return the newest PASS report of the release in production, or None when there is none."""
    with connect(url) as connection:
        release = current_release(connection, assistant, "production")
        row = connection.execute(
            "SELECT report_hash FROM gate_reports WHERE release_id = %s AND verdict = 'PASS' "
            "ORDER BY created_at DESC LIMIT 1",
            (release,),
        ).fetchone()
    return read_report(url, row[0]) if row else None


def _output(measured: Mapping[str, Any], texts: Mapping[str, GateText]) -> ReportedOutput:
    return ReportedOutput(
        text=texts[measured["output"]] if measured["output"] else None,
        scores=measured["scores"],
        missing=tuple(measured["missing"]),
        error=measured["error"],
    )


@contextmanager
def _erasing() -> Iterator[None]:
    """Say which role may erase when the database refuses it to this one."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise ConfigurationError(
            "this connection to the database may not erase texts of gate reports: let LLMOPS_DATABASE_URL be that of "
            "the role llmops_worker"
        ) from error


def _left(connection: psycopg.Connection, report: GateReport) -> dict[str, str]:
    rows = connection.execute(
        "SELECT digest, content FROM gate_texts WHERE digest = ANY(%s) AND content IS NOT NULL",
        (list(report.digests()),),
    ).fetchall()
    return {str(digest): str(content) for digest, content in rows}


def _check(digests: Sequence[str], stored: Mapping[str, str | None]) -> None:
    """Raise IntegrityError unless every digest has a row whose text, where it is left, hashes to it."""
    absent = [digest for digest in digests if digest not in stored]
    changed = [d for d, content in stored.items() if content is not None and digest_text(content) != d]
    for what, found in (("were never stored", absent), ("differ from their digest", changed)):
        if found:
            shown = ", ".join(digest[:12] for digest in found[:5])
            raise IntegrityError(
                f"{len(found)} of {len(digests)} texts of the gate report {what} ({shown}): table gate_texts was "
                "changed past llmops, restore it from a backup; `llmops gate replay` checks again"
            )
