"""An embedder without weights, for tests of everything around one: equal words give near vectors."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmops.embedding import Meter


class HashEmbedder:
    """Adds up one fixed direction per word; ``history`` holds every text that was embedded.

    ``before`` is called with every batch before it is embedded and may raise, wait or kill.
    """

    def __init__(
        self, dimension: int = 32, name: str = "hash", before: Callable[[Sequence[str]], Any] | None = None
    ) -> None:
        self.name = name
        self.dimension = dimension
        self.max_tokens = 256
        self.window = 1
        self.fingerprint = hashlib.sha256(f"{name} {dimension}".encode()).hexdigest()
        self.history: list[str] = []
        self._before = before

    def meter(self) -> Meter:
        return Meter()

    def embed_parts(
        self, texts: Sequence[str], meter: Meter
    ) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
        yield list(range(len(texts))), self.embed(texts, meter)

    def embed_queries(self, texts: Sequence[str], meter: Meter | None = None) -> NDArray[np.float32]:
        return self.embed(texts, meter)

    def embed(self, texts: Sequence[str], meter: Meter | None = None) -> NDArray[np.float32]:
        if self._before:
            self._before(texts)
        self.history += texts
        return np.stack([self._one(text) for text in texts]) if texts else np.empty((0, self.dimension), "f4")

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def _one(self, text: str) -> NDArray[np.float32]:
        total = np.full(self.dimension, 1e-3)
        for word in re.findall(r"\w+", text.lower()):
            total += _direction(self.name, word, self.dimension)
        return (total / np.linalg.norm(total)).astype(np.float32)


@functools.cache
def _direction(name: str, word: str, dimension: int) -> NDArray[np.float64]:
    seed = int.from_bytes(hashlib.sha256(f"{name} {word}".encode()).digest()[:8], "big")
    return np.random.default_rng(seed).standard_normal(dimension)
