"""What the embedder reaches of the raw forward throughput of its own graph, on the same texts."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from bench.figure import Figure
from llmops.embedding import Embedder
from llmops.training import import_base_embedder

_TEXTS = 500
_WORDS = (4, 12, 30, 60, 90, 120, 150, 200)
_ROUNDS = 2
_READY = """
import sys
from pathlib import Path
from llmops.embedding import Embedder
Embedder.load(Path(sys.argv[1])).embed(["ready"])
"""


def measure() -> list[Figure]:
    """Embed texts of installed packages both ways in turn, and return the ratio of the best rounds."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = import_base_embedder(Path(scratch) / "embedder")
        ready = min(_seconds_until_ready(folder) for _ in range(3))
        texts = _texts()
        embedder = Embedder.load(folder)
        batches = {size: _raw_batches(embedder, texts, size) for size in (16, 32, 64)}
        session = _raw_session(folder)
        product, raw = [], []
        for _ in range(_ROUNDS):
            product.append(_timed(lambda: embedder.embed(texts)))
            raw += [_timed(lambda b=b: [session.run(None, feed) for feed in b]) for b in batches.values()]
    tokens = sum(min(count, embedder.max_tokens) for count in embedder.count_tokens(texts))
    ratio, speed = min(raw) / min(product), tokens / min(product)
    return [
        Figure("embedder ready after process start", ready, "s", 3, at_most=True),
        Figure(f"embed() over raw forward ({speed:.0f} tokens/s)", ratio, "ratio", 0.9, at_most=False),
    ]


def _texts() -> list[str]:
    """Return pieces of varied length out of the descriptions of the installed packages."""
    words: list[str] = []
    for package in ("mlflow", "deltalake", "transformers", "fastapi", "pydantic", "rich", "httpx", "torch"):
        words += str(metadata.metadata(package).get_payload()).split()
    texts, start = [], 0
    for i in range(_TEXTS):
        count = _WORDS[i % len(_WORDS)]
        texts.append(" ".join(words[(start + k) % len(words)] for k in range(count)))
        start += count
    return texts


def _raw_session(folder: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    return onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])


def _raw_batches(embedder: Embedder, texts: Sequence[str], size: int) -> list[dict[str, np.ndarray]]:
    """Return the texts tokenised, sorted by length, and padded in batches of ``size``."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(embedder.tokenizer_file))
    tokenizer.enable_truncation(embedder.max_tokens)
    rows = sorted((encoding.ids for encoding in tokenizer.encode_batch(texts)), key=len)
    feeds = []
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        ids, mask = np.zeros((2, len(batch), len(batch[-1])), np.int64)
        for i, row in enumerate(batch):
            ids[i, : len(row)], mask[i, : len(row)] = row, 1
        feeds.append({"input_ids": ids, "attention_mask": mask})
    return feeds


def _timed(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _seconds_until_ready(folder: Path) -> float:
    return _timed(lambda: subprocess.run([sys.executable, "-c", _READY, str(folder)], check=True))
