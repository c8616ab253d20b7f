"""How fast rows with vectors are written, beside ``psql \\copy`` of a prepared binary file into an equal table."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

from bench.chunks import DIMENSION, Chunks, made_up
from bench.figure import Figure
from llmops.index import Generation, create_generation, find_generation
from llmops.index._rows import COLUMNS, copy_stream
from llmops.index._sync import _BATCH
from llmops.index._write import Batch, Standing, write_batch
from llmops.manifest import ArtifactPin
from llmops.stack import EmbeddedPostgres
from llmops.stack.postgres import _installed_binaries

_ROUNDS = 3


def measure() -> list[Figure]:
    """Load the same rows both ways in turn, each into an empty table with the same columns and indexes.

    Ours commits every 2,000 rows together with how far it came, and counts the words of every chunk, which
    ``psql`` does not: it sends one file as one transaction. Neither builds the index of vectors.
    """
    count = int(os.environ.get("BENCH_CHUNKS", "200000"))
    chunks = made_up(count)
    with tempfile.TemporaryDirectory(prefix="llmops-bench-") as folder:
        Path(folder).chmod(0o711)
        file = Path(folder) / "rows.bin"
        with file.open("wb") as stream:
            stream.writelines(copy_stream(chunks.rows, chunks.vectors))
        server = EmbeddedPostgres(Path(folder) / "postgres")
        try:
            server.start()
            server.set_up()
            ours, theirs = [], []
            for _ in range(_ROUNDS):
                ours.append(count / _ours(server, chunks))
                theirs.append(count / _theirs(server, file))
        finally:
            server.destroy()
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    name = f"loading {count:,} x {DIMENSION} over psql ({spread})"
    return [
        Figure(
            "loading, rows per second", statistics.median(ours), "rows/s", statistics.median(theirs), None
        ),
        Figure(name, statistics.median(ratios), "ratio", 0.8, at_most=False),
    ]


def new_generation(url: str, name: str) -> Generation:
    """Return an empty generation."""
    pin = ArtifactPin(uri="models:/bench/1", files={}, fingerprint="bench")
    create_generation(url, Generation(name, "bench", pin, "bench", DIMENSION, "bench"))
    return find_generation(url, name)


def load(url: str, known: Generation, chunks: Chunks) -> None:
    """Write all chunks as a sync does, once their vectors are there."""
    with psycopg.connect(url, autocommit=True) as connection:
        for start in range(0, len(chunks.rows), _BATCH):
            rows = chunks.rows[start : start + _BATCH]
            standing = Standing(None, None, 1, "bench", rows[-1][1], start + len(rows), len(chunks.rows), 1.0)
            known = write_batch(
                connection, known, Batch(rows, chunks.vectors[start : start + _BATCH]), standing
            )


def _ours(server: EmbeddedPostgres, chunks: Chunks) -> float:
    url = server.url("llmops_worker")
    known = new_generation(url, "ours")
    began = time.perf_counter()
    load(url, known, chunks)
    seconds = time.perf_counter() - began
    _drop(server, "ours", len(chunks.rows))
    return seconds


def _theirs(server: EmbeddedPostgres, file: Path) -> float:
    new_generation(server.url("llmops_worker"), "theirs")
    copy = f"\\copy generation_theirs ({', '.join(COLUMNS)}) FROM '{file}' WITH (FORMAT binary)"
    psql = [str(_installed_binaries() / "bin" / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1"]
    began = time.perf_counter()
    subprocess.run([*psql, server.url("llmops_worker"), "-c", copy], check=True)
    seconds = time.perf_counter() - began
    _drop(server, "theirs", None)
    return seconds


def _drop(server: EmbeddedPostgres, name: str, rows: int | None) -> None:
    """Remove a generation once it is known to be whole, and write out what is left to write."""
    with psycopg.connect(server.url("postgres", "llmops"), autocommit=True) as connection:
        found = connection.execute(f"SELECT count(*) FROM generation_{name}").fetchone()
        if found is None or not found[0] or (rows is not None and found[0] != rows):
            raise SystemExit(f"generation {name!r} holds {found} rows, not {rows}")
        connection.execute("UPDATE index_generations SET state = 'retired' WHERE id = %s", (name,))
        connection.execute("SELECT drop_index_generation(%s)", (name,))
        connection.execute("CHECKPOINT")
