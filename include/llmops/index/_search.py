"""Search one generation: vectors and words, fused and filtered inside one SQL statement."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from struct import pack
from typing import Any, Literal, get_args

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from psycopg.adapt import Dumper
from psycopg.pq import Format

from llmops.errors import ConfigurationError, EmbedderMismatch, MissingInput, ServiceUnavailable
from llmops.index._filters import Access, conditions, storable
from llmops.index._generations import content_table, named_errors, words_table

__all__ = ["MAX_CANDIDATES", "Hit", "Mode", "search"]

Mode = Literal["hybrid", "dense", "keyword"]
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


_PREPARE = """
SELECT dimension, chunks, set_config('hnsw.ef_search', %(ef_search)s, true),
       set_config('hnsw.iterative_scan', 'relaxed_order', true),
       set_config('hnsw.max_scan_tuples', %(scan)s, true), set_config('hnsw.scan_mem_multiplier', '4', true),
       set_config('plan_cache_mode', 'force_custom_plan', true), set_config('statement_timeout', %(limit)s, true)
FROM index_generations WHERE id = %(generation)s
"""
_NEAREST = """
dense AS (
    SELECT chunk_id, 1 - distance AS score, row_number() OVER (ORDER BY distance, chunk_id) AS place
    FROM ({near}) AS near ORDER BY distance, chunk_id LIMIT %(candidates)s
)"""
# The expression is that of the index; what it finds by half-precision numbers is ranked by the exact ones.
_WALK = """
SELECT chunk_id, embedding <=> %(vector)b::vector AS distance FROM {content} WHERE {filters}
ORDER BY embedding::halfvec({dimension}) <=> %(vector)b::vector::halfvec({dimension}) LIMIT %(walk)s
"""
# OFFSET keeps the planner from walking the graph after all.
_COMPARE = """
SELECT chunk_id, embedding <=> %(vector)b::vector AS distance FROM {content} WHERE {filters} OFFSET 0
"""
# ts_rank knows no rarity, and "how" must not outweigh "cursor": each word's rank, which grows ever more
# slowly with its occurrences and with its chunk's length, is weighted by the word's inverse document
# frequency as in BM25 (Robertson and Zaragoza, 2009).
_WORDS = """
asked AS (
    SELECT lexeme AS word,
           ('''' || replace(replace(lexeme, '\\', '\\\\'), '''', '''''') || '''')::tsquery AS query
    FROM unnest(to_tsvector('pg_catalog.english', public.index_words(%(question)s))) ORDER BY positions[1]
    LIMIT %(word_limit)s
), known AS (
    SELECT query, ln(1 + (%(chunks)s - least(chunks, %(chunks)s) + 0.5) / (chunks + 0.5)) AS weight,
           sum(chunks) OVER rarest AS rows, row_number() OVER rarest AS place
    FROM asked JOIN {words} USING (word) WINDOW rarest AS (ORDER BY chunks, word)
), choosing AS (
    SELECT string_agg(query::text, ' | ')::tsquery AS query FROM known WHERE rows <= %(rows)s OR place = 1
), worded AS (
    SELECT chunk_id, score, row_number() OVER (ORDER BY score DESC, chunk_id) AS place
    FROM (
        SELECT chunk_id, (
            SELECT sum(weight * ts_rank('{{0.3, 0.5, 0.7, 1}}', search, known.query, 1)) FROM known
        ) AS score
        FROM {content}, choosing WHERE search @@ choosing.query AND {filters}
        ORDER BY score DESC, chunk_id LIMIT %(candidates)s
    ) AS best
)"""
# Reciprocal rank fusion with k = 60 (Cormack, Clarke and Buettcher, 2009).
_FUSED = """
found AS (
    SELECT chunk_id, coalesce(1.0 / (60 + dense.place), 0) + coalesce(1.0 / (60 + worded.place), 0) AS score
    FROM dense FULL JOIN worded USING (chunk_id)
)"""
_SELECT = """
SELECT chunk_id, document_id, document_version, source, path, title, heading_path, text, position,
       found.score::float8 AS score, {near} AS near
FROM {found} AS found JOIN {content} USING (chunk_id) ORDER BY found.score DESC, chunk_id LIMIT %(top_k)s
"""
_PARTS: dict[Mode, tuple[tuple[str, ...], str]] = {
    "hybrid": ((_NEAREST, _WORDS, _FUSED), "found"),
    "dense": ((_NEAREST,), "dense"),
    "keyword": ((_WORDS,), "worded"),
}


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
    wanted, values = conditions(filters or {}, access)
    taken = max(top_k, candidates)
    values |= {
        "question": storable(question)[:_QUESTION_LIMIT],
        "vector": None if vector is None or mode == "keyword" else _packed(vector),
        "top_k": top_k,
        "candidates": taken,
        "walk": max(taken, _WALK_LEAST),
        "word_limit": _WORD_LIMIT,
    }
    asked = _Asked(
        generation=generation_id,
        content=content_table(generation_id),
        mode=mode,
        conditions=sql.SQL(" AND ").join([sql.SQL("true"), *wanted]),
        limited=bool(wanted),
        values=values,
    )
    try:
        with named_errors(generation_id), connection.transaction():
            rows = _found(connection, asked, 0 if vector is None or mode == "keyword" else len(vector))
    except psycopg.errors.QueryCanceled as error:
        raise ServiceUnavailable(f"a search in {generation_id!r} took longer than {_TIME_LIMIT}") from error
    return [_hit(*row) for row in rows]


def _hit(*columns: Any) -> Hit:
    """Return one row, whose columns are the fields in their order."""
    values = dict(zip(Hit.__dataclass_fields__, columns, strict=True))
    return Hit(**{**values, "heading_path": tuple(values["heading_path"])})


@dataclass(frozen=True)
class _Asked:
    """A search: its conditions, whether there are any, and the values of all parameters."""

    generation: str
    content: sql.Identifier
    mode: Mode
    conditions: sql.Composable
    limited: bool
    values: dict[str, Any]


def _found(connection: psycopg.Connection[Any], asked: _Asked, length: int) -> list[tuple[Any, ...]]:
    """Search within the caller's transaction; ``length`` is the number of dimensions of the vector, if any."""
    dimension, chunks = _prepare(connection, asked.generation, asked.values["candidates"])
    if length and length != dimension:
        raise EmbedderMismatch(
            f"the question's vector has {length} dimensions, generation {asked.generation!r} has "
            f"{dimension}: embed the question with the release's own embedder"
        )
    expected = _expected(connection, asked) if asked.limited else chunks
    exact = asked.limited and expected <= min(_EXACT_MOST, math.sqrt(_EXACT_FACTOR * max(chunks, 1)))
    ranked = max(_ROWS, _ROWS_PER_CANDIDATE * asked.values["candidates"])
    if asked.limited:
        ranked = min(_ROWS_MOST, ranked * max(chunks, 1) // max(expected, 1))
    values = {**asked.values, "chunks": chunks, "rows": ranked}
    cursor = connection.cursor()
    cursor.adapters.register_dumper(_Packed, _PackedDumper)
    rows = cursor.execute(_statement(asked, dimension, exact), values, prepare=True).fetchall()
    near = rows[0][10] if rows else 0
    if asked.mode != "keyword" and asked.limited and not exact and near < min(values["candidates"], chunks):
        # The estimate was wrong, or what passes lies far away: the walk ended before it had found enough.
        rows = cursor.execute(_statement(asked, dimension, True), values, prepare=True).fetchall()
    return rows


def _prepare(connection: psycopg.Connection[Any], generation_id: str, candidates: int) -> tuple[int, int]:
    """Set up the transaction and return the generation's dimension and number of chunks."""
    row = connection.execute(
        _PREPARE,
        {
            "generation": generation_id,
            "ef_search": str(min(1000, max(100, 2 * candidates))),
            "scan": str(_WALK_MOST),
            "limit": _TIME_LIMIT,
        },
        prepare=True,
    ).fetchone()
    if row is None:
        raise MissingInput(
            f"there is no index generation {generation_id!r}: run release_assistant to build it"
        )
    return int(row[0]), int(row[1])


def _expected(connection: psycopg.Connection[Any], asked: _Asked) -> int:
    """Return how many chunks the planner expects to pass the conditions, from its statistics alone."""
    statement = sql.SQL("EXPLAIN (FORMAT JSON) SELECT FROM {} WHERE {}").format(
        asked.content, asked.conditions
    )
    row = connection.execute(statement, asked.values).fetchone()
    assert row is not None
    return int(row[0][0]["Plan"]["Plan Rows"])


def _statement(asked: _Asked, dimension: int, exact: bool) -> sql.Composed:
    parts, found = _PARTS[asked.mode]
    names: dict[str, sql.Composable] = {
        "content": asked.content,
        "words": words_table(asked.generation),
        "filters": asked.conditions,
        "dimension": sql.Literal(dimension),
        "found": sql.Identifier(found),
    }
    nearest = sql.SQL(_COMPARE if exact else _WALK).format(**names)
    ctes = sql.SQL(", ").join(sql.SQL(part).format(**names, near=nearest) for part in parts)
    near = sql.SQL("0" if asked.mode == "keyword" else "(SELECT count(*) FROM dense)")
    return sql.SQL("WITH {} {}").format(ctes, sql.SQL(_SELECT).format(**names, near=near))


def _check(top_k: int, candidates: int, mode: str) -> None:
    for name, value in (("top_k", top_k), ("candidates", candidates)):
        if not 1 <= value <= MAX_CANDIDATES:
            raise ConfigurationError(f"{name} {value!r} is out of bounds: use 1 to {MAX_CANDIDATES}")
    if mode not in get_args(Mode):
        raise ConfigurationError(f"search mode {mode!r} is not known: use one of {', '.join(get_args(Mode))}")


class _Packed(bytes):
    """A vector in pgvector's binary form."""


class _PackedDumper(Dumper):
    """Sends a vector as it is; the statement says that it is one."""

    format = Format.BINARY

    def dump(self, obj: Any) -> bytes:
        return bytes(obj)


def _packed(vector: Vector) -> _Packed:
    """Return a vector as pgvector reads it: 16 bits of dimension, 16 unused, big-endian float4 numbers."""
    numbers = np.asarray(vector, np.float32)
    if not np.isfinite(numbers).all():
        raise ConfigurationError(
            "the question's vector holds a number that is not finite: embed the question again"
        )
    return _Packed(pack(">HH", numbers.size, 0) + numbers.astype(">f4").tobytes())
