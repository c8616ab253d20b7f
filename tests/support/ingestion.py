"""One whole ingestion of a dated folder: tables and one index generation. Run as a program, it can be killed."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from llmops.corpus import (
    CHUNKS,
    Chunker,
    DirectorySource,
    check_quality,
    merge_chunks,
    merge_documents,
    read_sources,
)
from llmops.corpus import dump as dump_corpus
from llmops.index import Generation, SyncCounts, create_generation, generation_id, sync
from llmops.index import dump as dump_index
from llmops.lakehouse import LakeTable
from llmops.manifest import ArtifactPin
from llmops.quality import QualityRules
from support.hash_embedder import HashEmbedder


@dataclass(frozen=True)
class Ingestion:
    """What one assistant needs to ingest the days of ``drops`` into tables and an index of its own."""

    name: str
    drops: Path
    folder: Path
    url: str
    tokenizer_file: Path

    @property
    def tables(self) -> str:
        return str(self.folder / self.name)

    @property
    def generation(self) -> str:
        return generation_id(self.name, HashEmbedder().fingerprint, self._digest, "dev")

    @property
    def _digest(self) -> str:
        return Chunker().digest(self.tokenizer_file)

    def run(self, day: date, *, shrinkage: float = 1.0) -> SyncCounts:
        """Ingest the sources as they were at the end of a day, and bring the index up to them."""
        source = DirectorySource(kind="directory", name="docs", path=str(self.drops), layout="dated")
        as_of = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
        staging = self.folder / f"{self.name}-staging"
        read_sources([source], as_of=as_of, staging=staging, table_root=self.tables)
        rules = QualityRules(max_shrinkage=shrinkage, max_quarantined_share=1)
        check_quality([source], staging, self.tables, rules)
        merge_documents(staging, self.tables, self.url)
        merge_chunks(self.tables, {self._digest: (Chunker(), self.tokenizer_file)}, self.url)
        embedder = HashEmbedder()
        create_generation(
            self.url,
            Generation(
                id=self.generation,
                assistant=self.name,
                embedder=ArtifactPin(uri="models:/hash/1", files={}, fingerprint=embedder.fingerprint),
                fingerprint=embedder.fingerprint,
                dimension=embedder.dimension,
                chunker=self._digest,
            ),
        )
        return sync(self.url, self.generation, LakeTable(self.tables, CHUNKS), embedder)

    def dump(self) -> list[str]:
        """Return documents, chunks and index as canonical lines."""
        return [*dump_corpus(self.tables), *dump_index(self.url, self.generation)]


if __name__ == "__main__":
    name, drops, folder, url, tokenizer_file, *days = sys.argv[1:]
    ingestion = Ingestion(name, Path(drops), Path(folder), url, Path(tokenizer_file))
    for day in days:
        ingestion.run(date.fromisoformat(day))
