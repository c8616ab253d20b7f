"""The corpus: sources become documents, documents become chunks, both as Delta tables."""

from __future__ import annotations

from llmops.corpus._checking import check_quality, record_quality
from llmops.corpus._chunker import Chunk, Chunker, chunk_id_of
from llmops.corpus._chunking import dump, merge_chunks
from llmops.corpus._delta_table import DeltaTableSource
from llmops.corpus._directory import DirectorySource
from llmops.corpus._files import Snapshot, SourceFile
from llmops.corpus._git import GitSource
from llmops.corpus._history import DocumentEvent, history
from llmops.corpus._ingest import plan_shards, read_shard, read_sources, report_sources
from llmops.corpus._merging import merge_documents
from llmops.corpus._object_store import ObjectStoreSource
from llmops.corpus._packages import PackagesSource
from llmops.corpus._sources import Source
from llmops.corpus._tables import (
    CHUNKS,
    DOCUMENTS,
    HISTORY,
    QUALITY_RESULTS,
    QUARANTINE,
    SNAPSHOTS,
    document_id,
)
from llmops.corpus._upkeep import compact_tables, forget_chunkers
from llmops.corpus._website import WebsiteSource

__all__ = [
    "CHUNKS",
    "DOCUMENTS",
    "HISTORY",
    "QUALITY_RESULTS",
    "QUARANTINE",
    "SNAPSHOTS",
    "Chunk",
    "Chunker",
    "DeltaTableSource",
    "DirectorySource",
    "DocumentEvent",
    "GitSource",
    "ObjectStoreSource",
    "PackagesSource",
    "Snapshot",
    "Source",
    "SourceFile",
    "WebsiteSource",
    "check_quality",
    "chunk_id_of",
    "compact_tables",
    "document_id",
    "dump",
    "forget_chunkers",
    "history",
    "merge_chunks",
    "merge_documents",
    "plan_shards",
    "read_shard",
    "read_sources",
    "record_quality",
    "report_sources",
]
