"""The tables of the corpus: their columns, in the order they have on disk."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "CHUNKS",
    "DOCUMENTS",
    "QUARANTINE",
    "SNAPSHOTS",
    "chunks_schema",
    "document_id",
    "documents_schema",
    "quarantine_schema",
    "snapshots_schema",
]

DOCUMENTS = "documents"
CHUNKS = "chunks"
QUARANTINE = "quarantine"
SNAPSHOTS = "snapshots"


def document_id(source: str, path: str) -> str:
    """Return a document's id: the same path in two sources is two documents."""
    return hashlib.sha256(f"{source}\0{path}".encode()).hexdigest()[:32]


@cache
def documents_schema() -> pa.Schema:
    """Return the columns of ``documents``: one row per document as it is now."""
    import pyarrow as pa

    return pa.schema(
        [
            ("document_id", pa.string()),
            ("version", pa.string()),
            ("source", pa.string()),
            ("path", pa.string()),
            ("title", pa.string()),
            ("text", pa.string()),
            ("media_type", pa.string()),
            ("source_date", pa.timestamp("us", "UTC")),
            ("metadata", pa.string()),
        ]
    )


@cache
def chunks_schema() -> pa.Schema:
    """Return the columns of ``chunks``; ``heading_path`` is a JSON list, ``chunker`` a chunker's digest."""
    import pyarrow as pa

    return pa.schema(
        [
            ("chunk_id", pa.string()),
            ("document_id", pa.string()),
            ("document_version", pa.string()),
            ("source", pa.string()),
            ("path", pa.string()),
            ("title", pa.string()),
            ("heading_path", pa.string()),
            ("position", pa.int32()),
            ("char_start", pa.int32()),
            ("char_end", pa.int32()),
            ("text", pa.string()),
            ("embed_text", pa.string()),
            ("token_count", pa.int32()),
            ("chunker", pa.string()),
        ]
    )


@cache
def quarantine_schema() -> pa.Schema:
    """Return the columns of ``quarantine``; ``count`` is how many contents of the file were refused."""
    import pyarrow as pa

    return pa.schema(
        [
            ("document_id", pa.string()),
            ("source", pa.string()),
            ("path", pa.string()),
            ("problem", pa.string()),
            ("reason", pa.string()),
            ("content_digest", pa.string()),
            ("count", pa.int32()),
        ]
    )


@cache
def snapshots_schema() -> pa.Schema:
    """Return the columns of ``snapshots``: the newest state merged of each source."""
    import pyarrow as pa

    return pa.schema([("source", pa.string()), ("as_of", pa.timestamp("us", "UTC")), ("digest", pa.string())])
