"""What building a generation will cost, before anybody builds it."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from llmops.embedding import Embedder, without_vector
from llmops.index._lake import stream
from llmops.lakehouse import LakeTable

__all__ = ["BuildPlan", "plan"]

_SAMPLE = 256
_SAMPLE_SECONDS = 3.0
_SLICE = 16
_PAGE, _PAGE_ROOM, _LINKS, _PENDING = 8192, 8168, 16, 4 << 20


@dataclass(frozen=True)
class BuildPlan:
    """What a generation needs: ``chunks`` of which ``cached`` have vectors, and ``tokens`` in the ``texts`` to embed.

    ``tokens_per_second`` is this embedder's speed on this machine just now, None when there is nothing to embed.
    """

    chunks: int
    cached: int
    texts: int
    tokens: int
    tokens_per_second: float | None
    table_bytes: int
    index_bytes: int

    @property
    def minutes(self) -> float:
        """Return how long embedding takes on this machine, in minutes."""
        return self.tokens / self.tokens_per_second / 60 if self.tokens_per_second else 0.0

    @property
    def bytes(self) -> int:
        """Return what the generation takes on disk."""
        return self.table_bytes + self.index_bytes


def plan(url: str, chunks: LakeTable, chunker: str, embedder: Embedder) -> BuildPlan:
    """Return what a generation of this chunker (by its digest) and embedder will cost; nothing is written.

    Texts are read as a stream and looked up in the cache of vectors; a sample of those to embed is embedded, for
    at most some seconds, to measure the speed. Raises MissingInput without a chunks table, and
    ServiceUnavailable when Postgres does not answer.
    """
    counted = cached = tokens = characters = other = 0
    missing: set[int] = set()
    sample, chance = list[str](), random.Random(0)
    for piece in stream(chunks, chunker, ("embed_text", "text", "path", "metadata", "access")):
        rows = piece.to_pylist()
        texts = [row["embed_text"] for row in rows]
        to_embed = set(without_vector(embedder, texts, url))
        new = [text for text in to_embed if hash(text) not in missing]
        missing.update(map(hash, new))
        tokens += sum(min(count, embedder.max_tokens) for count in embedder.count_tokens(new))
        _remember(sample, new, len(missing), chance)
        counted += len(rows)
        cached += sum(text not in to_embed for text in texts)
        characters += sum(len(row["text"].encode()) for row in rows)
        other += sum(len(str(row.get(name) or "")) for row in rows for name in ("metadata", "path", "access"))
    return BuildPlan(
        chunks=counted,
        cached=cached,
        texts=len(missing),
        tokens=tokens,
        tokens_per_second=_speed(embedder, sample) if sample else None,
        table_bytes=table_bytes(counted, embedder.dimension, characters, other),
        index_bytes=index_bytes(counted, embedder.dimension, characters),
    )


def table_bytes(rows: int, dimension: int, characters: int, other: int) -> int:
    """Return the size of a generation's table with what it keeps out of line.

    A vector takes 4 bytes per number and 8; a text, compressed, and its search vector 1.9 bytes per byte of it;
    ids, hashes and headings 300; 10 % are lost at the ends of pages. Measured with pg_table_size: 4,136 bytes per
    row of 868 characters and 4,422 per row of 1,175 (FeedbackQA), both of 384 numbers; this gives 3,946 and 4,594.
    """
    return round(1.1 * (rows * (4 * dimension + 8 + 300) + 1.9 * characters + other))


def index_bytes(rows: int, dimension: int, characters: int) -> int:
    """Return the size of a generation's indexes.

    An element of pgvector's graph is 72 bytes, its half-precision vector and 8, and with m = 16 a list of 32
    links of 6 bytes beside it; as many as fit are on a page of 8 kB, none is divided. The other indexes took 180
    bytes per row and half a byte per byte of text, and the list in which words wait to be indexed up to 4 MB.
    """
    element = _aligned(72 + 8 + 2 * dimension) + _aligned(4 + 2 * _LINKS * 6) + 8
    per_page = max(1, _PAGE_ROOM // element)
    waiting = min(_PENDING, 1.5 * characters)
    return round(rows * _PAGE / per_page + 180 * rows + 0.5 * characters + waiting)


def _aligned(size: int) -> int:
    return (size + 7) // 8 * 8


def _remember(sample: list[str], new: Sequence[str], seen: int, chance: random.Random) -> None:
    """Keep a sample in which each text stands with the same probability (Vitter's algorithm R, 1985)."""
    for number, text in enumerate(sorted(new), seen - len(new)):
        if len(sample) < _SAMPLE:
            sample.append(text)
        elif (place := chance.randrange(number + 1)) < _SAMPLE:
            sample[place] = text


def _speed(embedder: Embedder, sample: Sequence[str]) -> float:
    """Return how many tokens per second are embedded, as measured for at most some seconds."""
    embedder.embed(sample[:1])
    tokens, began = 0, time.perf_counter()
    for start in range(0, len(sample), _SLICE):
        part = sample[start : start + _SLICE]
        embedder.embed(part)
        tokens += sum(min(count, embedder.max_tokens) for count in embedder.count_tokens(part))
        if time.perf_counter() - began > _SAMPLE_SECONDS:
            break
    return tokens / (time.perf_counter() - began)
