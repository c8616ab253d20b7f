"""Embedding new chunks into the cache, beside the raw forward pass of the same graph and sentence-transformers."""

from __future__ import annotations

import itertools
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from bench.figure import Figure
from llmops.embedding import Embedder, embed_cached
from llmops.stack import EmbeddedPostgres
from llmops.training import import_base_embedder

_CHUNKS = 2000
_DUPLICATES = 0.08
_WORDS = (4, 8, 16, 30, 45, 60, 90, 150)
_ROUNDS = 5
_PADDED = 32
_PACKAGES = ("mlflow", "deltalake", "transformers", "fastapi", "pydantic", "rich", "httpx", "torch")
_READY = """
import sys
from pathlib import Path
from llmops.embedding import Embedder
Embedder.load(Path(sys.argv[1])).embed(["ready"])
"""


def measure() -> list[Figure]:
    """Embed 2,000 chunks, a fifth of them in each round, in every way in turn; return medians of the rounds' ratios."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = import_base_embedder(Path(scratch) / "embedder")
        ready = min(_seconds_until_ready(folder) for _ in range(3))
        server = EmbeddedPostgres(Path(scratch) / "postgres")
        try:
            server.start()
            server.set_up()
            over_raw, over_peer, speeds = _rounds(folder, server.url("llmops_worker"))
        finally:
            server.destroy()
    speed = statistics.median(speeds)
    peer = f"embedding {_CHUNKS} chunks over sentence-transformers"
    return [
        Figure("embedder ready after process start", ready, "s", 3, at_most=True),
        Figure(
            f"embedding into the cache over raw forward ({speed:.0f} tokens/s)",
            statistics.median(over_raw), "ratio", 0.92, at_most=False,
        ),
        Figure(peer, statistics.median(over_peer), "ratio", 1.2, at_most=False),
    ]  # fmt: skip


def _rounds(folder: Path, url: str) -> tuple[list[float], list[float], list[float]]:
    """Return for each round the product's speed over the raw one's and over the peer's, and in tokens per second."""
    from sentence_transformers import SentenceTransformer

    embedder = Embedder.load(folder)
    peer = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    session = _session(folder, len(os.sched_getaffinity(0)))
    single = _session(folder, 1)
    embedder.embed(["warm"])
    peer.encode(["warm"], show_progress_bar=False)
    over_raw, over_peer, speeds = [], [], []
    for number, texts in enumerate(_rounds_of_chunks()):
        distinct = list(dict.fromkeys(texts))
        rows = _tokenised(embedder, distinct)
        equal, padded = _equal(rows), _padded(rows)
        ways: dict[str, Callable[[], Any]] = {
            "product": lambda texts=texts: embed_cached(embedder, texts, url),
            "equal": lambda feeds=equal: _side_by_side(single, feeds),
            "padded": lambda feeds=padded: [session.run(None, feed) for feed in feeds],
            "peer": lambda texts=texts: peer.encode(
                texts, normalize_embeddings=True, show_progress_bar=False
            ),
        }
        names = list(ways)
        turned = names[number % len(names) :] + names[: number % len(names)]
        seconds = {name: _timed(ways[name]) for name in turned}
        over_raw.append(min(seconds["equal"], seconds["padded"]) / seconds["product"])
        over_peer.append(seconds["peer"] / seconds["product"])
        speeds.append(sum(map(len, rows)) / seconds["product"])
        print(f"# round {number + 1}: " + ", ".join(f"{name} {seconds[name]:.2f} s" for name in names))
    return over_raw, over_peer, speeds


def _rounds_of_chunks() -> list[list[str]]:
    """Return the chunks of each round, of mixed lengths, cut from the descriptions of installed packages."""
    words: list[str] = []
    for package in _PACKAGES:
        words += str(metadata.metadata(package).get_payload()).split()
    chance = random.Random(7)
    sizes = itertools.cycle(_WORDS)
    rounds = []
    for _ in range(_ROUNDS):
        count = _CHUNKS // _ROUNDS
        repeated = round(count * _DUPLICATES)
        starts = [chance.randrange(len(words)) for _ in range(count - repeated)]
        texts = [" ".join(itertools.islice(itertools.cycle(words), s, s + next(sizes))) for s in starts]
        texts += chance.choices(texts, k=repeated)
        chance.shuffle(texts)
        rounds.append(texts)
    return rounds


def _session(folder: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])


def _tokenised(embedder: Embedder, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each text, the shortest first."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(embedder.tokenizer_file))
    tokenizer.enable_truncation(embedder.max_tokens)
    return sorted((encoding.ids for encoding in tokenizer.encode_batch(list(texts))), key=len)


def _equal(rows: Sequence[list[int]]) -> list[dict[str, np.ndarray]]:
    """Return the texts in batches of equal length, the longest first, as the embedder runs them."""
    feeds = []
    for length, group in itertools.groupby(reversed(rows), key=len):
        batch = list(group)
        size = max(1, 512 // length)
        feeds += [_feed(batch[start : start + size]) for start in range(0, len(batch), size)]
    return feeds


def _padded(rows: Sequence[list[int]]) -> list[dict[str, np.ndarray]]:
    """Return the texts sorted by length and padded in batches of ``_PADDED``, as is usual."""
    return [_feed(rows[start : start + _PADDED]) for start in range(0, len(rows), _PADDED)]


def _feed(batch: Sequence[list[int]]) -> dict[str, np.ndarray]:
    ids, mask = np.zeros((2, len(batch), max(map(len, batch))), np.int64)
    for i, row in enumerate(batch):
        ids[i, : len(row)], mask[i, : len(row)] = row, 1
    return {"input_ids": ids, "attention_mask": mask}


def _side_by_side(session: Any, feeds: Sequence[dict[str, np.ndarray]]) -> None:
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(lambda feed: session.run(None, feed), feeds))


def _timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _seconds_until_ready(folder: Path) -> float:
    return _timed(lambda: subprocess.run([sys.executable, "-c", _READY, str(folder)], check=True))
