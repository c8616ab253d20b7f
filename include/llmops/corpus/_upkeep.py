"""Keeping an assistant's tables small."""

from __future__ import annotations

from collections.abc import Collection

from llmops.corpus._tables import (
    CHUNKS,
    DOCUMENTS,
    HISTORY,
    QUALITY_RESULTS,
    QUARANTINE,
    SNAPSHOTS,
    chunks_schema,
)
from llmops.database import advisory_lock
from llmops.lakehouse import LakeTable

__all__ = ["compact_tables", "forget_chunkers"]


def compact_tables(table_root: str, database_url: str, *, read_since: int | None) -> dict[str, int]:
    """Compact every table of an assistant; returns how many files were ``merged`` and ``deleted``.

    ``read_since`` is the oldest version of ``chunks`` that an index has yet to read on from, None without any.
    """
    totals = {"merged": 0, "deleted": 0}
    for name in (DOCUMENTS, CHUNKS, QUARANTINE, SNAPSHOTS, HISTORY, QUALITY_RESULTS):
        since = read_since if name == CHUNKS else None
        for what, number in LakeTable(table_root, name).compact(database_url, read_since=since).items():
            totals[what] += number
    return totals


def forget_chunkers(table_root: str, keep: Collection[str], database_url: str) -> int:
    """Delete the chunks of every chunker but those to keep (by digest); returns how many there were."""
    table = LakeTable(table_root, CHUNKS)
    with advisory_lock(database_url, f"chunks:{table_root}"):
        if not table.exists():
            return 0
        unused = sorted(set(table.read(["chunker"])["chunker"].to_pylist()) - set(keep))
        counts = table.merge(
            chunks_schema().empty_table(), key="chunk_id", database_url=database_url,
            delete_missing=True, scope=("chunker", unused),
        )  # fmt: skip
    return counts.deleted
