"""A generation as text that two builds can be compared by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from psycopg import sql
from psycopg.rows import dict_row

from llmops.database import connect
from llmops.index._generations import content_table, find_generation, named_errors
from llmops.manifest import canonical_json

__all__ = ["dump", "vector_signature"]

_SIGNS = 64
_PAGE = 1000


def dump(url: str, generation_id: str) -> Iterator[str]:
    """Yield one JSON line per chunk, in the order of chunk ids: equal content, equal lines on any machine.

    Every field of the content is there, and nothing of the run that wrote it. ``embedded`` is the sha-256 of
    the text the vector was made from; ``vector`` is its ``vector_signature``. Raises MissingInput when there
    is no such generation.
    """
    find_generation(url, generation_id)
    query = sql.SQL(
        "SELECT chunk_id, document_id, document_version, source, path, title, heading_path, position, "
        "char_start, char_end, text, metadata, access, embedded, embedding::real[] AS vector "
        "FROM {} ORDER BY chunk_id COLLATE {}"
    ).format(content_table(generation_id), sql.Identifier("C"))
    with (
        named_errors(generation_id),
        connect(url) as connection,
        connection.cursor("dump", row_factory=dict_row) as cursor,
    ):
        cursor.itersize = _PAGE
        for row in cursor.execute(query):
            yield canonical_json({**row, "vector": vector_signature(row["vector"])})


def vector_signature(vector: ArrayLike) -> str:
    """Return on which side of 64 fixed hyperplanes a vector lies, as 16 hexadecimal digits.

    Digits that are rounded differ whenever one of some hundred numbers lies on an edge of the rounding, which
    is likely as soon as two machines calculate the seventh digit differently. A sign changes only when a
    whole projection is that close to 0 (after Charikar, Similarity estimation techniques from rounding
    algorithms, 2002), while vectors of different texts differ in many.
    """
    numbers = np.asarray(vector, dtype=np.float64)
    signs = _hyperplanes(numbers.size) @ numbers >= 0
    return np.packbits(signs).tobytes().hex()


def _hyperplanes(dimension: int) -> NDArray[np.float64]:
    """Return the same 64 normals of ±1 everywhere: bits of SHAKE-256 over a constant."""
    bits = np.frombuffer(
        hashlib.shake_256(b"llmops vector signature").digest(_SIGNS * dimension // 8), np.uint8
    )
    return np.unpackbits(bits).reshape(_SIGNS, dimension).astype(np.float64) * 2 - 1
