"""Search one generation: vectors and words, fused and filtered inside one SQL statement."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from struct import pack
from typing import Any, get_args
from weakref import WeakKeyDictionary

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.adapt import Dumper
from psycopg.pq import Format

from llmops.errors import ConfigurationError, EmbedderMismatch, MissingInput, ServiceUnavailable
from llmops.index._filters import Access, conditions, storable
from llmops.index._generations import content_table, named_errors
from llmops.index._statement import FACTS, SETTINGS, Mode, expectation, statement

__all__ = ["MAX_CANDIDATES", "Hit", "Mode", "search"]

Vector = NDArray[np.float32] | Sequence[float]

MAX_CANDIDATES = 200
"""The most hits, and candidates of either kind, that one search may ask for."""

_TIME_LIMIT = "15s"
_QUESTION_LIMIT = 4000
_WORD_LIMIT = 64

# How many chunks are ranked by words, at the least and per candidate: the question's rarest words choose
# them, all its words rank them. A filter throws some of them away, so that more are chosen with one.
_ROWS, _ROWS_PER_CANDIDATE, _ROWS_MOST = 500, 5, 20_000

# Which way to the nearest chunks is faster. The graph of vectors has to be walked the further the fewer chunks
# pass the filter, and loses some of the nearest on the way; comparing all that pass costs time for each of
# them. Among 200,000 chunks of 384 numbers both took the same time at some 13,000 that pass; that point
# grows with the root of the number of chunks.
_EXACT_FACTOR, _EXACT_MOST = 1000, 25_000
_WALK_LEAST, _WALK_MOST = 50, 20_000

_REMEMBERED_SECONDS, _REMEMBERED_MOST = 30.0, 1000


@dataclass(frozen=True)
class Hit:
    """A chunk that was found.

    ``score`` orders the hits of one search and means nothing between modes: reciprocal rank fusion for
    ``hybrid``, cosine similarity for ``dense``, weighted words for ``keyword``.
    """

    chunk_id: str
    document_id: str
    document_version: str
    source: str
    path: str
    title: str
    heading_path: tuple[str, ...]
    text: str
    position: int
    score: float


def search(
    connection: psycopg.Connection[Any],
    generation_id: str,
    question: str,
    vector: Vector | None,
    *,
    top_k: int,
    candidates: int,
    mode: Mode = "hybrid",
    filters: Mapping[str, Sequence[str]] | None = None,
    access: Access = (),
) -> list[Hit]:
    """Return the ``top_k`` best chunks for a question, best first, of those that the caller may find.

    Args:
        connection: any role that may read; the search runs in a transaction of its own, at most 15 s.
        generation_id: the generation that the release names.
        question: a person's words; any of them may match. Its first 4,000 characters count.
        vector: the question embedded by the generation's embedder; None in mode ``keyword`` only.
        top_k: how many hits, 1 to 200.
        candidates: how many chunks by vector and by words are fused, 1 to 200, at least ``top_k`` is taken.
        mode: ``hybrid``, ``dense`` or ``keyword``.
        filters: allowed values per key; a chunk must match every key. Keys are ``source``, ``path``,
            ``document_id`` or a key of the document's metadata. An empty list of values matches nothing.
        access: the tags the caller holds: a chunk is found when it has none, or one of these. EVERYTHING
            finds all chunks.

    Raises MissingInput when the generation does not exist, EmbedderMismatch for a vector of another
    dimension, ConfigurationError for values out of bounds, ServiceUnavailable when Postgres is too slow or
    away.
    """
    _check(top_k, candidates, mode)
    if mode != "keyword" and vector is None:
        raise ConfigurationError(
            f"mode {mode!r} needs the question's vector: give one, or use mode 'keyword'"
        )
    content_table(generation_id)
    wanted, limits = conditions(filters or {}, access)
    packed = None if vector is None or mode == "keyword" else _packed(vector)
    asked = _Asked(generation_id, mode, tuple(wanted), limits, packed, top_k, max(top_k, candidates))
    values = {"question": storable(question)[:_QUESTION_LIMIT], "word_limit": _WORD_LIMIT}
    try:
        with named_errors(generation_id):
            rows = _found(connection, asked, values)
    except psycopg.errors.QueryCanceled as error:
        raise ServiceUnavailable(f"a search in {generation_id!r} took longer than {_TIME_LIMIT}") from error
    return [_hit(row) for row in rows]


def _hit(row: tuple[Any, ...]) -> Hit:
    chunk, document, version, source, path, title, headings, text, position, score, _ = row
    return Hit(chunk, document, version, source, path, title, tuple(headings), text, position, score)


@dataclass(frozen=True)
class _Asked:
    """A search: the conditions with the values of their parameters, the vector, and how much is wanted."""

    generation: str
    mode: Mode
    conditions: tuple[str, ...]
    limits: dict[str, Any]
    vector: _Packed | None
    top_k: int
    candidates: int


@dataclass(frozen=True)
class _Facts:
    """What a search has to know before: ``expected`` is the planner's guess of how many chunks pass."""

    dimension: int
    chunks: int
    expected: int
    until: float


_remembered: WeakKeyDictionary[psycopg.Connection[Any], dict[Any, _Facts]] = WeakKeyDictionary()


def _found(
    connection: psycopg.Connection[Any], asked: _Asked, values: dict[str, Any]
) -> list[tuple[Any, ...]]:
    facts = _facts(connection, asked)
    if asked.vector is not None and asked.vector.dimension != facts.dimension:
        raise EmbedderMismatch(
            f"the question's vector has {asked.vector.dimension} dimensions, generation {asked.generation!r} has "
            f"{facts.dimension}: embed the question with the release's own embedder"
        )
    limited = bool(asked.conditions)
    ranked = max(_ROWS, _ROWS_PER_CANDIDATE * asked.candidates)
    if limited:
        ranked = min(_ROWS_MOST, ranked * max(facts.chunks, 1) // max(facts.expected, 1))
    values |= {
        **asked.limits,
        "vector": asked.vector,
        "top_k": asked.top_k,
        "candidates": asked.candidates,
        "walk": max(asked.candidates, _WALK_LEAST),
        "chunks": facts.chunks,
        "rows": ranked,
    }
    exact = limited and facts.expected <= min(_EXACT_MOST, math.sqrt(_EXACT_FACTOR * max(facts.chunks, 1)))
    rows = _run(connection, asked, values, facts.dimension, exact)
    if limited and not exact and _too_few(rows, asked, facts):
        # The guess was wrong, or what passes lies far away: the walk ended before it had found enough.
        rows = _run(connection, asked, values, facts.dimension, True)
    return rows


def _too_few(rows: Sequence[tuple[Any, ...]], asked: _Asked, facts: _Facts) -> bool:
    """Return whether fewer were found by vector than were asked for."""
    if asked.mode == "dense":
        return len(rows) < min(asked.top_k, facts.chunks)
    return asked.mode == "hybrid" and (rows[0][10] if rows else 0) < min(asked.candidates, facts.chunks)


def _facts(connection: psycopg.Connection[Any], asked: _Asked) -> _Facts:
    """Return what is known about the generation and the conditions, remembered for half a minute.

    It decides about the way, not about the hits, and asking again each time costs as much as a fast search.
    """
    memory = _remembered.setdefault(connection, {})
    key = (asked.generation, asked.conditions, str(asked.limits))
    known = memory.get(key)
    if known is not None and time.monotonic() < known.until:
        return known
    with connection.transaction():
        row = connection.execute(FACTS, {"generation": asked.generation}).fetchone()
        if row is None:
            raise MissingInput(
                f"there is no index generation {asked.generation!r}: run release_assistant to build it"
            )
        expected = int(row[1])
        if asked.conditions:
            guess = expectation(asked.generation, asked.conditions)
            plan = connection.execute(guess, asked.limits).fetchone()
            expected = int(plan[0][0]["Plan"]["Plan Rows"]) if plan else expected
    if len(memory) >= _REMEMBERED_MOST:
        memory.clear()
    memory[key] = _Facts(int(row[0]), int(row[1]), expected, time.monotonic() + _REMEMBERED_SECONDS)
    return memory[key]


def _run(
    connection: psycopg.Connection[Any], asked: _Asked, values: dict[str, Any], dimension: int, exact: bool
) -> list[tuple[Any, ...]]:
    """Run one statement in a transaction with its settings."""
    query = statement(asked.generation, asked.mode, asked.conditions, dimension, exact)
    settings = {
        "ef_search": str(min(1000, max(100, 2 * asked.candidates))),
        "walk_most": str(_WALK_MOST),
        "limit": _TIME_LIMIT,
    }
    cursor = connection.cursor()
    cursor.adapters.register_dumper(_Packed, _PackedDumper)
    with connection.transaction():
        cursor.execute(SETTINGS, settings, prepare=True)
        return cursor.execute(query, values, prepare=True).fetchall()


def _check(top_k: int, candidates: int, mode: str) -> None:
    for name, value in (("top_k", top_k), ("candidates", candidates)):
        if not 1 <= value <= MAX_CANDIDATES:
            raise ConfigurationError(f"{name} {value!r} is out of bounds: use 1 to {MAX_CANDIDATES}")
    if mode not in get_args(Mode):
        raise ConfigurationError(f"search mode {mode!r} is not known: use one of {', '.join(get_args(Mode))}")


@dataclass(frozen=True)
class _Packed:
    """A vector in pgvector's binary form."""

    content: bytes
    dimension: int


class _PackedDumper(Dumper):
    """Sends a vector as it is; the statement says that it is one."""

    format = Format.BINARY

    def dump(self, obj: _Packed) -> bytes:
        return obj.content


def _packed(vector: Vector) -> _Packed:
    """Return a vector as pgvector reads it: 16 bits of dimension, 16 unused, big-endian float4 numbers."""
    numbers = np.asarray(vector, np.float32)
    if not np.isfinite(numbers).all():
        raise ConfigurationError(
            "the question's vector holds a number that is not finite: embed the question again"
        )
    return _Packed(pack(">HH", numbers.size, 0) + numbers.astype(">f4").tobytes(), numbers.size)
