"""Chunks that are made up but shaped like real ones, the same on every machine: rows and vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from llmops.index._rows import Row

DIMENSION = 384
SHARES = {"all": 1.0, "tenth": 0.1, "hundredth": 0.01, "thousandth": 0.001}
"""Metadata keys, and the share of the chunks whose value is ``yes``; access tags of the same names, too."""

_LATENT, _CLUSTERS, _WORDS, _WORDS_PER_CHUNK, _PER_DOCUMENT = 32, 2000, 30_000, 120, 5


@dataclass(frozen=True)
class Chunks:
    """Rows as the write path takes them, their vectors, and which of them each share holds."""

    rows: Sequence[Row]
    vectors: NDArray[np.float32]
    yes: dict[str, NDArray[np.bool_]]
    tagged: dict[str, NDArray[np.bool_]]


def made_up(count: int, seed: int = 20) -> Chunks:
    """Return ``count`` chunks of 120 words that are as unequally frequent as in a language, five per document."""
    chance = np.random.default_rng(seed)
    vectors = cluster_vectors(count, DIMENSION, chance)
    vocabulary = np.array(
        ["".join(map(chr, chance.integers(97, 123, n))) for n in chance.integers(3, 11, _WORDS)]
    )
    yes = {name: chance.random(count) < share for name, share in SHARES.items()}
    tagged = {name: chance.random(count) < share for name, share in SHARES.items()}
    rows: list[Row] = []
    for i in range(count):
        document, position = divmod(i, _PER_DOCUMENT)
        ranks = (chance.pareto(1.0, _WORDS_PER_CHUNK) * 20).astype(np.int64)
        text = " ".join(vocabulary[np.minimum(ranks, _WORDS - 1)])
        metadata = {name: "yes" if chosen[i] else "no" for name, chosen in yes.items()}
        # Nobody but holders of a tag finds a chunk here: "nobody" keeps those without one from being public.
        access = [name for name, chosen in tagged.items() if chosen[i]] or ["nobody"]
        rows.append(
            (
                _id("chunk", i), _id("document", document), _id("version", document), "bench",
                f"part/{document:06}.md", f"Document {document}", text, sha256(text.encode()).hexdigest(),
                position, position * 1000, position * 1000 + len(text), [f"Document {document}", f"Part {position}"],
                access, {**metadata, "document": str(document)},
            )
        )  # fmt: skip
    return Chunks(rows, vectors, yes, tagged)


def cluster_vectors(count: int, dimension: int, chance: np.random.Generator) -> NDArray[np.float32]:
    """Return unit vectors in clusters that lie on a surface of few dimensions, as embeddings of texts do."""
    latent = min(_LATENT, dimension)
    centres = chance.standard_normal((_CLUSTERS, latent))
    spread = np.linalg.qr(chance.standard_normal((dimension, latent)))[0].T
    near = centres[chance.integers(0, _CLUSTERS, count)] + 0.6 * chance.standard_normal((count, latent))
    vectors = near @ spread
    vectors += 0.25 * np.sqrt(latent / dimension) * chance.standard_normal((count, dimension))
    unit: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def questions(vectors: NDArray[np.float32], count: int, seed: int = 21) -> NDArray[np.float32]:
    """Return vectors that lie beside some of ``vectors``."""
    chance = np.random.default_rng(seed)
    chosen = vectors[chance.integers(0, len(vectors), count)]
    beside = chosen + chance.standard_normal(chosen.shape) * 0.4 / np.sqrt(chosen.shape[1])
    unit: NDArray[np.float32] = (beside / np.linalg.norm(beside, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _id(kind: str, number: int) -> str:
    return sha256(f"{kind} {number}".encode()).hexdigest()[:32]
