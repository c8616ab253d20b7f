"""Comparing what is said: sentences, normalised words, and whether one text supports another.

Deliberately plain (no model, no network, the same on every machine). It is the containment idea of
ROUGE recall (Lin, 2004, https://aclanthology.org/W04-1013) on stemmed content words, plus three guards
against texts that share words without saying the same: adjacent words must recur (a shuffled bag of
words does not), every number must recur, and a word must not stand negated on one side only.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

__all__ = ["Statement", "Words", "first_sentence", "statements", "supports", "words_of"]

_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|resp|approx|[A-Za-z]))\.$", re.IGNORECASE)
_WORD = re.compile(r"\d+(?:\.\d+)+|[^\W_]+(?:_[^\W_]+)*")
_LINK = re.compile(r"!?\[([^\]\n]*)\]\([^)\n]*\)")
_TAG = re.compile(r"</?[A-Za-z][^<>\n]{0,200}>")
_FENCED = re.compile(
    r"^\s*(?P<fence>```|~~~)[^\n]*\n(?P<code>.*?)(?:^\s*(?P=fence)[^\n]*$|\Z)", re.DOTALL | re.MULTILINE
)
_INLINE_CODE = re.compile(r"`[^`\n]+`")
_MARKER = re.compile(r"\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\](?![(_])")
_ONLY_MARKERS = re.compile(r"(?:\[\d{1,3}(?:\s*,\s*\d{1,3})*\]\s*)+")
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)*_`]*(?:\s*\[\d{1,3}(?:\s*,\s*\d{1,3})*\])*[.]?(?=\s|$)")
_BLOCK_START = re.compile(r"^\s*(?:[-*+•]\s+|\d{1,3}[.)]\s+|\|)")
_HEADING = re.compile(r"^\s{0,3}#{1,6}\s.*$", re.MULTILINE)


@dataclass(frozen=True)
class Words:
    """A text as stemmed words in order: what comparisons are made on."""

    sequence: tuple[str, ...]

    @cached_property
    def polarity(self) -> dict[str, set[bool]]:
        """Return each content word with whether it occurs plain (True), negated (False) or both."""
        found: dict[str, set[bool]] = {}
        negated = False
        for word in self.sequence:
            if word in _NEGATIONS:
                negated = True
            elif word not in _STOP_WORDS:
                found.setdefault(word, set()).add(not negated)
                negated = False
        return found

    @cached_property
    def pairs(self) -> frozenset[tuple[str, str]]:
        """Return all pairs of adjacent words."""
        return frozenset(pairwise(self.sequence))

    @cached_property
    def numbers(self) -> frozenset[str]:
        """Return all words that are numbers."""
        return frozenset(word for word in self.sequence if word[0].isdigit())

    def __add__(self, other: Words) -> Words:
        """Return both texts one after the other."""
        return Words(self.sequence + other.sequence)


@dataclass(frozen=True)
class Statement:
    """One sentence of an answer: its words, and the numbers of the sources it names."""

    words: Words
    markers: tuple[int, ...]
    question: bool


@lru_cache(maxsize=4096)
def words_of(text: str) -> Words:
    """Return the words of ``text``: lower case, no Markdown, code marks or punctuation, lightly stemmed."""
    plain = _TAG.sub(" ", _LINK.sub(r"\1", text)).casefold().replace("’", "'")
    plain = re.sub(r"n't\b", " not", re.sub(r"\bcan't\b|\bcannot\b", "can not", plain))
    plain = re.sub(r"(?<=\d),(?=\d{3}\b)", "", plain)
    return Words(tuple(_stem(word) for word in _WORD.findall(re.sub(r"'s?\b", "", plain))))


def supports(claim: Words, evidence: Words, *, words: float, pairs: float) -> bool:
    """Return whether ``evidence`` says what ``claim`` says.

    It must hold at least the share ``words`` of the claim's content words, the share ``pairs`` of its
    adjacent word pairs and every number, and no word may stand negated on one side only. A claim without
    a content word is supported by nothing.
    """
    said, known = claim.polarity, evidence.polarity
    if not said or not claim.numbers <= evidence.numbers:
        return False
    shared = said.keys() & known.keys()
    if len(shared) < words * len(said) or any(said[word].isdisjoint(known[word]) for word in shared):
        return False
    return len(claim.pairs & evidence.pairs) >= pairs * len(claim.pairs)


def statements(text: str, numbers: Collection[int] = ()) -> list[Statement]:
    """Return the sentences of an answer with the markers ``[n]`` that each carries, in order.

    A marker behind the full stop belongs to the sentence before it. A sentence without a marker takes
    that of the next one in its paragraph which has any. ``x[1]`` is a marker only when 1 is in
    ``numbers`` (it may be an index), and nothing inside code is one. Headings, lead-ins that end with a
    colon and sentences without a content word state nothing and are left out.
    """
    found: list[Statement] = []
    for block in _blocks(text):
        units = [block.text] if block.code else _sentences(block.text)
        borrowed: tuple[int, ...] = ()
        kept: list[Statement] = []
        for statement in reversed([_statement(unit, numbers) for unit in units]):
            borrowed = statement.markers or borrowed
            if statement.words.polarity:
                kept.append(Statement(statement.words, borrowed, statement.question))
        found.extend(reversed(kept))
    return found


def first_sentence(text: str) -> str | None:
    """Return the first sentence of ``text`` that states something (four content words or more)."""
    for block in _blocks(text):
        for sentence in () if block.code else _sentences(block.text):
            plain = " ".join(sentence.split())
            if len(words_of(plain).polarity) >= 4 and plain[-1] in ".!":
                return plain
    return None


def _statement(sentence: str, numbers: Collection[int]) -> Statement:
    markers: list[int] = []

    def take(match: re.Match[str]) -> str:
        named = [int(number) for number in match[1].split(",")]
        before = sentence[match.start() - 1 : match.start()]
        if (before.isalnum() or before in ("_", ")", "]")) and not set(named) <= set(numbers):
            return match[0]
        markers.extend(named)
        return " "

    plain = _MARKER.sub(take, sentence).strip()
    return Statement(words_of(plain), tuple(dict.fromkeys(markers)), plain.endswith("?"))


@dataclass(frozen=True)
class _Block:
    """A paragraph, list item, table row or fenced code, on one line."""

    text: str
    code: bool = False


def _blocks(text: str) -> list[_Block]:
    """Return the blocks of a text in order, without headings.

    Markers on a line of their own belong to the block before it.
    """
    found: list[_Block] = []
    rest = 0
    for fence in _FENCED.finditer(text):
        found += _paragraphs(text[rest : fence.start()])
        found.append(_Block(_without_brackets(" ".join(fence["code"].split())), code=True))
        rest = fence.end()
    found += _paragraphs(text[rest:])
    merged: list[_Block] = []
    for block in found:
        if merged and _ONLY_MARKERS.fullmatch(block.text):
            merged[-1] = _Block(f"{merged[-1].text} {block.text}", merged[-1].code)
        else:
            merged.append(block)
    return merged


def _paragraphs(text: str) -> Iterator[_Block]:
    plain = _INLINE_CODE.sub(lambda code: _without_brackets(code[0]), _HEADING.sub("", text))
    lines: list[str] = []
    for line in [*plain.splitlines(), ""]:
        starts = _BLOCK_START.match(line)
        if (starts or not line.strip()) and lines:
            yield _Block(" ".join(lines))
            lines = []
        if line.strip():
            lines.append(line[starts.end() :].strip() if starts else line.strip())


def _without_brackets(code: str) -> str:
    """Return code in which nothing looks like a marker."""
    return code.replace("[", "(").replace("]", ")")


def _sentences(block: str) -> Iterator[str]:
    start = 0
    for end in _SENTENCE_END.finditer(block):
        if _ABBREVIATION.search(block[start : end.start() + 1]):
            continue
        yield block[start : end.end()].strip()
        start = end.end()
    rest = block[start:].strip()
    if rest and not rest.endswith(":"):
        yield rest


@lru_cache(maxsize=16384)
def _stem(word: str) -> str:
    """Return a word without its commonest English endings; names with digits or _ stay as they are.

    The steps are those of Porter's stemmer (1980) that join plural, past and gerund with the plain word. A
    word never becomes a negation or a stop word: a note is not a "not".
    """
    if len(word) < 4 or not word.isalpha() or word in _STOP_WORDS or word in _NEGATIONS:
        return word
    stem = _without_ending(_without_ending(word, _PLURAL), _PAST)
    doubled = stem[-1] == stem[-2] and stem[-1] not in "aeiols"
    if len(stem) > 3 and (doubled or stem[-1] == "e"):
        stem = stem[:-1]
    return word if stem in _STOP_WORDS or stem in _NEGATIONS else stem


def _without_ending(word: str, endings: Sequence[tuple[str, str]]) -> str:
    """Return the word with its first matching ending replaced, if at least a syllable remains."""
    for ending, replacement in endings:
        if word.endswith(ending):
            stem = word[: -len(ending)] + replacement
            return stem if len(stem) > 2 and _VOWEL.search(stem) else word
    return word


_VOWEL = re.compile("[aeiouy]")
_PLURAL = (
    ("sses", "ss"),
    ("ies", "y"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("xes", "x"),
    ("ss", "ss"),
    ("us", "us"),
    ("is", "is"),
    ("s", ""),
)
_PAST = (("ing", ""), ("ied", "y"), ("eed", "eed"), ("ed", ""))
_STOP_TEXT = """
    a about after all also an and any are as at be because been before being between both but by can
    could did do does doing down during each for from further had has have having he her here him
    his how i if in into is it its itself just may me might more most must my of off on once only or
    other our out over own same shall she should so some such than that the their them then there
    these they this those through to too under until up upon us very was we were what when where
    which while who whom why will with would you your yes
"""
_STOP_WORDS = frozenset(_STOP_TEXT.split())
_NEGATIONS = frozenset(["not", "no", "never", "without", "neither", "nor", "none"])
