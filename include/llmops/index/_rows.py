"""A chunk as a row of a generation's table, and rows as the stream that binary COPY reads."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmops.errors import IntegrityError

__all__ = ["COLUMNS", "COMPARED", "Row", "copy_stream", "row_of"]

Row = tuple[Any, ...]
"""One chunk, in the order of COMPARED."""

COMPARED = (
    "chunk_id",
    "document_id",
    "document_version",
    "source",
    "path",
    "title",
    "text",
    "embedded",
    "position",
    "char_start",
    "char_end",
    "heading_path",
    "access",
    "metadata",
)
"""What a chunk's row is recognised by; its vector follows from the text that ``embedded`` is the hash of."""

COLUMNS = (*COMPARED, "embedding")
"""The columns of ``copy_stream``, in its order."""

_TEXTS, _NUMBERS, _ARRAYS, _JSON = slice(0, 8), slice(8, 11), slice(11, 13), 13
_PIECE = 200
_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
_TEXT_OID = 25
_LENGTH = Struct(">i").pack
_FIELDS = Struct(">h").pack(len(COLUMNS))
_ARRAY = Struct(">iiiii").pack
_EMPTY_ARRAY = Struct(">iii").pack(0, 0, _TEXT_OID)


def row_of(chunk: Mapping[str, Any]) -> Row:
    """Return a row of the chunks table as one of the generation; raise IntegrityError when it cannot be read."""
    return (
        chunk["chunk_id"],
        chunk["document_id"],
        chunk["document_version"],
        chunk["source"],
        _storable(chunk["path"]),
        _storable(chunk["title"] or ""),
        _storable(chunk["text"]),
        hashlib.sha256(chunk["embed_text"].encode(errors="surrogatepass")).hexdigest(),
        chunk["position"],
        chunk["char_start"],
        chunk["char_end"],
        list(_headings(chunk["heading_path"] or "[]")),
        list(_parsed(chunk, "access", "[]", _access)),
        _parsed(chunk, "metadata", "{}", _metadata),
    )


def copy_stream(rows: Sequence[Row], vectors: NDArray[np.float32]) -> Iterator[bytes]:
    """Yield rows and their vectors as pieces of the binary format of COPY.

    It is made column by column, and the numbers of many rows at once, which is several times as fast as
    adapting every value by itself; and in pieces, so that the server works on one while the next is made.
    The format is that of PostgreSQL's COPY, with the binary forms of its types and of pgvector's: 16 bits of
    dimension, 16 unused, and the numbers as big-endian float4.
    """
    if len(rows) != len(vectors):
        raise ValueError(f"{len(rows)} rows and {len(vectors)} vectors")
    yield _SIGNATURE
    for start in range(0, len(rows), _PIECE):
        yield _piece(rows[start : start + _PIECE], vectors[start : start + _PIECE])
    yield _END


def _piece(rows: Sequence[Row], vectors: NDArray[np.float32]) -> bytes:
    columns = list(zip(*rows, strict=True))
    fields = [
        *(_lengths(map(str.encode, column)) for column in columns[_TEXTS]),
        _integers(columns[_NUMBERS]),
        *(_lengths(map(_array, map(tuple, column))) for column in columns[_ARRAYS]),
        _lengths(map(_jsonb, columns[_JSON])),
        _vectors(vectors),
    ]
    return b"".join(itertools.chain.from_iterable(zip(itertools.repeat(_FIELDS), *fields, strict=False)))


def _lengths(values: Iterator[bytes]) -> Iterator[bytes]:
    return (_LENGTH(len(value)) + value for value in values)


def _integers(columns: Sequence[Sequence[int]]) -> Iterator[bytes]:
    """Return, per row, the fields of all columns of integers together."""
    fields = np.empty((len(columns[0]), len(columns), 2), ">i4")
    fields[:, :, 0] = 4
    fields[:, :, 1] = np.array(columns, np.int64).T
    return _slices(fields.tobytes(), 8 * len(columns))


def _vectors(vectors: NDArray[np.float32]) -> Iterator[bytes]:
    count, dimension = vectors.shape
    kind = np.dtype([("length", ">i4"), ("dimension", ">i2"), ("unused", ">i2"), ("v", ">f4", (dimension,))])
    fields = np.zeros(count, kind)
    fields["length"], fields["dimension"], fields["v"] = kind.itemsize - 4, dimension, vectors
    return _slices(fields.tobytes(), kind.itemsize)


def _slices(content: bytes, size: int) -> Iterator[bytes]:
    return (content[start : start + size] for start in range(0, len(content), size))


@functools.lru_cache(4096)
def _array(texts: tuple[str, ...]) -> bytes:
    """Return an array of texts; documents share a few."""
    if not texts:
        return _EMPTY_ARRAY
    encoded = [text.encode() for text in texts]
    return _ARRAY(1, 0, _TEXT_OID, len(encoded), 1) + b"".join(_LENGTH(len(text)) + text for text in encoded)


def _jsonb(value: Any) -> bytes:
    return b"\x01" + json.dumps(value, ensure_ascii=False).encode()


@functools.lru_cache(4096)
def _headings(written: str) -> tuple[str, ...]:
    return tuple(_storable(heading) for heading in json.loads(written))


def _parsed(chunk: Mapping[str, Any], column: str, absent: str, parse: Callable[[str], Any]) -> Any:
    """Return a column's JSON; what cannot be read stops everything, since nobody knows who may see it."""
    written = chunk.get(column, absent)
    try:
        return parse(written)
    except (TypeError, ValueError) as error:
        raise IntegrityError(
            f"chunk {chunk['chunk_id']!r} of {chunk['path']!r} has {written!r} as {column}, which cannot be "
            "read: run ingest_documents again so that the chunks table is written anew"
        ) from error


@functools.lru_cache(4096)
def _access(written: str) -> tuple[str, ...]:
    tags = json.loads(written)
    if not isinstance(tags, list) or not all(isinstance(tag, str) and tag for tag in tags):
        raise ValueError("not a list of tags")
    return tuple(map(_storable, tags))


def _metadata(written: str | None) -> dict[str, Any]:
    value = _storable_json(json.loads(written or "{}"))
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _storable_json(value: Any) -> Any:
    if isinstance(value, str):
        return _storable(value)
    if isinstance(value, list):
        return [_storable_json(one) for one in value]
    if isinstance(value, dict):
        return {_storable(key): _storable_json(one) for key, one in value.items()}
    return value


def _storable(text: str) -> str:
    """Replace what Postgres cannot store, NUL and lone surrogates, by one other character: offsets stay true."""
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    try:
        text.encode()
    except UnicodeEncodeError:
        text = "".join("\N{REPLACEMENT CHARACTER}" if "\ud800" <= c <= "\udfff" else c for c in text)
    return text
