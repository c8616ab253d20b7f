"""The corpus: sources become documents, documents become chunks, both as Delta tables."""

from __future__ import annotations

from llmops.corpus._chunker import Chunk, Chunker, chunk_id_of
from llmops.corpus._chunking import dump, merge_chunks
from llmops.corpus._delta_table import DeltaTableSource
from llmops.corpus._directory import DirectorySource
from llmops.corpus._files import Snapshot, SourceFile
from llmops.corpus._git import GitSource
from llmops.corpus._ingest import Source, check_quality, merge_documents, read_sources
from llmops.corpus._object_store import ObjectStoreSource
from llmops.corpus._packages import PackagesSource
from llmops.corpus._tables import CHUNKS, DOCUMENTS, QUARANTINE, SNAPSHOTS, document_id
from llmops.corpus._website import WebsiteSource

__all__ = [
    "CHUNKS",
    "DOCUMENTS",
    "QUARANTINE",
    "SNAPSHOTS",
    "Chunk",
    "Chunker",
    "DeltaTableSource",
    "DirectorySource",
    "GitSource",
    "ObjectStoreSource",
    "PackagesSource",
    "Snapshot",
    "Source",
    "SourceFile",
    "WebsiteSource",
    "check_quality",
    "chunk_id_of",
    "document_id",
    "dump",
    "merge_chunks",
    "merge_documents",
    "read_sources",
]
