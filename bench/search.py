"""Filtered search in 200,000 chunks: how many of the nearest are found, and how long it takes beside plain SQL."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from bench.chunks import SHARES, Chunks, made_up, questions
from bench.figure import Figure
from bench.loading import load, new_generation
from llmops.index import find_generation, search
from llmops.index._vectors import build_vectors
from llmops.stack import EmbeddedPostgres

_TOP, _CANDIDATES, _QUESTIONS, _ROUNDS = 10, 50, 50, 5
_SETTINGS = (
    "SET hnsw.ef_search = 100",
    "SET hnsw.iterative_scan = relaxed_order",
    "SET hnsw.max_scan_tuples = 20000",
    "SET hnsw.scan_mem_multiplier = 4",
    "SET plan_cache_mode = force_custom_plan",
)
_BY_HAND = """
SELECT chunk_id, document_id, document_version, source, path, title, heading_path, text, position, 1 - distance AS score
FROM (
    SELECT *, embedding <=> %(vector)s AS distance FROM generation_bench
    WHERE (access = '{}' OR access && %(tags)s) AND metadata @@ %(wanted)s::jsonpath
    ORDER BY embedding::halfvec(384) <=> %(vector)s::halfvec(384) LIMIT 50
) AS near ORDER BY distance, chunk_id LIMIT 10
"""


@dataclass(frozen=True)
class _Case:
    """A filter: as ours takes it, as SQL takes it, and which chunks pass it."""

    name: str
    filters: Mapping[str, Sequence[str]]
    access: Sequence[str]
    jsonpath: str
    passing: NDArray[np.bool_]


def measure() -> list[Figure]:
    """Ask both the same in turn, the plain statement prepared and with its settings made once.

    The statement by hand leaves the way to the planner. Recall is against an exact comparison in numpy.
    """
    chunks = made_up(int(os.environ.get("BENCH_CHUNKS", "200000")))
    asked = questions(chunks.vectors, _QUESTIONS)
    with tempfile.TemporaryDirectory(prefix="llmops-bench-") as folder:
        Path(folder).chmod(0o711)
        server = EmbeddedPostgres(Path(folder) / "postgres")
        try:
            server.start()
            server.set_up()
            seconds = _prepare(server.url("llmops_worker"), chunks)
            figures = [Figure("index of vectors built", seconds, "s", 0, at_most=None)]
            for case in _cases(chunks):
                figures += _compare(server.url("llmops_serving"), chunks, asked, case)
            return figures
        finally:
            server.destroy()


def _prepare(url: str, chunks: Chunks) -> float:
    load(url, new_generation(url, "bench"), chunks)
    began = time.perf_counter()
    with psycopg.connect(url, autocommit=True) as connection:
        build_vectors(url, connection, find_generation(url, "bench"))
    return time.perf_counter() - began


def _cases(chunks: Chunks) -> list[_Case]:
    def by_metadata(name: str) -> _Case:
        return _Case(f"metadata, {name}", {name: ["yes"]}, ["all"], f'$."{name}" == "yes"', chunks.yes[name])

    def by_access(name: str) -> _Case:
        return _Case(f"access, {name}", {"all": ["yes"]}, [name], '$."all" == "yes"', chunks.tagged[name])

    return [make(name) for make in (by_metadata, by_access) for name in SHARES]


def _compare(url: str, chunks: Chunks, asked: NDArray[np.float32], case: _Case) -> list[Figure]:
    ids = np.array([row[0] for row in chunks.rows])
    nearest = np.argsort(-(asked @ chunks.vectors[case.passing].T), axis=1)[:, :_TOP]
    truth = [set(ids[case.passing][places].tolist()) for places in nearest]
    with psycopg.connect(url, autocommit=True) as mine, psycopg.connect(url, autocommit=True) as theirs:
        ours, by_hand = _ours(mine, case), _by_hand(theirs, case)
        rounds = []
        for number in range(_ROUNDS + 1):  # the first only warms up, and each begins in half of the others
            ways = {0: ours, 1: by_hand} if number % 2 else {1: by_hand, 0: ours}
            measured = {side: _medians(way, asked, truth) for side, way in ways.items()}
            rounds += [(measured[0], measured[1])] if number else []
    ratios = [our_time / their_time for (our_time, _), (their_time, _) in rounds]
    time_ours, time_theirs = (statistics.median(r[side][0] for r in rounds) * 1000 for side in (0, 1))
    recall_ours, recall_theirs = (statistics.mean(r[side][1] for r in rounds) for side in (0, 1))
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    label = f"{case.name} ({int(case.passing.sum()):,})"
    return [
        Figure(f"recall@10 {label}; by hand {recall_theirs:.3f}", recall_ours, "share", 0.98, at_most=False),
        Figure(f"p50 {label}", time_ours, "ms", time_theirs, at_most=None),
        Figure(f"   over by hand ({spread})", statistics.median(ratios), "ratio", 1.1, at_most=True),
    ]


def _ours(connection: psycopg.Connection[Any], case: _Case) -> Callable[[NDArray[np.float32]], list[str]]:
    def ask(vector: NDArray[np.float32]) -> list[str]:
        hits = search(
            connection, "bench", "", vector, mode="dense", top_k=_TOP, candidates=_CANDIDATES,
            filters=case.filters, access=case.access,
        )  # fmt: skip
        return [hit.chunk_id for hit in hits]

    return ask


def _by_hand(connection: psycopg.Connection[Any], case: _Case) -> Callable[[NDArray[np.float32]], list[str]]:
    from pgvector import Vector
    from pgvector.psycopg import register_vector

    register_vector(connection)
    for setting in _SETTINGS:
        connection.execute(setting)

    def ask(vector: NDArray[np.float32]) -> list[str]:
        values = {"vector": Vector(vector), "tags": list(case.access), "wanted": case.jsonpath}
        with connection.cursor() as cursor:
            return [row[0] for row in cursor.execute(_BY_HAND, values, prepare=True, binary=True).fetchall()]

    return ask


def _medians(
    way: Callable[[NDArray[np.float32]], list[str]], asked: NDArray[np.float32], truth: Sequence[set[str]]
) -> tuple[float, float]:
    """Return the median time of a question, and the share of the nearest chunks that were found."""
    seconds, found = [], []
    for vector, nearest in zip(asked, truth, strict=True):
        began = time.perf_counter()
        ids = way(vector)
        seconds.append(time.perf_counter() - began)
        found.append(len(nearest & set(ids)) / len(nearest))
    return statistics.median(seconds), statistics.mean(found)
