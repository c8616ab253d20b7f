"""The embedder that runs here: an ONNX graph, without torch."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, PositiveInt

from llmops.embedding._folder import GRAPH, TOKENIZER, Opening
from llmops.embedding._meter import Meter
from llmops.errors import ConfigurationError, IntegrityError

__all__ = ["OnnxDescription"]

_WINDOW = 2048
_BATCH_TOKENS = 512
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


class OnnxDescription(BaseModel):
    """What ``embedder.json`` says about a graph beside it.

    ``source_digest`` is the sha-256 of the ``model.safetensors`` that the graph was exported from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["onnx"] = "onnx"
    name: str
    dimension: PositiveInt
    max_tokens: PositiveInt
    pooling: Literal["mean", "cls"]
    source_digest: str

    @property
    def files(self) -> tuple[str, ...]:
        """Return the files beside the description that decide what is computed."""
        return (GRAPH, TOKENIZER)

    @property
    def prefixes(self) -> tuple[str, str]:
        """Return what is put before a document and before a question: nothing."""
        return "", ""

    def open(self, opening: Opening) -> _OnnxModel:
        """Return the model that runs the graph."""
        if opening.threads is not None and opening.threads < 1:
            raise ConfigurationError(f"an embedder cannot run on {opening.threads!r} threads: use 1 or more")
        session = _open_graph(opening.parts[GRAPH], opening.folder)
        threads = opening.threads or _usable_cores()
        return _OnnxModel(session, opening.tokenizer(self.max_tokens), self.dimension, threads)


class _OnnxModel:
    """Texts of exactly the same number of tokens run together, on one thread, several such batches side by side."""

    window = 1

    def __init__(self, session: Any, tokenizer: Any, dimension: int, threads: int) -> None:
        self._session = session
        self._tokenizer = tokenizer
        self._dimension = dimension
        self._threads = threads

    def meter(self) -> Meter:
        """Return a meter that stays at nothing: no endpoint is asked."""
        return Meter()

    def embed(self, texts: Sequence[str], meter: Meter) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
        """Yield one unit vector per text, all at once."""
        vectors = np.empty((len(texts), self._dimension), np.float32)
        with ThreadPoolExecutor(min(self._threads, max(len(texts), 1)), "embed") as pool:
            for start in range(0, len(texts), _WINDOW):
                window = self._tokenise(texts[start : start + _WINDOW])
                batches = _batches([len(ids) for ids in window])
                inputs = ([window[i] for i in batch] for batch in batches)
                for batch, made in zip(batches, pool.map(self._run, inputs), strict=True):
                    vectors[start + np.array(batch)] = made
        yield list(range(len(texts))), vectors

    def _tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, cut to what the graph takes."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]

    def _run(self, batch: list[list[int]]) -> NDArray[np.float32]:
        tokens = np.array(batch, np.int64)
        feed = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
        vectors: NDArray[np.float32] = self._session.run(None, feed)[0]
        return vectors


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Return the positions of texts in batches of equal length and at most ``_BATCH_TOKENS`` tokens.

    The longest come first, so that no thread is left alone with a long batch at the end.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        last = batches[-1] if batches else []
        fits = last and lengths[last[0]] == lengths[i] and (len(last) + 1) * lengths[i] <= _BATCH_TOKENS
        last.append(i) if fits else batches.append([i])
    return batches


def _open_graph(content: bytes, folder: Path) -> Any:
    """Return an ONNX Runtime session that uses one thread per call."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library's errors have no base class of their own
        raise IntegrityError(
            f"{GRAPH} in {str(folder)!r} is no ONNX graph ({error}): import the model again"
        ) from error


def _usable_cores() -> int:
    """Return how many cores this process may use: its CPU set, or its container's quota if lower."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = _CPU_QUOTA.read_text().split()
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        return cores
    return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))
