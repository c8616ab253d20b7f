"""What Postgres holds of releases: manifests and gate reports."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row

from llmops.database import Database, connect, connected
from llmops.errors import IntegrityError, MissingInput
from llmops.manifest import Manifest, canonical_json, parse_manifest


@dataclass(frozen=True)
class ReleaseSummary:
    """One release in a list: its latest verdict and approval, and the aliases that point at it.

    ``dirty`` is one made from uncommitted code; a ``revoked`` one never comes to production again.
    """

    release_id: str
    created_at: datetime
    verdict: str | None
    approval: str | None
    aliases: list[str]
    revoked: bool
    dirty: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the summary with times as text."""
        return _plain(asdict(self))


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


def read_manifest(database: Database, release_id: str) -> Manifest:
    """Return a stored manifest; raise MissingInput if there is none and IntegrityError if it was changed."""
    with connected(database) as connection:
        row = connection.execute(
            "SELECT manifest FROM releases WHERE release_id = %s", (release_id,)
        ).fetchone()
    if row is None:
        raise MissingInput(
            f"no release {release_id!r} in the database: `llmops release list` shows what there is"
        )
    return parse_manifest(row[0], release_id)


def save_report(url: str, report: StoredReport) -> None:
    """Store a gate report under its hash; storing it again changes nothing."""
    with connect(url) as connection:
        connection.execute(
            "INSERT INTO gate_reports (report_hash, release_id, baseline, verdict, report, markdown) "
            "VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (
                report.report_hash,
                report.release_id,
                report.baseline,
                report.verdict,
                report.report,
                report.markdown,
            ),
        )


def read_report(database: Database, report_hash: str) -> StoredReport:
    """Return a stored gate report; raise MissingInput if there is none and IntegrityError if it was changed."""
    with connected(database) as connection, connection.cursor(row_factory=class_row(StoredReport)) as cursor:
        cursor.execute(
            "SELECT report_hash, release_id, baseline, verdict, report, markdown "
            "FROM gate_reports WHERE report_hash = %s",
            (report_hash,),
        )
        report = cursor.fetchone()
    if report is None:
        raise MissingInput(f"no gate report {report_hash!r} in the database: run release_assistant again")
    found = hashlib.sha256(report.report.encode()).hexdigest()
    if found != report_hash or _verdict(report.report) != report.verdict:
        raise IntegrityError(
            f"the text stored as gate report {report_hash!r} hashes to {found!r}, or its verdict is not "
            "the stored one: it was changed after it was decided; run release_assistant again"
        )
    return report


def _verdict(text: str) -> Any:
    """Return the verdict in a report's text, None when it is no report."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return content.get("verdict") if isinstance(content, dict) else None


def list_releases(url: str, assistant: str) -> list[ReleaseSummary]:
    """Return all releases of one assistant, newest first."""
    with connect(url) as connection, connection.cursor(row_factory=class_row(ReleaseSummary)) as cursor:
        cursor.execute(
            """
            WITH heads AS (
                SELECT DISTINCT ON (alias) alias, to_release
                FROM release_ledger WHERE assistant = %(assistant)s AND alias IS NOT NULL ORDER BY alias, entry DESC
            )
            SELECT r.release_id, r.created_at,
                (SELECT verdict FROM gate_reports g WHERE g.release_id = r.release_id
                 ORDER BY g.created_at DESC LIMIT 1) AS verdict,
                (SELECT a.decision || CASE a.decision WHEN 'approved' THEN ' by ' || a.approver ELSE '' END
                 FROM approvals a
                 WHERE a.release_id = r.release_id ORDER BY a.recorded_at DESC LIMIT 1) AS approval,
                ARRAY(SELECT alias FROM heads WHERE to_release = r.release_id ORDER BY alias) AS aliases,
                EXISTS (SELECT FROM release_ledger l
                        WHERE l.to_release = r.release_id AND l.action = 'revoke') AS revoked,
                r.manifest LIKE '%%"dirty":true%%' AS dirty
            FROM releases r WHERE r.assistant = %(assistant)s ORDER BY r.created_at DESC
            """,
            {"assistant": assistant},
        )
        return cursor.fetchall()


def find_release(url: str, beginning: str) -> str:
    """Return the release id that starts with ``beginning``; raise MissingInput unless there is exactly one."""
    with connect(url) as connection:
        rows = connection.execute(
            "SELECT release_id FROM releases WHERE starts_with(release_id, %s) LIMIT 2", (beginning,)
        ).fetchall()
    if len(rows) != 1:
        raise MissingInput(
            f"{beginning!r} fits {'several releases' if rows else 'no release'}: `llmops release list` shows them"
        )
    return str(rows[0][0])


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {k: str(v) if isinstance(v, datetime) else v for k, v in values.items()}
