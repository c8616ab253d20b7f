"""Vectors kept in Postgres, so that no text is embedded twice by the same embedder."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmops.database import connect
from llmops.embedding._embedder import Embedder
from llmops.embedding._meter import EmbeddingUsage, Meter
from llmops.errors import IntegrityError

__all__ = ["CachedVectors", "embed_cached", "without_vector"]

log = logging.getLogger(__name__)

_BATCH = 128
_LOOKUP = 5000


@dataclass(frozen=True)
class CachedVectors:
    """One vector per text, how many distinct texts were embedded now or reused from before, and what that used."""

    vectors: NDArray[np.float32]
    embedded: int
    reused: int
    usage: EmbeddingUsage


def embed_cached(
    embedder: Embedder, texts: Sequence[str], database_url: str, meter: Meter | None = None
) -> CachedVectors:
    """Return the vectors of ``texts``, shape (number of texts, dimension), embedding only new texts.

    New vectors are committed as they are made, so that a run that is killed loses one batch at most. With a
    ``meter`` the call is part of that run and of its budget, else it is a run of its own; ``usage`` is that of the
    call. Raises ServiceUnavailable when Postgres does not answer, and what ``Embedder.embed`` raises.
    """
    meter = meter or embedder.meter()
    before = meter.usage
    hashes = [_text_hash(text) for text in texts]
    by_hash = dict(zip(hashes, texts, strict=True))
    known = _read(embedder, list(by_hash), database_url)
    reused = len(known)
    # Batches of similar length keep the embedder's threads equally busy.
    missing = sorted(by_hash.keys() - known.keys(), key=lambda key: (-len(by_hash[key]), key))
    size = max(_BATCH, embedder.window)
    for start in range(0, len(missing), size):
        batch = missing[start : start + size]
        for positions, part in embedder.embed_parts([by_hash[key] for key in batch], meter):
            made = dict(zip((batch[i] for i in positions), part, strict=True))
            _write(embedder.fingerprint, made, database_url)
            known |= made
    vectors = np.empty((len(texts), embedder.dimension), np.float32)
    for i, key in enumerate(hashes):
        vectors[i] = known[key]
    log.info("Embedded %d texts and reused %d vectors of %s", len(missing), reused, embedder.name)
    return CachedVectors(vectors, embedded=len(missing), reused=reused, usage=meter.usage - before)


def without_vector(embedder: Embedder, texts: Sequence[str], database_url: str) -> list[str]:
    """Return, in their order and once each, the texts that ``embed_cached`` would have to embed.

    Raises ServiceUnavailable when Postgres does not answer.
    """
    by_hash = {_text_hash(text): text for text in texts}
    hashes = list(by_hash)
    with connect(database_url) as connection, connection.cursor(binary=True) as cursor:
        for start in range(0, len(hashes), _LOOKUP):
            cursor.execute(
                "SELECT text_hash FROM vector_cache WHERE fingerprint = %s AND text_hash = ANY(%s)",
                (embedder.fingerprint, hashes[start : start + _LOOKUP]),
            )
            for (known,) in cursor:
                del by_hash[known]
    return list(by_hash.values())


def _text_hash(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def _read(embedder: Embedder, hashes: Sequence[bytes], url: str) -> dict[bytes, NDArray[np.float32]]:
    """Return the vectors that are already there."""
    found: dict[bytes, NDArray[np.float32]] = {}
    with connect(url) as connection, connection.cursor(binary=True) as cursor:
        for start in range(0, len(hashes), _LOOKUP):
            cursor.execute(
                "SELECT text_hash, vector FROM vector_cache WHERE fingerprint = %s AND text_hash = ANY(%s)",
                (embedder.fingerprint, hashes[start : start + _LOOKUP]),
            )
            found |= {key: np.frombuffer(vector, "<f4") for key, vector in cursor}
    wrong = {vector.size for vector in found.values()} - {embedder.dimension}
    if wrong:
        raise IntegrityError(
            f"vector_cache holds vectors of {sorted(wrong)!r} numbers for the embedder {embedder.name!r}, "
            f"which makes {embedder.dimension}: delete the rows of fingerprint {embedder.fingerprint!r}"
        )
    return found


def _write(fingerprint: str, vectors: Mapping[bytes, NDArray[np.float32]], url: str) -> None:
    """Commit one batch; what another process wrote first is the same vector and stays."""
    rows = [(fingerprint, key, vector.astype("<f4").tobytes()) for key, vector in vectors.items()]
    with connect(url) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO vector_cache (fingerprint, text_hash, vector) VALUES (%s, %s, %s) "
            "ON CONFLICT DO NOTHING",
            rows,
        )
