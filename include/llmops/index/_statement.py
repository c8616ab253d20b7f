"""The SQL of a search: its parts, and the settings it runs under."""

from __future__ import annotations

import functools
from typing import Literal

from psycopg import sql

from llmops.index._generations import content_table, words_table

__all__ = ["FACTS", "SETTINGS", "Mode", "expectation", "statement"]

Mode = Literal["hybrid", "dense", "keyword"]

FACTS = "SELECT dimension, chunks FROM index_generations WHERE id = %(generation)s"
SETTINGS = """
SELECT set_config('hnsw.ef_search', %(ef_search)s, true), set_config('hnsw.iterative_scan', 'relaxed_order', true),
       set_config('hnsw.max_scan_tuples', %(walk_most)s, true), set_config('hnsw.scan_mem_multiplier', '4', true),
       set_config('plan_cache_mode', 'force_custom_plan', true), set_config('statement_timeout', %(limit)s, true)
"""
_NEAREST = """
dense AS (
    SELECT chunk_id, 1 - distance AS score, row_number() OVER (ORDER BY distance, chunk_id) AS place
    FROM ({nearest}) AS nearest ORDER BY distance, chunk_id LIMIT %(candidates)s
)"""
# The expression is that of the index; what it finds by half-precision numbers is ranked by the exact ones.
_WALK = """
SELECT {columns}, embedding <=> %(vector)b::vector AS distance FROM {content} WHERE {filters}
ORDER BY embedding::halfvec({dimension}) <=> %(vector)b::vector::halfvec({dimension}) LIMIT %(walk)s
"""
# OFFSET keeps the planner from walking the graph after all.
_COMPARE = """
SELECT {columns}, embedding <=> %(vector)b::vector AS distance FROM {content} WHERE {filters} OFFSET 0
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
_HIT = "chunk_id, document_id, document_version, source, path, title, heading_path, text, position"
_SELECT = """
SELECT {hit}, found.score::float8 AS score, {near} AS near
FROM {found} AS found JOIN {content} USING (chunk_id) ORDER BY found.score DESC, chunk_id LIMIT %(top_k)s
"""
# Vectors alone need no second look at the table.
_DENSE = """
SELECT {hit}, 1 - distance AS score, 0 AS near FROM ({nearest}) AS nearest
ORDER BY distance, chunk_id LIMIT %(top_k)s
"""
_PARTS: dict[Mode, tuple[tuple[str, ...], str]] = {
    "hybrid": ((_NEAREST, _WORDS, _FUSED), "found"),
    "keyword": ((_WORDS,), "worded"),
}


def expectation(generation_id: str, conditions: tuple[str, ...]) -> str:
    """Return the statement that asks the planner how many chunks it expects to pass, by its statistics alone."""
    return f"EXPLAIN (FORMAT JSON) SELECT FROM {content_table(generation_id).as_string()} WHERE {_all(conditions)}"


@functools.lru_cache(256)
def statement(
    generation_id: str, mode: Mode, conditions: tuple[str, ...], dimension: int, exact: bool
) -> str:
    """Return the statement of a search; ``conditions`` are constants of this package with named parameters.

    Its rows are the columns of a hit in their order, and in mode ``hybrid`` how many were found by vector.
    """
    names: dict[str, sql.Composable] = {
        "content": content_table(generation_id),
        "words": words_table(generation_id),
        "filters": sql.SQL(_all(conditions)),
        "dimension": sql.Literal(dimension),
        "hit": sql.SQL(_HIT),
        "columns": sql.SQL(_HIT if mode == "dense" else "chunk_id"),
    }
    names["nearest"] = sql.SQL(_COMPARE if exact else _WALK).format(**names)
    if mode == "dense":
        return sql.SQL(_DENSE).format(**names).as_string()
    parts, found = _PARTS[mode]
    ctes = sql.SQL(", ").join(sql.SQL(part).format(**names) for part in parts)
    near = sql.SQL("(SELECT count(*) FROM dense)" if mode == "hybrid" else "0")
    selected = sql.SQL(_SELECT).format(**names, near=near, found=sql.Identifier(found))
    return sql.SQL("WITH {} {}").format(ctes, selected).as_string()


def _all(conditions: tuple[str, ...]) -> str:
    return " AND ".join(conditions) or "true"
