"""From the ``documents`` table to the ``chunks`` table."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
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

_COLUMNS = ("document_id", "version", "source", "path", "title", "text", "media_type", "metadata", "access")
_MADE_OF = ("version", "metadata", "access")
_BATCH = 500
_COMMIT_CHUNKS = 20_000
"""A commit has the chunks of whole documents, about so many at most: memory does not grow with the corpus."""

State = tuple[str, ...]
"""What a document's chunks were made of: its version, metadata and access tags."""

Held = dict[str, dict[State, list[str]]]
"""The chunks of each document, by the state of the document they were made from."""


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
    documents, table = LakeTable(table_root, DOCUMENTS), LakeTable(table_root, CHUNKS)
    totals = {"inserted": 0, "updated": 0, "deleted": 0, "documents": 0}
    with advisory_lock(database_url, f"chunks:{table_root}"):
        rows = documents.read(["document_id", *_MADE_OF])
        current = {key: tuple(rest) for key, *rest in zip(*map(_values, rows.columns), strict=True)}
        held = _held(table)
        orphans = [
            chunk
            for of_chunker in held.values()
            for document, states in of_chunker.items()
            if document not in current
            for chunks in states.values()
            for chunk in chunks
        ]
        if orphans or not table.exists():
            _add(totals, _merge(table, chunks_schema().empty_table(), orphans, database_url))
        for digest, (chunker, tokenizer_file) in sorted(chunkers.items()):
            stale = _stale(current, held.get(digest, {}))
            totals["documents"] += len(stale)
            for commit in _commits(documents, stale, chunker, tokenizer_file):
                _add(totals, _merge(table, commit.rows, commit.stale, database_url))
    log.info("Chunks: %s", ", ".join(f"{n} {what}" for what, n in totals.items()))
    return totals


@dataclass
class _Commit:
    """New chunks of whole documents, and the ones that these documents had before."""

    parts: list[pa.Table] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)

    @property
    def rows(self) -> pa.Table:
        """Return the new chunks."""
        import pyarrow as pa

        return pa.concat_tables([chunks_schema().empty_table(), *self.parts])

    @property
    def size(self) -> int:
        """Return how many chunks the commit touches."""
        return int(sum(part.num_rows for part in self.parts)) + len(self.stale)


def _held(table: LakeTable) -> dict[str, Held]:
    """Return what each chunker has made so far."""
    held: dict[str, Held] = {}
    if not table.exists():
        return held
    columns = table.read(["chunker", "document_id", "chunk_id", "document_version", "metadata", "access"])
    for chunker, document, chunk, *state in zip(*map(_values, columns.columns), strict=True):
        states = held.setdefault(chunker, {}).setdefault(document, {})
        states.setdefault(tuple(state), []).append(chunk)
    return held


def _stale(current: Mapping[str, State], held: Held) -> dict[str, list[str]]:
    """Return the documents to split, each with the chunks it has from before."""
    return {
        document: [chunk for chunks in held.get(document, {}).values() for chunk in chunks]
        for document, state in current.items()
        if held.get(document, {}).keys() != {state}
    }


def _commits(
    documents: LakeTable, stale: Mapping[str, list[str]], chunker: Chunker, tokenizer_file: Path
) -> Iterator[_Commit]:
    """Split the documents and yield what to merge, in portions of bounded size."""
    import pyarrow as pa

    if not stale:
        return
    run = chunker.start(tokenizer_file)
    commit = _Commit()
    for piece in documents.batches(_COLUMNS, where=("document_id", list(stale))):
        for batch in piece.to_batches(max_chunksize=_BATCH):
            rows = batch.to_pylist()
            made = [
                _row(document, chunk, run.digest)
                for document, chunks in zip(rows, run.split(rows), strict=True)
                for chunk in chunks
            ]
            commit.parts.append(pa.Table.from_pylist(made, schema=chunks_schema()))
            commit.stale += [chunk for document in rows for chunk in stale[document["document_id"]]]
            if commit.size >= _COMMIT_CHUNKS:
                yield commit
                commit = _Commit()
    if commit.size:
        yield commit


def _merge(table: LakeTable, rows: pa.Table, stale: list[str], database_url: str) -> MergeCounts:
    return table.merge(
        rows, key="chunk_id", database_url=database_url, delete_missing=True, scope=("chunk_id", stale)
    )


def _values(column: pa.ChunkedArray) -> list[Any]:
    values: list[Any] = column.to_pylist()
    return values


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
        "metadata": document["metadata"],
        "access": document["access"],
    }


def _add(totals: dict[str, int], counts: MergeCounts) -> None:
    for name in ("inserted", "updated", "deleted"):
        totals[name] += getattr(counts, name)


def dump(table_root: str) -> Iterator[str]:
    """Yield one canonical JSON line per document and chunk, sorted; nothing in it depends on the run."""
    from llmops.manifest import canonical_json

    for name, key in ((DOCUMENTS, "document_id"), (CHUNKS, "chunk_id")):
        table = LakeTable(table_root, name)
        rows = table.read().sort_by(key).to_pylist() if table.exists() else []
        for row in rows:
            yield canonical_json({"table": name, **{k: _plain(v) for k, v in row.items()}})


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if hasattr(value, "isoformat") else value
