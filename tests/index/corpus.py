"""A chunks table as the corpus package writes it, made from short texts whose paragraphs are the chunks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from llmops.lakehouse import LakeTable, MergeCounts

SCHEMA = pa.schema(
    [
        ("chunk_id", pa.string()),
        ("document_id", pa.string()),
        ("document_version", pa.string()),
        ("source", pa.string()),
        ("path", pa.string()),
        ("title", pa.string()),
        ("heading_path", pa.string()),
        ("position", pa.int64()),
        ("char_start", pa.int64()),
        ("char_end", pa.int64()),
        ("text", pa.string()),
        ("embed_text", pa.string()),
        ("token_count", pa.int64()),
        ("chunker", pa.string()),
        ("metadata", pa.string()),
        ("access", pa.string()),
    ]
)


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


class Corpus:
    """The documents of one or more sources; ``write`` gives a source's whole content."""

    def __init__(self, root: Path, url: str) -> None:
        self.root = root
        self.table = LakeTable(str(root), "chunks")
        self._url = url

    def write(
        self,
        documents: Mapping[str, str],
        *,
        source: str = "docs",
        chunker: str = "c" * 12,
        metadata: Mapping[str, Any] | None = None,
        access: Sequence[str] = (),
    ) -> MergeCounts:
        rows = [
            row
            for path, text in documents.items()
            for row in chunk_rows(
                source, path, text, chunker, json.dumps(metadata or {}), json.dumps(list(access))
            )
        ]
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        return self.table.merge(
            table, key="chunk_id", database_url=self._url, delete_missing=True, scope=("source", [source])
        )


def chunk_rows(
    source: str, path: str, text: str, chunker: str, metadata: str, access: str = "[]"
) -> list[dict[str, Any]]:
    document = digest(source, path)
    title = path.rsplit("/", 1)[-1].removesuffix(".md")
    rows, start = [], 0
    for position, part in enumerate(text.split("\n\n")):
        rows.append(
            {
                "chunk_id": digest(chunker, document, part, str(text.split("\n\n")[:position].count(part))),
                "document_id": document,
                "document_version": digest(text),
                "source": source,
                "path": path,
                "title": title,
                "heading_path": json.dumps([title]),
                "position": position,
                "char_start": start,
                "char_end": start + len(part),
                "text": part,
                "embed_text": f"{title}\n{part}",
                "token_count": len(part.split()),
                "chunker": chunker,
                "metadata": metadata,
                "access": access,
            }
        )
        start += len(part) + 2
    return rows
