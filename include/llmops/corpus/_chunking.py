"""From the ``documents`` table to the ``chunks`` table."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmops.corpus._chunker import Chunk, Chunker
from llmops.corpus._tables import CHUNKS, DOCUMENTS, chunks_schema
from llmops.database import advisory_lock
from llmops.lakehouse import LakeTable, MergeCounts

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["merge_chunks"]

log = logging.getLogger(__name__)

_COLUMNS = ("document_id", "version", "source", "path", "title", "text", "media_type")
_BATCH = 500


def merge_chunks(
    table_root: str, chunkers: Mapping[str, tuple[Chunker, Path]], database_url: str
) -> dict[str, int]:
    """Bring ``chunks`` to what ``documents`` holds, for every chunker that a generation uses.

    ``chunkers`` maps a chunker's digest to it and its tokenizer file. Only documents that changed are
    split again, and each changes whole, in one commit. Of chunkers that are not named, chunks of
    documents that are gone are removed and the rest is left alone. Returns how many chunks were
    inserted, updated and deleted, and how many documents were split. Raises MissingInput without
    documents.
    """
    documents_table, table = LakeTable(table_root, DOCUMENTS), LakeTable(table_root, CHUNKS)
    totals = {"inserted": 0, "updated": 0, "deleted": 0, "documents": 0}
    with advisory_lock(database_url, f"chunks:{table_root}"):
        versions = documents_table.read(["document_id", "version"])
        current = dict(zip(*(column.to_pylist() for column in versions.columns), strict=True))
        held = _held(table)
        for digest, (chunker, tokenizer_file) in sorted(chunkers.items()):
            stale, changed = _outdated(current, held.pop(digest, {}))
            rows = _chunk(documents_table, changed, chunker, tokenizer_file)
            _add(totals, _merge(table, rows, stale, database_url), len(changed))
        orphans = [
            chunk
            for documents in held.values()
            for (document, _), chunks in documents.items()
            if document not in current
            for chunk in chunks
        ]
        if orphans:
            _add(totals, _merge(table, chunks_schema().empty_table(), orphans, database_url), 0)
    log.info("Chunks: %s", ", ".join(f"{n} {what}" for what, n in totals.items()))
    return totals


Held = dict[tuple[str, str], list[str]]
"""The chunks of each (document, version)."""


def _held(table: LakeTable) -> dict[str, Held]:
    """Return what each chunker has made so far."""
    held: dict[str, Held] = {}
    if not table.exists():
        return held
    columns = table.read(["chunker", "document_id", "document_version", "chunk_id"])
    for chunker, document, version, chunk in zip(*(c.to_pylist() for c in columns.columns), strict=True):
        held.setdefault(chunker, {}).setdefault((document, version), []).append(chunk)
    return held


def _outdated(current: Mapping[str, str], held: Held) -> tuple[list[str], list[str]]:
    """Return the chunks that must go or change, and the documents to split."""
    stale = [chunk for (d, v), chunks in held.items() if current.get(d) != v for chunk in chunks]
    return stale, [d for d, v in current.items() if (d, v) not in held]


def _merge(table: LakeTable, rows: pa.Table, stale: list[str], database_url: str) -> MergeCounts:
    return table.merge(
        rows, key="chunk_id", database_url=database_url, delete_missing=True, scope=("chunk_id", stale)
    )


def _chunk(documents: LakeTable, changed: list[str], chunker: Chunker, tokenizer_file: Path) -> pa.Table:
    """Return the chunks of the changed documents."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not changed:
        return chunks_schema().empty_table()
    run = chunker.start(tokenizer_file)
    table = documents.read(_COLUMNS)
    table = table.filter(pc.is_in(table["document_id"], pa.array(changed, pa.string())))
    parts = []
    for batch in table.to_batches(max_chunksize=_BATCH):
        rows = batch.to_pylist()
        made = [
            _row(document, chunk, run.digest)
            for document, chunks in zip(rows, run.split(rows), strict=True)
            for chunk in chunks
        ]
        parts.append(pa.Table.from_pylist(made, schema=chunks_schema()))
    return pa.concat_tables(parts)


def _row(document: Mapping[str, Any], chunk: Chunk, digest: str) -> dict[str, Any]:
    return {
        "chunk_id": chunk.chunk_id,
        "document_id": document["document_id"],
        "document_version": document["version"],
        "source": document["source"],
        "path": document["path"],
        "title": document["title"],
        "heading_path": json.dumps(chunk.heading_path, ensure_ascii=False),
        "position": chunk.position,
        "char_start": chunk.char_start,
        "char_end": chunk.char_end,
        "text": chunk.text,
        "embed_text": chunk.embed_text,
        "token_count": chunk.token_count,
        "chunker": digest,
    }


def _add(totals: dict[str, int], counts: MergeCounts, documents: int) -> None:
    for name in ("inserted", "updated", "deleted"):
        totals[name] += getattr(counts, name)
    totals["documents"] += documents


def dump(table_root: str) -> Iterator[str]:
    """Yield one canonical JSON line per document and chunk, sorted; nothing in it depends on the run."""
    from llmops.manifest import canonical_json

    for name, key in ((DOCUMENTS, "document_id"), (CHUNKS, "chunk_id")):
        table = LakeTable(table_root, name)
        rows = table.read().sort_by(key).to_pylist() if table.exists() else []
        for row in rows:
            yield canonical_json({"table": name, **{k: _plain(v) for k, v in row.items()}})


def _plain(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value
