"""An embedder: a tokenizer and an ONNX graph, run without torch."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmops.embedding._folder import (
    DESCRIPTION,
    GRAPH,
    TOKENIZER,
    EmbedderDescription,
    parse_description,
    read_part,
)
from llmops.errors import ConfigurationError, IntegrityError
from llmops.registry import fingerprint

__all__ = ["Embedder"]

log = logging.getLogger(__name__)

_WINDOW = 2048
_BATCH_TOKENS = 512
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


class Embedder:
    """Turns texts into unit vectors, the same vector for the same text whatever is embedded beside it.

    Texts of exactly the same number of tokens run together, on one thread, and several such batches run
    side by side. So there is no padding, and no vector depends on the other texts of its batch or on the
    number of threads: two builds of an index can be compared bit for bit.
    """

    def __init__(
        self,
        folder: Path,
        description: EmbedderDescription,
        fingerprint: str,
        session: Any,
        tokenizers: tuple[Any, Any],
        threads: int,
    ) -> None:
        self.folder = folder
        self.name = description.name
        self.dimension = description.dimension
        self.max_tokens = description.max_tokens
        self.fingerprint = fingerprint
        self._session = session
        self._truncating, self._counting = tokenizers
        self._threads = threads

    @classmethod
    def load(cls, folder: Path, *, threads: int | None = None) -> Embedder:
        """Return the embedder in ``folder``; its fingerprint is that of the very bytes it runs.

        ``threads`` is how many texts are embedded side by side, by default one per usable core.
        Raises MissingInput when a file is not there and IntegrityError when one cannot be read.
        """
        parts = {name: read_part(folder, name) for name in (GRAPH, TOKENIZER, DESCRIPTION)}
        description = parse_description(parts[DESCRIPTION], folder)
        if threads is not None and threads < 1:
            raise ConfigurationError(f"an embedder cannot run on {threads!r} threads: use 1 or more")
        embedder = cls(
            folder,
            description,
            fingerprint({name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}),
            _open_graph(parts[GRAPH], folder),
            (
                _open_tokenizer(parts[TOKENIZER], folder, description.max_tokens),
                _open_tokenizer(parts[TOKENIZER], folder, None),
            ),
            threads or _usable_cores(),
        )
        log.info("Loaded embedder %s (%s) from %s", embedder.name, embedder.fingerprint[:12], folder)
        return embedder

    @property
    def tokenizer_file(self) -> Path:
        """Return the file of the tokenizer, without truncation or padding, for those who count tokens."""
        return self.folder / TOKENIZER

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one unit vector per text, float32, shape (number of texts, dimension).

        A text longer than ``max_tokens`` is cut there, as sentence-transformers does.
        """
        vectors = np.empty((len(texts), self.dimension), np.float32)
        with ThreadPoolExecutor(min(self._threads, max(len(texts), 1)), "embed") as pool:
            for start in range(0, len(texts), _WINDOW):
                window = self._tokenise(texts[start : start + _WINDOW])
                batches = _batches([len(ids) for ids in window])
                inputs = ([window[i] for i in batch] for batch in batches)
                for batch, made in zip(batches, pool.map(self._run, inputs), strict=True):
                    vectors[start + np.array(batch)] = made
        return vectors

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each whole text, the special ones at its ends included."""
        return [len(encoding) for encoding in self._counting.encode_batch_fast(_encodable(texts))]

    def _tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, cut to what the graph takes."""
        return [encoding.ids for encoding in self._truncating.encode_batch_fast(_encodable(texts))]

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


def _encodable(texts: Sequence[str]) -> list[str]:
    """Return the texts with half surrogate pairs, which no tokenizer takes, replaced by ``?``."""
    return [text if text.isascii() else text.encode(errors="replace").decode() for text in texts]


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


def _open_tokenizer(content: bytes, folder: Path, max_tokens: int | None) -> Any:
    """Return the tokenizer, without padding, that cuts a text at ``max_tokens`` or not at all."""
    import tokenizers

    try:
        tokenizer = tokenizers.Tokenizer.from_str(content.decode())
    except Exception as error:  # the library raises bare Exception
        raise IntegrityError(
            f"{TOKENIZER} in {str(folder)!r} is no tokenizer ({error}): import the model again"
        ) from error
    tokenizer.no_padding()
    if max_tokens is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(max_tokens)
    return tokenizer


def _usable_cores() -> int:
    """Return how many cores this process may use: its CPU set, or its container's quota if lower."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = _CPU_QUOTA.read_text().split()
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        return cores
    return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))
