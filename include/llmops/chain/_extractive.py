"""The generator that needs no language model: it quotes the sentences that answer the question.

A sentence's relevance is the cosine of its vector and the question's, the share of the question's words
that it has (rarer words count more), and the rank of its chunk. Its confidence comes from the best cosine
of a sentence by itself, and from how many of the question's words are in what it quotes; below the
threshold it refuses. The constants were fitted on the questions about the default corpus.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from llmops.chain._answer import REFUSAL, Draft, Inquiry, Responder, Vector
from llmops.chain._passages import Passage, passages
from llmops.chain._words import asks_for_code, content_words, coverage, word_weights, words
from llmops.errors import ConfigurationError
from llmops.index import Hit
from llmops.settings import Section

if TYPE_CHECKING:
    from llmops.chain._retrieval import Retrieval
    from llmops.embedding import Embedder

__all__ = ["ExtractiveGenerator"]

_EMBEDDED = 32
_JUDGED = 8
_ENOUGH_WORDS = 4
_SURE_BY_MEANING = 0.6
_FEWEST_WORDS = 3
_LONGEST_SENTENCE = 600
_LONGEST_CODE = 2400
_PARTNER = {"(": ")", "[": "]", "{": "}"}
_CLOSING = frozenset(_PARTNER.values())
_MEANING, _WORDS, _RANK = 0.6, 0.25, 0.15
_NEARLY_AS_GOOD = 0.6
_THE_SAME = 0.92


class ExtractiveGenerator(Section):
    """Quotes at most ``max_sentences`` sentences of the retrieved chunks, each with its citation.

    It refuses when its confidence (0 to 1) is below ``threshold``.
    """

    kind: Literal["extractive"] = "extractive"
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.54
    max_sentences: Annotated[int, Field(ge=1, le=4)] = 4

    def prepare(self, prompt: str, retrieval: Retrieval, embedder: Embedder | None) -> Responder:
        """Return what answers; raise ConfigurationError when there is nothing to quote from."""
        if retrieval.kind == "none" or embedder is None:
            raise ConfigurationError(
                f"generator kind {self.kind!r} quotes retrieved chunks, so it needs retrieval: "
                "use retrieval kind 'hybrid', or generator kind 'chat'"
            )
        return _ExtractiveResponder(self, embedder)


@dataclass(frozen=True)
class _Candidate:
    """One passage of one hit with what speaks for it."""

    hit: int
    passage: Passage
    words: float
    rank: float
    vector: Vector | None = None
    meaning: float = 0.0

    @property
    def score(self) -> float:
        return _MEANING * self.meaning + _WORDS * self.words + _RANK * self.rank


class _ExtractiveResponder:
    def __init__(self, generator: ExtractiveGenerator, embedder: Embedder) -> None:
        self._threshold = generator.threshold
        self._most = generator.max_sentences
        self._embedder = embedder

    def respond(self, inquiry: Inquiry) -> Draft:
        *_, draft = self.stream(inquiry)
        assert isinstance(draft, Draft)
        return draft

    def stream(self, inquiry: Inquiry) -> Iterator[str | Draft]:
        chosen, confidence = self._choose(inquiry)
        if not chosen or confidence < self._threshold:
            yield REFUSAL
            yield Draft(REFUSAL, refused=True, confidence=confidence)
            return
        pieces = list(_composed(chosen))
        yield from pieces
        cited = tuple(dict.fromkeys(candidate.hit + 1 for candidate in chosen))
        yield Draft("".join(pieces), cited=cited, confidence=confidence)

    def close(self) -> None:
        """Hold nothing."""

    def _choose(self, inquiry: Inquiry) -> tuple[list[_Candidate], float]:
        """Return the passages to quote, in reading order, and the confidence in them."""
        wanted = content_words(inquiry.question)
        weights = word_weights(wanted, [words(_whole(hit)) for hit in inquiry.hits])
        code = asks_for_code(inquiry.question)
        ranked = self._rank(inquiry, weights, code)
        if not ranked:
            return [], 0.0
        chosen = self._pick(ranked)
        confidence = self._confidence(inquiry, wanted, ranked, chosen)
        chosen = _in_reading_order(chosen)
        return (_with_code(chosen, inquiry.hits) if code else chosen), confidence

    def _confidence(
        self,
        inquiry: Inquiry,
        wanted: Sequence[str],
        ranked: Sequence[_Candidate],
        chosen: Sequence[_Candidate],
    ) -> float:
        """Return how sure it is that the quoted sentences answer the question, 0 to 1.

        The sentences are judged without the names of their sections: a section about the right thing
        raises the rank of everything in it, but only what a sentence says itself can answer.
        """
        assert inquiry.vector is not None
        best = [candidate.passage.text for candidate in ranked[:_JUDGED]]
        meaning = float(max(self._embedder.embed(best) @ inquiry.vector))
        quoted = set().union(*(words(candidate.passage.text) for candidate in chosen))
        found = sum(word in quoted for word in wanted)
        share = min(1.0, found / min(_ENOUGH_WORDS, len(wanted))) if wanted else 0.0
        confidence = _SURE_BY_MEANING * meaning + (1 - _SURE_BY_MEANING) * share
        return round(max(0.0, min(1.0, confidence)), 4)

    def _rank(self, inquiry: Inquiry, weights: dict[str, float], code: bool) -> list[_Candidate]:
        """Return the most promising passages, best first, with their vectors: one embedding call for all."""
        found = list(_candidates(inquiry.hits, weights, code))
        found.sort(key=lambda c: (-(c.words + c.rank), c.hit, c.passage.place))
        found = found[:_EMBEDDED]
        if not found:
            return []
        assert inquiry.vector is not None
        texts = [_in_context(inquiry.hits[c.hit], c.passage) for c in found]
        vectors = self._embedder.embed(texts)
        cosines = vectors @ inquiry.vector
        scored = [
            _Candidate(c.hit, c.passage, c.words, c.rank, vector, float(cosine))
            for c, vector, cosine in zip(found, vectors, cosines, strict=True)
        ]
        return sorted(scored, key=lambda c: (-c.score, c.hit, c.passage.place))

    def _pick(self, ranked: Sequence[_Candidate]) -> list[_Candidate]:
        """Return the best passage and those nearly as good that say something else."""
        picked: list[_Candidate] = []
        for candidate in ranked:
            if len(picked) == self._most or candidate.score < _NEARLY_AS_GOOD * ranked[0].score:
                break
            if not any(_alike(candidate, other) for other in picked):
                picked.append(candidate)
        return picked


def _candidates(hits: Sequence[Hit], weights: dict[str, float], code: bool) -> Iterator[_Candidate]:
    seen: set[str] = set()
    for number, hit in enumerate(hits):
        heading = words(_where(hit))
        units = passages(hit.text)
        only_code = all(unit.code for unit in units)
        for passage, following in zip_longest(units, units[1:]):
            own = words(passage.text)
            dangles = passage.text.endswith(":") and not (code and following and following.code)
            if passage.text in seen or dangles or not _quotable(passage, own, only_code):
                continue
            seen.add(passage.text)
            yield _Candidate(number, passage, coverage(weights, own | heading), 1 / (1 + number / 2))


def _quotable(passage: Passage, own: set[str], only_code: bool) -> bool:
    """Return whether a passage can answer: code does so by itself only where there is nothing else."""
    if passage.code:
        return only_code and _is_whole(passage)
    return len(own) >= _FEWEST_WORDS and len(passage.text) <= _LONGEST_SENTENCE


def _is_whole(code: Passage) -> bool:
    """Return whether code is short enough to quote and was not cut: every bracket has its partner.

    Brackets within strings count too: rather no code than a piece of a signature.
    """
    if len(code.text) > _LONGEST_CODE:
        return False
    expected: list[str] = []
    for character in code.text:
        if character in _PARTNER:
            expected.append(_PARTNER[character])
        elif character in _CLOSING and (not expected or expected.pop() != character):
            return False
    return not expected


def _where(hit: Hit) -> str:
    return " ".join(hit.heading_path) or hit.title


def _whole(hit: Hit) -> str:
    return f"{hit.title} {_where(hit)} {hit.text}"


def _in_context(hit: Hit, passage: Passage) -> str:
    """Return a passage with the name of its section, which says what "it" is."""
    name = hit.heading_path[-1] if hit.heading_path else hit.title
    return f"{name}: {passage.text}"


def _alike(one: _Candidate, other: _Candidate) -> bool:
    assert one.vector is not None
    assert other.vector is not None
    return float(one.vector @ other.vector) > _THE_SAME


def _in_reading_order(chosen: Sequence[_Candidate]) -> list[_Candidate]:
    """Return passages grouped by chunk, that of the best one first, each in the chunk's own order."""
    order = {candidate.hit: place for place, candidate in reversed(list(enumerate(chosen)))}
    return sorted(chosen, key=lambda c: (order[c.hit], c.passage.place))


def _with_code(chosen: Sequence[_Candidate], hits: Sequence[Hit]) -> list[_Candidate]:
    """Add one code block: the first that follows a quoted sentence, else the one above the first sentence.

    What follows is an example; what stands above, in the documentation of a library, is the signature.
    """
    if any(candidate.passage.code for candidate in chosen):
        return list(chosen)
    for step, candidates in ((1, chosen), (-1, chosen[:1])):
        for number, candidate in enumerate(candidates, 1):
            around = passages(hits[candidate.hit].text)
            place = candidate.passage.place + step
            if 0 <= place < len(around) and around[place].code and _is_whole(around[place]):
                code = _Candidate(candidate.hit, around[place], candidate.words, candidate.rank)
                return [*chosen[:number], code, *chosen[number:]]
    return list(chosen)


def _composed(chosen: Sequence[_Candidate]) -> Iterator[str]:
    """Yield the text of the answer passage by passage, each with its citation."""
    for place, candidate in enumerate(chosen):
        marker = f"[{candidate.hit + 1}]"
        if candidate.passage.code:
            yield ("\n\n" if place else "") + f"{candidate.passage.text}\n{marker}"
            continue
        after_code = place > 0 and chosen[place - 1].passage.code
        separator = "\n\n" if after_code else " " if place else ""
        yield f"{separator}{_finished(candidate.passage.text)} {marker}"


def _finished(sentence: str) -> str:
    """Return a sentence with a full stop if it has no end of its own."""
    return sentence if sentence.rstrip("\"'”’)*_`")[-1:] in {".", "!", "?", ":", "…"} else f"{sentence}."
