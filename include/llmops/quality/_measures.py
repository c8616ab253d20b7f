"""What a document's text measures: its length, damage to its encoding, a signature of its words, its lines."""

from __future__ import annotations

import hashlib
import re
import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

__all__ = ["PERMUTATIONS", "Measures", "UInt64", "measure", "mix"]

UInt64 = npt.NDArray[np.uint64]

_SHINGLE = 5
"""Words in a row that count as one element of a document's set."""

PERMUTATIONS = 128
"""Numbers in a signature: the estimate of a similarity of 0.9 has a standard error of 0.027."""

_SEED = 20260101
_BLOCK = 2048

_MOST_LINES = 2000
_SHORTEST_LINE = 4

_WORD = re.compile(r"\w+")
# What UTF-8 becomes when it is read as Windows-1252 or Latin-1: the character of a first byte, then those of the bytes
# that continue it. Only first bytes that hardly ever stand before such characters in real text.
_CONTINUES = "\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
_DAMAGE = re.compile(
    f"[ÂÃÄÅ][{_CONTINUES}]"  # accented letters: Ã© for é
    f"|â[€‚„…†‡ˆ‰Š‹ŒŽ˜™š›œžŸ\u0080-\u009f][{_CONTINUES}]"  # punctuation: â€™ for ’
    f"|(?:[ÐÑ][{_CONTINUES}]){{2,}}"  # Cyrillic
    "|ï»¿|ï¿½"
    "|[\ufffd\u0080-\u0084\u0086-\u009f]"
)


@dataclass(frozen=True)
class Measures:
    """Figures of one text.

    ``damage`` is the share of characters, 0 to 1, that are signs of a wrong encoding. ``signature`` is a MinHash of
    the words, 128 little-endian 32-bit numbers, empty without words. ``lines`` are the distinct 64-bit hashes of the
    lines, ascending and little-endian, at most 2,000 of them.
    """

    characters: int
    words: int
    damage: float
    signature: bytes
    lines: bytes


def measure(text: str) -> Measures:
    """Measure one text; the same text measures the same in every process."""
    words = _WORD.findall(text.casefold())
    return Measures(
        characters=len(text),
        words=len(words),
        damage=_damage(text),
        signature=_signature(words),
        lines=_lines(text),
    )


def _damage(text: str) -> float:
    """Return the share of replacement characters, C1 controls and wrongly decoded sequences.

    U+0085 is a line end in old files, and no damage.
    """
    if text.isascii():
        return 0.0
    return sum(match.end() - match.start() for match in _DAMAGE.finditer(text)) / len(text)


def _signature(words: list[str]) -> bytes:
    """Return the MinHash of the set of shingles.

    Two signatures agree in the share of places that is the sets' Jaccard similarity (Broder, "On the resemblance and
    containment of documents", 1997). Places are made by multiply-add-shift (Dietzfelbinger, "Universal hashing and
    k-wise independent random variables via integer arithmetic without primes", 1996).
    """
    if not words:
        return b""
    shingles = _shingles(words)
    factors, offsets = _permutations()
    smallest = np.full(PERMUTATIONS, np.iinfo(np.uint64).max, np.uint64)
    for at in range(0, len(shingles), _BLOCK):
        mixed = np.multiply.outer(factors, shingles[at : at + _BLOCK])
        mixed += offsets[:, np.newaxis]
        np.minimum(smallest, mixed.min(axis=1), out=smallest)
    return (smallest >> np.uint64(32)).astype("<u4").tobytes()


def _shingles(words: list[str]) -> UInt64:
    """Return the distinct hashes of every five words in a row, of all words together where they are fewer."""
    hashes = np.fromiter((zlib.crc32(word.encode()) for word in words), np.uint64, len(words))
    width = min(_SHINGLE, len(words))
    mixed = np.zeros(len(words) - width + 1, np.uint64)
    for place in range(width):
        mixed = mix(mixed ^ hashes[place : place + len(mixed)])
    return np.unique(mixed)


def mix(values: UInt64) -> UInt64:
    """Spread 64-bit numbers (the finalizer of SplitMix64; Steele, Lea and Flood, 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@cache
def _permutations() -> tuple[UInt64, UInt64]:
    """Return odd factors and offsets, the same in every process and with every version of numpy."""
    numbers = mix(np.arange(_SEED, _SEED + 2 * PERMUTATIONS, dtype=np.uint64))
    return numbers[:PERMUTATIONS] | np.uint64(1), numbers[PERMUTATIONS:]


def _lines(text: str) -> bytes:
    """Return the distinct hashes of lines that say something: at least four characters, one a letter or digit."""
    found: dict[str, None] = {}
    for line in text.splitlines():
        plain = " ".join(line.split())
        if len(plain) >= _SHORTEST_LINE and any(map(str.isalnum, plain)):
            found[plain] = None
        if len(found) == _MOST_LINES:
            break
    digests = (hashlib.blake2b(line.encode("utf-8", "replace"), digest_size=8).digest() for line in found)
    return np.unique(np.frombuffer(b"".join(digests), "<u8")).tobytes()
