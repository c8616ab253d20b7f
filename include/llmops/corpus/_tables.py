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
    "HISTORY",
    "QUALITY_RESULTS",
    "QUARANTINE",
    "SNAPSHOTS",
    "chunks_schema",
    "document_id",
    "documents_schema",
    "history_schema",
    "present_schema",
    "quarantine_schema",
    "snapshots_schema",
]

DOCUMENTS = "documents"
CHUNKS = "chunks"
QUARANTINE = "quarantine"
SNAPSHOTS = "snapshots"
HISTORY = "history"
QUALITY_RESULTS = "quality_results"


def document_id(source: str, path: str) -> str:
    """Return a document's id: the same path in two sources is two documents."""
    return hashlib.sha256(f"{source}\0{path}".encode()).hexdigest()[:32]


@cache
def documents_schema() -> pa.Schema:
    """Return the columns of ``documents``: one row per document as it is now.

    ``version`` is the digest of title and text, ``content_digest`` that of what they were made from: the
    file's bytes, and what reads them. ``metadata`` and ``sensitive`` are JSON objects, ``access`` and
    ``warnings`` JSON lists. ``damage`` is a share; ``signature`` and ``lines`` are measures of the text
    (see ``llmops.quality``).
    """
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
            ("access", pa.string()),
            ("content_digest", pa.string()),
            ("warnings", pa.string()),
            ("sensitive", pa.string()),
            ("characters", pa.int64()),
            ("words", pa.int64()),
            ("damage", pa.float64()),
            ("signature", pa.binary()),
            ("lines", pa.binary()),
        ]
    )


@cache
def chunks_schema() -> pa.Schema:
    """Return the columns of ``chunks``.

    ``heading_path`` and ``access`` are JSON lists, ``metadata`` is a JSON object, ``chunker`` a chunker's digest.
    """
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
            ("metadata", pa.string()),
            ("access", pa.string()),
        ]
    )


@cache
def quarantine_schema() -> pa.Schema:
    """Return the columns of ``quarantine``.

    ``count`` is how often the file was tried in vain, ``tries`` how often with its present content.
    """
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
            ("tries", pa.int32()),
        ]
    )


@cache
def snapshots_schema() -> pa.Schema:
    """Return the columns of ``snapshots``: the newest state merged of each source."""
    import pyarrow as pa

    return pa.schema([("source", pa.string()), ("as_of", pa.timestamp("us", "UTC")), ("digest", pa.string())])


@cache
def present_schema() -> pa.Schema:
    """Return the columns of what a run staged about every file of a source.

    ``state`` is ``unchanged`` or ``changed`` for a document, ``refused`` for a file in quarantine.
    """
    import pyarrow as pa

    names = ("source", "document_id", "content_digest", "state")
    return pa.schema([(name, pa.string()) for name in names])


@cache
def history_schema() -> pa.Schema:
    """Return the columns of ``history``: one row per thing that happened to a document, for ever.

    ``event`` is ``created``, ``changed``, ``deleted``, ``quarantined`` or ``moved``; ``other_path`` is where
    a document moved to or came from. ``as_of`` is the date of the run, ``merged_at`` when it was merged, as
    version ``table_version`` of the documents table.
    """
    import pyarrow as pa

    return pa.schema(
        [
            ("event_id", pa.string()),
            ("document_id", pa.string()),
            ("source", pa.string()),
            ("path", pa.string()),
            ("event", pa.string()),
            ("other_path", pa.string()),
            ("version", pa.string()),
            ("source_date", pa.timestamp("us", "UTC")),
            ("as_of", pa.string()),
            ("merged_at", pa.timestamp("us", "UTC")),
            ("table_version", pa.int64()),
        ]
    )
