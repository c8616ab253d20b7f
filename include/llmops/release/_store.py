"""What Postgres holds of releases: manifests, gate reports and the ledger of aliases."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from llmops.database import connect
from llmops.errors import MissingInput
from llmops.manifest import Manifest, canonical_json, parse_manifest

Alias = Literal["staging", "production"]
Action = Literal["stage", "promote", "roll back"]


@dataclass(frozen=True)
class LedgerEntry:
    """One move of an alias: from which release to which, by whom, why, and on what evidence."""

    entry: int
    assistant: str
    alias: str
    action: str
    from_release: str | None
    to_release: str
    actor: str
    reason: str
    report_hash: str | None
    approval_nonce: UUID | None
    at: datetime


@dataclass(frozen=True)
class StoredReport:
    """A gate report as it was decided; ``baseline`` is the production release it compared with."""

    report_hash: str
    release_id: str
    baseline: str | None
    verdict: str
    report: str
    markdown: str


def save_manifest(url: str, manifest: Manifest) -> str:
    """Store a manifest under its hash and return that release id; storing it again changes nothing."""
    release_id = manifest.release_id
    with connect(url) as connection:
        connection.execute(
            "INSERT INTO releases (release_id, assistant, manifest) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            (release_id, manifest.assistant, canonical_json(manifest.model_dump(mode="json"))),
        )
    return release_id


def read_manifest(url: str, release_id: str) -> Manifest:
    """Return a stored manifest; raise MissingInput if there is none and IntegrityError if it was changed."""
    with connect(url) as connection:
        row = connection.execute("SELECT manifest FROM releases WHERE release_id = %s", (release_id,)).fetchone()
    if row is None:
        raise MissingInput(f"no release {release_id!r} in the database: `llmops release list` shows what there is")
    return parse_manifest(row[0], release_id)


def save_report(url: str, report: StoredReport) -> None:
    """Store a gate report under its hash; storing it again changes nothing."""
    with connect(url) as connection:
        connection.execute(
            "INSERT INTO gate_reports (report_hash, release_id, baseline, verdict, report, markdown) "
            "VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (report.report_hash, report.release_id, report.baseline, report.verdict, report.report, report.markdown),
        )


def read_report(url: str, report_hash: str) -> StoredReport:
    """Return a stored gate report; raise MissingInput if there is none."""
    with connect(url) as connection, connection.cursor(row_factory=class_row(StoredReport)) as cursor:
        cursor.execute(
            "SELECT report_hash, release_id, baseline, verdict, report, markdown "
            "FROM gate_reports WHERE report_hash = %s",
            (report_hash,),
        )
        report = cursor.fetchone()
    if report is None:
        raise MissingInput(f"no gate report {report_hash!r} in the database: run release_assistant again")
    return report


def append_entry(
    connection: psycopg.Connection,
    alias: Alias,
    action: Action,
    release: tuple[str, str | None, str],
    who: tuple[str, str],
    evidence: tuple[str | None, UUID | None] = (None, None),
) -> None:
    """Append one entry to the ledger within the caller's transaction.

    ``release`` is (assistant, from, to), ``who`` is (actor, reason), ``evidence`` is (report hash, approval).
    """
    connection.execute(
        "INSERT INTO release_ledger "
        "(alias, action, assistant, from_release, to_release, actor, reason, report_hash, approval_nonce) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (alias, action, *release, *who, *evidence),
    )


def ledger(url: str, assistant: str, alias: Alias | None = None) -> list[LedgerEntry]:
    """Return the entries of one assistant, oldest first."""
    with connect(url) as connection, connection.cursor(row_factory=class_row(LedgerEntry)) as cursor:
        cursor.execute(
            "SELECT * FROM release_ledger WHERE assistant = %s AND (%s::text IS NULL OR alias = %s) ORDER BY entry",
            (assistant, alias, alias),
        )
        return cursor.fetchall()


def current_release(connection: psycopg.Connection, assistant: str, alias: Alias) -> str | None:
    """Return the release that the ledger says an alias is at, or None before the first."""
    row = connection.execute(
        "SELECT to_release FROM release_ledger WHERE assistant = %s AND alias = %s ORDER BY entry DESC LIMIT 1",
        (assistant, alias),
    ).fetchone()
    return str(row[0]) if row else None
