"""Figures of a document that depend on all documents of its source: boilerplate and near-duplicates."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from llmops.quality._measures import PERMUTATIONS, UInt64, mix
from llmops.quality._rules import QualityRules

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["corpus_figures"]

_FEWEST_DOCUMENTS = 5
_SHARE_OF_DOCUMENTS = 0.2
_FEWEST_WORDS = 50
_MISSED = 1e-3
_MOST_LEADERS = 64
_BLOCK = 10_000


def corpus_figures(documents: pa.Table, rules: QualityRules) -> pa.Table:
    """Return `document_id`, `boilerplate_share` and `near_duplicate_of` of all documents of one source, in their order.

    ``documents`` has the columns `document_id`, `words`, `signature` and `lines`, as ``measure`` gives them; null
    where a document has not been measured. The boilerplate share of a document is the share of its lines, 0 to 1, that
    stand in at least a fifth of the source's documents, and in five. A near-duplicate is like an earlier document in
    at least ``rules.near_duplicate_threshold`` of its shingles (estimated Jaccard similarity); both have 50 words or
    more. Earlier means that its id is smaller, and a document that is a near-duplicate itself is not referred to, so
    that one of every group is none.
    """
    import pyarrow as pa

    shares = _boilerplate(documents["lines"])
    duplicates = _near_duplicates(documents, rules.near_duplicate_threshold)
    return pa.table(
        {
            "document_id": documents["document_id"].cast(pa.string()),
            "boilerplate_share": pa.array(shares, pa.float64()),
            "near_duplicate_of": pa.array(duplicates, pa.string()),
        }
    )


def _boilerplate(lines: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Return a share for each document; beside the lines themselves it needs their size once more, for sorting."""
    chunks = [_numbers(chunk) for chunk in lines.chunks]
    needed = max(_FEWEST_DOCUMENTS, math.ceil(_SHARE_OF_DOCUMENTS * len(lines)))
    frequent = _frequent([values for values, _ in chunks], needed)
    return np.concatenate([np.zeros(0), *(_shares(values, counts, frequent) for values, counts in chunks)])


def _numbers(chunk: pa.Array) -> tuple[UInt64, npt.NDArray[np.int64]]:
    """Return the numbers in an array of bytes without copying them, and how many each element has."""
    import pyarrow as pa
    import pyarrow.compute as pc

    chunk = chunk.cast(pa.large_binary())
    if chunk.null_count:
        chunk = pc.fill_null(chunk, b"")
    _, ends, data = chunk.buffers()
    if data is None:
        return np.zeros(0, np.uint64), np.zeros(len(chunk), np.int64)
    offsets = np.frombuffer(ends, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
    values = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]].view("<u8")
    return values, np.diff(offsets) // 8


def _frequent(chunks: list[UInt64], needed: int) -> UInt64:
    """Return the numbers that stand in at least ``needed`` documents; one document has each of its numbers once."""
    values = np.concatenate([np.zeros(0, np.uint64), *chunks])
    values.sort()
    if len(values) < needed:
        return values[:0]
    often = values[needed - 1 :] == values[: len(values) - needed + 1]
    often[1:] &= values[1 : len(often)] != values[: len(often) - 1]  # once for every number
    frequent: UInt64 = values[: len(often)][often]
    return frequent


def _shares(values: UInt64, counts: npt.NDArray[np.int64], frequent: UInt64) -> npt.NDArray[np.float64]:
    found = np.zeros(len(counts), np.int64)
    ends = np.concatenate([[0], np.cumsum(counts)])
    for at in range(0, len(counts), _BLOCK):
        block = ends[at : at + _BLOCK + 1]
        hits = np.isin(values[block[0] : block[-1]], frequent)
        running = np.concatenate([[0], np.cumsum(hits)])
        found[at : at + _BLOCK] = np.diff(running[block - block[0]])
    return found / np.maximum(counts, 1)


def _near_duplicates(documents: pa.Table, threshold: float) -> list[str | None]:
    """Return what each document repeats.

    Candidates are found by bands of the signatures (Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets",
    2020, chapter 3.4), so wide that a pair at the threshold is missed once in a thousand; then whole signatures are
    compared. In a group of very many documents that are alike but below the threshold, the first 64 are compared with.
    """
    ids: list[str] = documents["document_id"].to_pylist()
    raw = documents["signature"].to_pylist()
    words = documents["words"].to_pylist()
    usable = sorted(
        (
            n
            for n in range(len(ids))
            if (words[n] or 0) >= _FEWEST_WORDS and len(raw[n] or b"") == 4 * PERMUTATIONS
        ),
        key=ids.__getitem__,
    )
    twins: dict[bytes, list[int]] = {}
    for n in usable:
        twins.setdefault(raw[n], []).append(n)
    groups = list(twins.values())
    leaders = _leaders(np.frombuffer(b"".join(twins), "<u4").reshape(-1, PERMUTATIONS), threshold)
    result: list[str | None] = [None] * len(ids)
    for group, leader in zip(groups, leaders, strict=True):
        first = group[0] if leader is None else groups[leader][0]
        for n in group:
            result[n] = None if n == first else ids[first]
    return result


def _leaders(signatures: npt.NDArray[np.uint32], threshold: float) -> list[int | None]:
    """Return for each signature the first one before it that it is like and that is like none itself."""
    buckets = _shared_buckets(signatures, threshold)
    members: dict[int, list[int]] = defaultdict(list)
    result: list[int | None] = [None] * len(signatures)
    for row in sorted(buckets):
        candidates = np.array(sorted({other for b in buckets[row] for other in members[b]}), np.int64)
        alike = candidates[(signatures[candidates] == signatures[row]).mean(axis=1) >= threshold]
        if len(alike):
            result[row] = int(alike[0])
            continue
        for bucket in buckets[row]:
            if len(members[bucket]) < _MOST_LEADERS:
                members[bucket].append(row)
    return result


def _shared_buckets(signatures: npt.NDArray[np.uint32], threshold: float) -> dict[int, list[int]]:
    """Return the buckets of every row that shares one with another row."""
    rows = _rows_per_band(threshold)
    found: dict[int, list[int]] = defaultdict(list)
    offset = 0
    for at in range(0, PERMUTATIONS, rows):
        key = np.zeros(len(signatures), np.uint64)
        for column in range(at, at + rows):
            key = mix(key ^ signatures[:, column])
        _, bucket, sizes = np.unique(key, return_inverse=True, return_counts=True)
        shared = np.flatnonzero(sizes[bucket] > 1)
        for row, number in zip(shared.tolist(), bucket[shared].tolist(), strict=True):
            found[row].append(offset + number)
        offset += len(sizes)
    return found


def _rows_per_band(threshold: float) -> int:
    """Return the widest band with which a pair at the threshold is hardly ever missed."""
    widths = (width for width in (16, 8, 4) if (1 - threshold**width) ** (PERMUTATIONS // width) < _MISSED)
    return next(widths, 2)
