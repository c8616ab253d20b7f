"""What happened to every document, kept when the documents table has long forgotten it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from llmops.corpus._tables import DOCUMENTS, HISTORY, QUARANTINE, history_schema
from llmops.database import advisory_lock
from llmops.errors import MissingInput
from llmops.lakehouse import LakeTable
from llmops.manifest import content_hash

__all__ = ["DocumentEvent", "history", "record_history"]

log = logging.getLogger(__name__)

_COLUMNS = ("document_id", "source", "path", "version", "source_date")


@dataclass(frozen=True)
class DocumentEvent:
    """One thing that happened to a document.

    ``event`` is ``created``, ``changed``, ``moved``, ``deleted`` or ``quarantined``; ``other_path`` is where it
    moved to or came from. ``as_of`` is the date of the run that saw it, ``merged_at`` when it was merged.
    """

    event: str
    source: str
    path: str
    other_path: str | None
    version: str
    as_of: str | None
    merged_at: str
    table_version: int


def record_history(table_root: str, database_url: str) -> int:
    """Add what the documents table has been through since the last time; return the number of events.

    It is taken from the table's own change feed, so that a run killed after its commit is made up for by the
    next one, and nothing is noted twice.
    """
    documents, table = LakeTable(table_root, DOCUMENTS), LakeTable(table_root, HISTORY)
    if not documents.exists():
        return 0
    with advisory_lock(database_url, f"history:{table_root}"):
        seen = table.read(["table_version"])["table_version"].to_pylist() if table.exists() else []
        events = documents.events(max(seen, default=-1), _COLUMNS)
        if events is None:
            log.warning("The change feed of %s is gone: its history has a gap", documents.uri)
            return 0
        if not events.num_rows:
            return 0
        rows = _rows(events.to_pylist(), documents.notes(), _refused(table_root), documents.identity())
        import pyarrow as pa

        table.merge(
            pa.Table.from_pylist(rows, schema=history_schema()), key="event_id", database_url=database_url
        )
    return len(rows)


def history(table_root: str, uri: str) -> list[DocumentEvent]:
    """Return a document's life, oldest first.

    ``uri`` is ``source:path``, or the path alone where one source has it. Raises MissingInput when nothing is
    known of it, or several sources have it.
    """
    table = LakeTable(table_root, HISTORY)
    source, _, path = uri.partition(":")
    rows = table.rows_of("path", [uri, path]).to_pylist() if table.exists() else []
    found = [row for row in rows if row["path"] == uri or (row["source"], row["path"]) == (source, path)]
    sources = sorted({row["source"] for row in found})
    if not found:
        raise MissingInput(
            f"no document {uri!r} was ever here: name it as `source:path`, as `llmops corpus list` shows it"
        )
    if len(sources) > 1:
        choices = ", ".join(f"{name}:{uri}" for name in sources)
        raise MissingInput(f"several sources have a document {uri!r}: name one of {choices}")
    found.sort(key=lambda row: (row["table_version"], row["event"] != "deleted"))
    return [
        DocumentEvent(
            **{name: row[name] for name in ("event", "source", "path", "other_path", "version", "as_of")},
            merged_at=row["merged_at"].isoformat(timespec="seconds"),
            table_version=row["table_version"],
        )
        for row in found
    ]


def _refused(table_root: str) -> set[str]:
    table = LakeTable(table_root, QUARANTINE)
    return set(table.read(["document_id"])["document_id"].to_pylist()) if table.exists() else set()


def _rows(
    events: Iterable[dict[str, Any]], notes: dict[int, str], refused: set[str], identity: str | None
) -> list[dict[str, Any]]:
    """Return the rows of the history; a document that went while its text appeared elsewhere has moved."""
    events = [{**event, "as_of": notes.get(event["version_of_table"])} for event in events]
    came, went = ({_text(e): e for e in events if e["change"] == change} for change in ("insert", "delete"))
    rows = []
    for event in events:
        kind = {"insert": "created", "update": "changed", "delete": "deleted"}[event["change"]]
        key = _text(event)
        other = {"created": went, "deleted": came}.get(kind, {}).get(key)
        if kind == "deleted" and event["document_id"] in refused:
            kind, other = "quarantined", None
        rows.append(
            {
                "event_id": content_hash(
                    [identity, event["document_id"], event["version_of_table"], event["change"]]
                ),
                **{name: event[name] for name in _COLUMNS},
                "event": "moved" if other else kind,
                "other_path": other["path"] if other else None,
                "as_of": event["as_of"],
                "merged_at": event["time"],
                "table_version": event["version_of_table"],
            }
        )
    return rows


def _text(event: dict[str, Any]) -> tuple[Any, ...]:
    """Return what makes two events of one run one move: the source and the text."""
    return event["as_of"], event["source"], event["version"]
