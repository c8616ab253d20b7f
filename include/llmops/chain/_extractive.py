"""The generator that needs no language model: it quotes the sentences that answer the question.

A sentence's relevance is the cosine of its vector and the question's, the share of the question's words
that it has (rarer words count more), and the rank of its chunk. Confidence is the mean of the best cosine
and of the question's words found in the quoted chunks; below the threshold it refuses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
_FEWEST_WORDS = 3
_LONGEST_SENTENCE = 600
_LONGEST_CODE = 2400
_MEANING, _WORDS, _RANK = 0.6, 0.25, 0.15
_NEARLY_AS_GOOD = 0.72
_THE_SAME = 0.92


class ExtractiveGenerator(Section):
    """Quotes at most ``max_sentences`` sentences of the retrieved chunks, each with its citation.

    It refuses when its confidence (0 to 1) is below ``threshold``.
    """

    kind: Literal["extractive"] = "extractive"
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    max_sentences: Annotated[int, Field(ge=1, le=4)] = 3

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
        texts = [words(_whole(hit)) for hit in inquiry.hits]
        weights = word_weights(wanted, texts)
        code = asks_for_code(inquiry.question)
        ranked = self._rank(inquiry, weights, code)
        if not ranked:
            return [], 0.0
        chosen = self._pick(ranked)
        quoted: set[str] = set().union(*(texts[candidate.hit] for candidate in chosen))
        confidence = (max(c.meaning for c in ranked) + coverage(weights, quoted)) / 2
        chosen = _in_reading_order(chosen)
        return (_with_code(chosen, inquiry.hits) if code else chosen), round(
            max(0.0, min(1.0, confidence)), 4
        )

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
        for passage in passages(hit.text):
            own = words(passage.text)
            if passage.text in seen or not _quotable(passage, own, code):
                continue
            seen.add(passage.text)
            yield _Candidate(number, passage, coverage(weights, own | heading), 1 / (1 + number / 2))


def _quotable(passage: Passage, own: set[str], code: bool) -> bool:
    if passage.code:
        return code and len(passage.text) <= _LONGEST_CODE
    if passage.text.endswith(":") and not code:
        return False
    return len(own) >= _FEWEST_WORDS and len(passage.text) <= _LONGEST_SENTENCE


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
    """Add the code block that directly follows a quoted sentence, at most one, when none was chosen."""
    if any(candidate.passage.code for candidate in chosen):
        return list(chosen)
    result: list[_Candidate] = []
    added = False
    for candidate in chosen:
        result.append(candidate)
        following = [] if added else passages(hits[candidate.hit].text)[candidate.passage.place + 1 :][:1]
        for passage in following:
            if passage.code and len(passage.text) <= _LONGEST_CODE:
                result.append(_Candidate(candidate.hit, passage, candidate.words, candidate.rank))
                added = True
    return result


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
