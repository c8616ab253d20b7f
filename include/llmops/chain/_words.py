"""Words of questions and texts as they are compared: lower case, split names, lightly stemmed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from math import log

__all__ = ["asks_for_code", "content_words", "coverage", "word_weights", "words"]

_WORD = re.compile(r"[a-z]+|\d+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_STOP_WORDS = """
a about all also an and any are as at be because been before but by can could did do does doing each else
every for from get gets give given had has have how i if in instead into is it its just kind let like
many may me mean means might must my need needs no not of off on one only or other our out please
possible s same should so some something such t tell than that the their them then there these they thing
things this those through to too up us use used user using very want was way we were what when where
which while who why will with without work works would yes you your
"""
_STOP = frozenset(_STOP_WORDS.split())
_ENDINGS = (("ies", "y"), ("sses", "ss"), ("ing", ""), ("ers", "er"), ("ed", ""), ("es", "e"), ("s", ""))
_CODE = re.compile(
    r"\b(?:how (?:do|can|should|would|to)|example|show|snippet|syntax|code|write|call|usage)\b", re.IGNORECASE
)


def words(text: str) -> set[str]:
    """Return the stems of all words of a text; names are split at case, digits and underscores."""
    return {_stem(word) for word in _WORD.findall(_CAMEL.sub(" ", text).lower())}


def content_words(text: str) -> tuple[str, ...]:
    """Return the stems of the words that carry meaning, each once, in order."""
    found = _WORD.findall(_CAMEL.sub(" ", text).lower())
    return tuple(dict.fromkeys(_stem(word) for word in found if word not in _STOP and (len(word) > 1)))


def asks_for_code(question: str) -> bool:
    """Return whether a question is one that code answers."""
    return _CODE.search(question) is not None


def word_weights(wanted: Sequence[str], texts: Sequence[set[str]]) -> dict[str, float]:
    """Return how much each word tells: smoothed inverse frequency among the texts."""
    total = len(texts)
    frequency = {word: sum(word in text for text in texts) for word in wanted}
    scale = log(2 * total + 2)
    return {word: 0.3 + log((total + 1) / (count + 0.5)) / scale for word, count in frequency.items()}


def coverage(weights: dict[str, float], text: set[str]) -> float:
    """Return the weight of the words that a text has, divided by the weight of all."""
    whole = sum(weights.values())
    return sum(weight for word, weight in weights.items() if word in text) / whole if whole else 0.0


@lru_cache(maxsize=16_384)
def _stem(word: str) -> str:
    """Return a word without its commonest English endings."""
    for ending, left in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith(("ss", "us", "is")):
            word = word[: -len(ending)] + left
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "ls":
        word = word[:-1]
    return word[:-1] if len(word) > 3 and word[-1] == "e" else word
