"""Staged documents into the ``documents`` table, source by source."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmops.corpus._history import record_history
from llmops.corpus._staging import Decision, Staged
from llmops.corpus._tables import (
    DOCUMENTS,
    QUARANTINE,
    SNAPSHOTS,
    documents_schema,
    quarantine_schema,
    snapshots_schema,
)
from llmops.database import advisory_lock
from llmops.lakehouse import LakeTable

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["held_documents", "merge_documents"]

log = logging.getLogger(__name__)

_COMMIT_ROWS = 20_000
_COMMIT_BYTES = 256_000_000
"""A commit has at most so much, so that the memory of a merge does not grow with the corpus."""


def merge_documents(staging: Path, table_root: str, database_url: str) -> dict[str, int]:
    """Bring ``documents`` and ``quarantine`` to what is staged, source by source, and note it in ``history``.

    A source of which a newer state is merged already stays as it is, so the order of runs does not
    matter; so does one that the quality gate holds back. Documents of sources that the configuration no longer has are
    removed. Returns how many documents were inserted, updated, deleted, unchanged and are in quarantine.
    """
    staged = Staged.load(staging)
    with advisory_lock(database_url, f"documents:{table_root}"):
        decision = staged.decide(table_root).without(tuple(staged.blocked))
        _remember(decision, table_root, database_url)
        refused = _refused(staged, decision)
        LakeTable(table_root, QUARANTINE).merge(
            _counted(refused, table_root),
            key="document_id", database_url=database_url, delete_missing=True,
            scope=("source", decision.names),
        )  # fmt: skip
        inserted, updated, deleted = _merge(staged, decision, table_root, database_url)
        record_history(table_root, database_url)
    documents = len(_kept(staged, decision))
    result = {
        "inserted": inserted,
        "updated": updated,
        "deleted": deleted,
        "unchanged": documents - inserted - updated,
        "quarantined": refused.num_rows,
    }
    log.info("Documents: %s", ", ".join(f"{n} {what}" for what, n in result.items()))
    return result


def held_documents(
    table_root: str, sources: Sequence[str], columns: Sequence[str], version: int | None = None
) -> pa.Table:
    """Return columns (``source`` among them) of the documents that the sources have in the table."""
    import pyarrow as pa

    table = LakeTable(table_root, DOCUMENTS)
    empty = pa.schema([documents_schema().field(name) for name in columns]).empty_table()
    if not table.exists():
        return empty
    return pa.concat_tables([empty, *table.batches(columns, version, ("source", sources))])


def _merge(staged: Staged, decision: Decision, table_root: str, database_url: str) -> tuple[int, int, int]:
    """Merge the documents in commits of bounded size; the last one removes what is gone."""
    table = LakeTable(table_root, DOCUMENTS)
    columns = ["source", "document_id", "content_digest"]
    held = dict(_pairs(held_documents(table_root, decision.names, columns)))
    kept = _kept(staged, decision)
    gone = sorted(held.keys() - kept.keys())
    # What was unchanged when this run read it, and was changed by another run since.
    overtaken = [d for d, (digest, state) in kept.items() if state == "unchanged" and held.get(d) != digest]
    inserted = updated = 0
    for rows in _commits(_rows(staged, decision, overtaken, table)):
        counts = table.merge(
            rows, key="document_id", database_url=database_url, note=staged.plan.as_of.isoformat()
        )
        inserted, updated = inserted + counts.inserted, updated + counts.updated
    last = table.merge(
        documents_schema().empty_table(), key="document_id", database_url=database_url,
        delete_missing=True, scope=("document_id", gone), note=staged.plan.as_of.isoformat(),
    )  # fmt: skip
    return inserted, updated, last.deleted


def _kept(staged: Staged, decision: Decision) -> dict[str, tuple[str, str]]:
    """Return the documents that the sources will have: their content's digest, and whether they changed."""
    present = decision.rows(staged.present)
    aside = {document for documents in staged.aside.values() for document in documents}
    columns = (present[name].to_pylist() for name in ("document_id", "content_digest", "state"))
    return {
        document: (digest, state)
        for document, digest, state in zip(*columns, strict=True)
        if state != "refused" and document not in aside
    }


def _refused(staged: Staged, decision: Decision) -> pa.Table:
    """Return the files that become no document: those that were refused, and those that only repeat another."""
    import pyarrow as pa

    digests = {document: digest for document, digest in _pairs(staged.present)}
    rows = [
        {
            "document_id": document,
            "source": source,
            "path": path,
            "problem": "repeated",
            "reason": f"it says what {other} says: delete one of them, or keep near-duplicates",
            "content_digest": digests[document],
            "count": 0,
            "tries": 0,
        }
        for source, documents in staged.aside.items()
        for document, (path, other) in documents.items()
    ]
    aside = pa.Table.from_pylist(rows, schema=quarantine_schema())
    return decision.rows(pa.concat_tables([staged.quarantine, aside]))


def _rows(
    staged: Staged, decision: Decision, overtaken: Sequence[str], table: LakeTable
) -> Iterator[pa.Table]:
    """Yield the documents to write: what is staged, and what has to be put back from the base version."""
    import pyarrow as pa
    import pyarrow.compute as pc

    aside = pa.array([d for documents in staged.aside.values() for d in documents], pa.string())
    for piece in staged.documents():
        rows = decision.rows(piece)
        yield rows.filter(pc.invert(pc.is_in(rows["document_id"], aside)))
    if overtaken:
        yield from table.batches(documents_schema().names, staged.plan.base, ("document_id", overtaken))


def _commits(pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the rows in tables of bounded size."""
    import pyarrow as pa

    waiting: list[pa.Table] = []
    for piece in pieces:
        if piece.num_rows:
            waiting.append(piece)
        if (
            sum(part.num_rows for part in waiting) >= _COMMIT_ROWS
            or sum(part.nbytes for part in waiting) >= _COMMIT_BYTES
        ):
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _pairs(rows: pa.Table) -> Iterator[tuple[str, str]]:
    return zip(rows["document_id"].to_pylist(), rows["content_digest"].to_pylist(), strict=True)


def _remember(decision: Decision, table_root: str, database_url: str) -> None:
    """Note the states about to be merged first: a run that dies now leaves no gap for an older one."""
    import pyarrow as pa

    news = decision.news
    rows = pa.table(
        [[s.name for s in news], [s.date for s in news], [s.digest for s in news]],
        schema=snapshots_schema(),
    )
    LakeTable(table_root, SNAPSHOTS).merge(
        rows, key="source", database_url=database_url, delete_missing=True, scope=("source", decision.removed)
    )


def _counted(refused: pa.Table, table_root: str) -> pa.Table:
    """Add to how often each file was tried now how often it was before; other content is always a new try."""
    import pyarrow as pa

    table = LakeTable(table_root, QUARANTINE)
    rows = refused.to_pylist()
    before = {r["document_id"]: r for r in table.read().to_pylist()} if table.exists() and rows else {}
    for row in rows:
        known = before.get(row["document_id"], {"count": 0, "tries": 0, "content_digest": None})
        if known["content_digest"] == row["content_digest"]:
            row["tries"] += known["tries"]
            row["count"] += known["count"]
        else:
            row["tries"], row["count"] = 1, known["count"] + 1
    return pa.Table.from_pylist(rows, schema=quarantine_schema())
