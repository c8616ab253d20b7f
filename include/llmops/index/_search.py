"""Search one generation: vectors and words, fused and filtered inside one SQL statement."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from psycopg.rows import dict_row

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
# them, all its words rank them. A filter may throw most of them away, so that more are chosen with one.
_ROWS, _ROWS_PER_CANDIDATE, _ROWS_FILTERED = 500, 5, 20_000


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
       set_config('hnsw.iterative_scan', 'strict_order', true),
       set_config('hnsw.max_scan_tuples', %(scan)s, true), set_config('statement_timeout', %(limit)s, true)
FROM index_generations WHERE id = %(generation)s
"""
_DENSE = """
dense AS (
    SELECT chunk_id, 1 - distance AS score, row_number() OVER (ORDER BY distance, chunk_id) AS place
    FROM (
        SELECT chunk_id, embedding <=> %(vector)s::vector AS distance FROM {content}
        WHERE {filters} ORDER BY embedding <=> %(vector)s::vector LIMIT %(candidates)s
    ) AS nearest
)"""
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
       found.score::float8 AS score
FROM {found} AS found JOIN {content} USING (chunk_id) ORDER BY found.score DESC, chunk_id LIMIT %(top_k)s
"""
_PARTS: dict[Mode, tuple[tuple[str, ...], str]] = {
    "hybrid": ((_DENSE, _WORDS, _FUSED), "found"),
    "dense": ((_DENSE,), "dense"),
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
    wanted, values = conditions(filters or {}, access)
    names = {
        "content": content_table(generation_id),
        "words": words_table(generation_id),
        "filters": sql.SQL(" AND ").join([sql.SQL("true"), *wanted]),
    }
    taken = max(top_k, candidates)
    values |= {
        "question": storable(question)[:_QUESTION_LIMIT],
        "vector": None if vector is None or mode == "keyword" else _literal(vector),
        "top_k": top_k,
        "candidates": taken,
        "rows": _ROWS_FILTERED if wanted else max(_ROWS, _ROWS_PER_CANDIDATE * taken),
        "word_limit": _WORD_LIMIT,
    }
    if mode != "keyword" and vector is None:
        raise ConfigurationError(
            f"mode {mode!r} needs the question's vector: give one, or use mode 'keyword'"
        )
    try:
        with named_errors(generation_id), connection.transaction():
            dimension, values["chunks"] = _prepare(connection, generation_id, taken, filtered=bool(wanted))
            if vector is not None and mode != "keyword" and len(vector) != dimension:
                raise EmbedderMismatch(
                    f"the question's vector has {len(vector)} dimensions, generation {generation_id!r} has "
                    f"{dimension}: embed the question with the release's own embedder"
                )
            with connection.cursor(row_factory=dict_row) as cursor:
                rows = cursor.execute(_statement(mode, names), values, prepare=False).fetchall()
    except psycopg.errors.QueryCanceled as error:
        raise ServiceUnavailable(f"a search in {generation_id!r} took longer than {_TIME_LIMIT}") from error
    return [Hit(**{**row, "heading_path": tuple(row["heading_path"])}) for row in rows]


def _prepare(
    connection: psycopg.Connection[Any], generation_id: str, candidates: int, *, filtered: bool
) -> tuple[int, int]:
    """Set up the transaction and return the generation's dimension and number of chunks."""
    row = connection.execute(
        _PREPARE,
        {
            "generation": generation_id,
            "ef_search": str(min(1000, max(100, 2 * candidates))),
            "scan": "200000" if filtered else "20000",
            "limit": _TIME_LIMIT,
        },
    ).fetchone()
    if row is None:
        raise MissingInput(
            f"there is no index generation {generation_id!r}: run release_assistant to build it"
        )
    return int(row[0]), int(row[1])


def _statement(mode: Mode, names: Mapping[str, sql.Composable]) -> sql.Composed:
    parts, found = _PARTS[mode]
    ctes = sql.SQL(", ").join(sql.SQL(part).format(**names) for part in parts)
    return sql.SQL("WITH {} {}").format(ctes, sql.SQL(_SELECT).format(found=sql.Identifier(found), **names))


def _check(top_k: int, candidates: int, mode: str) -> None:
    for name, value in (("top_k", top_k), ("candidates", candidates)):
        if not 1 <= value <= MAX_CANDIDATES:
            raise ConfigurationError(f"{name} {value!r} is out of bounds: use 1 to {MAX_CANDIDATES}")
    if mode not in get_args(Mode):
        raise ConfigurationError(f"search mode {mode!r} is not known: use one of {', '.join(get_args(Mode))}")


def _literal(vector: Vector) -> str:
    """Return a vector as pgvector reads it."""
    numbers = [float(number) for number in vector]
    if not all(map(math.isfinite, numbers)):
        raise ConfigurationError(
            "the question's vector holds a number that is not finite: embed the question again"
        )
    return f"[{','.join(map(repr, numbers))}]"
