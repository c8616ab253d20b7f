from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from index.conftest import Index, a_generation
from index.corpus import Corpus
from llmops.assistant import load_assistant
from llmops.cli.index import command
from llmops.embedding import Embedder
from llmops.errors import MissingInput
from llmops.index import Generation, create_generation, dump, find_generation, generation_id, mark, search
from llmops.index import _sync as sync_module
from llmops.manifest import ArtifactPin, content_hash
from llmops.registry import RegisteredModel
from llmops.settings import load_environment
from support.hash_embedder import HashEmbedder
from support.services import FreshDatabase, free_port

PAGES = {
    "pool.md": "Open a ConnectionPool once per process and borrow connections from it.",
    "vacuum.md": "Old files of a Delta table are removed by vacuum.\n\nLess than a week needs a switch.",
    "dag.md": "An Airflow DAG runs its tasks in the order of their dependencies.",
}


def variables(database: FreshDatabase, tmp_path: Path) -> dict[str, str]:
    return {
        "LLMOPS_HOME": str(tmp_path / "home"),
        "LLMOPS_STORAGE_ROOT": str(tmp_path / "lake"),
        "LLMOPS_DATABASE_URL": database.url("llmops_worker"),
    }


def run(environment: Mapping[str, str], *arguments: str) -> Result:
    return CliRunner(env=environment).invoke(command, arguments, catch_exceptions=False)


@pytest.fixture
def environment(database: FreshDatabase, tmp_path: Path) -> dict[str, str]:
    return variables(database, tmp_path)


@pytest.fixture
def guide(index: Index, tmp_path: Path) -> Index:
    index.corpus = Corpus(tmp_path / "lake" / "dev" / "guide", index.url)
    return index


def test_status_says_how_far_each_generation_is(guide: Index, environment: dict[str, str]) -> None:
    assert "no chunks table" in run(environment, "status").output
    guide.corpus.write({"a.md": "Apples."})
    assert "not loaded yet" in run(environment, "status").output
    guide.sync()
    printed = run(environment, "status", "--assistant", "guide").output
    assert "up to date" in printed
    assert guide.id in printed
    assert "1 chunks" in printed
    guide.corpus.write({"b.md": "Pears."})
    assert "version 1 of 2" in run(environment, "status").output
    assert run(environment, "status", "--assistant", "other").output.startswith("no index generation yet")


def test_dump_prints_canonical_lines_of_what_is_not_retired(
    guide: Index, environment: dict[str, str]
) -> None:
    guide.write({"a.md": "Apples.\n\nPears."})
    other = a_generation(HashEmbedder(name="other"))
    create_generation(guide.url, other)
    mark(guide.url, other.id, "retired")

    assert run(environment, "dump", "--canonical").output.splitlines() == list(dump(guide.url, guide.id))
    assert run(environment, "dump", "--canonical", "--generation", other.id).output == ""
    with pytest.raises(MissingInput, match="nothing_here"):
        run(environment, "dump", "--canonical", "--generation", "nothing_here")
    with pytest.raises(MissingInput, match="release_assistant"):
        run(environment, "dump", "--canonical", "--assistant", "nobody")


@contextmanager
def follower(environment: Mapping[str, str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``llmops index follow`` as the stack does, and stop it with SIGTERM."""
    arguments = ["-v", "index", "follow", "--health-port", str(port)]
    paths = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": "/usr/bin:/bin"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "llmops", *arguments],
            env={**paths, **environment},
            stdout=output,
            stderr=output,
        )
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def wait_for_chunks(index_url: str, generation: str, chunks: int, log: Path, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while find_generation(index_url, generation).chunks != chunks:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def test_the_follower_process_embeds_with_the_registered_embedder(
    database: FreshDatabase, tmp_path: Path, base_embedder: Path, environment: dict[str, str]
) -> None:
    embedder = Embedder.load(base_embedder)
    pin = ArtifactPin(
        uri="models:/dev.guide.embedder/1",
        files={
            file.relative_to(base_embedder).as_posix(): sha256(file.read_bytes()).hexdigest()
            for file in base_embedder.rglob("*")
            if file.is_file()
        },
        fingerprint=embedder.fingerprint,
    )
    cached = tmp_path / "home" / "models" / content_hash(pin.files)
    shutil.copytree(base_embedder, cached, copy_function=os.link)
    name = generation_id("guide", embedder.fingerprint, "c" * 12, "dev")
    url = database.url("llmops_worker")
    create_generation(url, Generation(name, "guide", pin, embedder.fingerprint, embedder.dimension, "c" * 12))
    corpus = Corpus(tmp_path / "lake" / "dev" / "guide", url)
    corpus.write(PAGES)
    port, log = free_port(), tmp_path / "follower.log"
    with follower(environment, port, log):
        wait_for_chunks(url, name, 4, log)
        corpus.write({path: text for path, text in PAGES.items() if path != "vacuum.md"})
        wait_for_chunks(url, name, 2, log)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as response:
            assert json.load(response)["healthy"] is True
    question = "sharing database connections between requests"
    with psycopg.connect(database.url("llmops_serving")) as connection:
        vector = embedder.embed([question])[0]
        hits = search(connection, name, question, vector, top_k=2, candidates=10, mode="dense")
    assert [hit.path for hit in hits] == ["pool.md", "dag.md"]
    assert 0.3 < hits[0].score < 1
    assert database.server.passwords["llmops_worker"] not in log.read_text()


def test_status_says_how_far_a_load_and_the_index_of_vectors_are(
    guide: Index, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    guide.corpus.write({f"{i}.md": f"Text {i}." for i in range(8)})
    monkeypatch.setattr(sync_module, "_BATCH", 3)
    write = sync_module.write_batch

    def cut(connection: Any, known: Generation, batch: Any, standing: Any) -> Generation:
        if known.chunks:
            raise RuntimeError("the process is gone")
        return write(connection, known, batch, standing)

    with monkeypatch.context() as cutting:
        cutting.setattr(sync_module, "write_batch", cut)
        with pytest.raises(RuntimeError):
            guide.sync()
    printed = run(environment, "status").output
    assert re.search(r"loading version 1: 3 of 8 chunks \(38%\), [\d,.]+/s, [\d.]+ minutes left", printed)
    with monkeypatch.context() as cutting:
        cutting.setattr(sync_module, "build_vectors", lambda *arguments: None)
        guide.sync()
    assert "no index of vectors yet" in run(environment, "status").output
    guide.sync()
    printed = run(environment, "status").output
    assert "loading" not in printed
    assert "index of vectors" not in printed


def test_plan_prints_what_a_generation_will_cost(
    database: FreshDatabase,
    tmp_path: Path,
    base_embedder: Path,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    embedder = Embedder.load(base_embedder)

    class OneEmbedder:
        """A registry that knows the base embedder."""

        def __init__(self, *arguments: object) -> None: ...

        def models(self, kind: str) -> list[RegisteredModel]:
            return [RegisteredModel("models:/dev.library_guide.embedder/1", {})]

        def pin(self, uri: str) -> ArtifactPin:
            return ArtifactPin(uri=uri, files={}, fingerprint="f")

        def fetch(self, pin: ArtifactPin) -> Path:
            return base_embedder

    monkeypatch.setattr("llmops.cli.index.Registry", OneEmbedder)
    corpus = Corpus(tmp_path / "lake" / "dev" / "library_guide", database.url("llmops_worker"))
    corpus.write(PAGES, chunker="e" * 12)
    assert "ingest_documents writes them" in run(environment, "plan").output

    chunker = load_assistant("library_guide", load_environment("dev")).chunker.digest(embedder.tokenizer_file)
    corpus.write(PAGES, chunker=chunker)
    printed = run(environment, "plan").output
    tokens = sum(embedder.count_tokens([row["embed_text"] for row in corpus.table.read().to_pylist()]))
    assert "models:/dev.library_guide.embedder/1" in printed
    assert "4, of which 0 have vectors" in printed
    assert f"4 texts, {tokens} tokens" in printed
    assert re.search(r"time +0\.\d minutes on this machine at [\d,]+ tokens/s", printed)
    assert re.search(r"disk +0 MB", printed)
