"""Scores of one answer, without any language model: retrieval, facts, grounding, citations, refusal.

Retrieval is scored over distinct documents, in the order of their best chunk:

- recall at k: expected documents among the first k, divided by all expected ones.
- nDCG at k: gain of a document divided by log2(rank + 1), summed over the first k, divided by the same sum
  of the best possible order (Järvelin and Kekäläinen, 2002, https://doi.org/10.1145/582415.582418; linear
  gain, as trec_eval computes it).
- MRR at k: 1 divided by the rank of the first expected document, 0 when none is among the first k
  (Voorhees, 1999, TREC-8 question answering track).

The answer's text is scored by the comparison of ``_text``:

- facts covered: share of the expected facts that one sentence of the answer, or two adjacent ones, state
  (0.8 of its content words, 0.4 of its adjacent word pairs).
- groundedness: share of the answer's sentences that a chunk which they cite supports (0.7 of the content
  words, 0.4 of the adjacent word pairs).
- citation validity: share of the answer's sentences that name a source, and only sources that were
  retrieved and cited.
- correct refusal: 1 when the assistant refused exactly if the question cannot be answered, else 0.
- quality: what a reader gets, as one number. Unanswerable: correct refusal. Answerable: 0 when refused,
  else facts covered times the lower of groundedness and citation validity (a chain of evidence is as strong
  as its weakest link, and facts that nobody can check count for nothing). A case without facts counts as
  covered when it cites an expected document. Without retrieval there is nothing to cite: facts alone count.
- good: 1 when the quality is at least 0.5, else 0; so a refusal is good where it is the right answer.
- cost: what the answer's tokens cost, in the currency of the price table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from llmops.evaluation._cases import Case
from llmops.evaluation._text import Statement, Words, statements, supports, words_of
from llmops.llm import Usage

__all__ = [
    "JUDGED",
    "METRICS",
    "Metric",
    "Observation",
    "RetrievedChunk",
    "metric_of",
    "mrr",
    "ndcg",
    "recall",
    "score_answer",
]

DEPTH = 10
JUDGED = "judge_"
"""How the name of a metric begins that a judge of the gate gives."""

_GOOD = 0.5
_FACT = {"words": 0.8, "pairs": 0.4}
_GROUND = {"words": 0.7, "pairs": 0.4}


@dataclass(frozen=True)
class RetrievedChunk:
    """A chunk that was retrieved for an answer, best first.

    ``number`` is the n of the ``[n]`` by which the text cites it; None means its place among the
    retrieved, counted from 1.
    """

    chunk_id: str
    source: str
    path: str
    text: str
    cited: bool = False
    number: int | None = None

    @property
    def document(self) -> str:
        """Return the document as cases name it."""
        return f"{self.source}:{self.path}"


@dataclass(frozen=True)
class Observation:
    """What an assistant did with one question; ``retrieved`` is None when it retrieves by no means.

    ``usage`` are the tokens of a language model, as its endpoint counted them; ``cost`` is what they cost,
    in the currency of the price table. ``unpriced`` says why the cost is not known though there is one.
    """

    text: str
    refused: bool
    retrieved: tuple[RetrievedChunk, ...] | None
    latency_seconds: float
    usage: Usage | None = None
    cost: float | None = None
    unpriced: str | None = None


@dataclass(frozen=True)
class Metric:
    """How scores of cases become one figure: which score, which statistic, which direction is better.

    ``per`` is the score that a ratio divides the sum by. ``bounded`` says that scores lie between 0 and 1.
    """

    score: str
    statistic: Literal["mean", "p95", "ratio"] = "mean"
    higher_is_better: bool = True
    answerable_only: bool = False
    bounded: bool = True
    unit: str = ""
    per: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the scores that a case must have to count."""
        return (self.score,) if self.per is None else (self.score, self.per)

    def may_apply(self, slice_name: str) -> bool:
        """Return whether a case of that slice could have this score."""
        return not (self.answerable_only and slice_name == "unanswerable")


METRICS: Mapping[str, Metric] = {
    "quality": Metric("quality"),
    "recall_at_10": Metric("recall_at_10", answerable_only=True),
    "ndcg_at_10": Metric("ndcg_at_10", answerable_only=True),
    "mrr_at_10": Metric("mrr_at_10", answerable_only=True),
    "facts_covered": Metric("facts_covered", answerable_only=True),
    "groundedness": Metric("groundedness"),
    "citation_validity": Metric("citation_validity"),
    "correct_refusal": Metric("correct_refusal"),
    "latency_p95_seconds": Metric("latency_seconds", "p95", higher_is_better=False, bounded=False, unit=" s"),
    "cost_per_answer": Metric("cost", higher_is_better=False, bounded=False),
    "cost_per_good_answer": Metric("cost", "ratio", higher_is_better=False, bounded=False, per="good"),
}


def metric_of(name: str) -> Metric | None:
    """Return the metric called ``name``, a judge's one included; None when there is none."""
    if name.startswith(JUDGED):
        return Metric(name)
    return METRICS.get(name)


def recall(ranked: Sequence[str], relevant: Mapping[str, float], k: int = DEPTH) -> float:
    """Return the share of the relevant ids that are among the first ``k`` of ``ranked``."""
    wanted = {key for key, gain in relevant.items() if gain > 0}
    return len(wanted & set(ranked[:k])) / len(wanted)


def ndcg(ranked: Sequence[str], relevant: Mapping[str, float], k: int = DEPTH) -> float:
    """Return the normalised discounted cumulative gain of the first ``k`` of ``ranked``, linear gain."""
    gained = _discounted([relevant.get(key, 0.0) for key in ranked[:k]])
    return gained / _discounted(sorted(relevant.values(), reverse=True)[:k])


def mrr(ranked: Sequence[str], relevant: Mapping[str, float], k: int = DEPTH) -> float:
    """Return 1 divided by the rank of the first relevant id among the first ``k``, or 0."""
    for rank, key in enumerate(ranked[:k], 1):
        if relevant.get(key, 0.0) > 0:
            return 1 / rank
    return 0.0


def score_answer(case: Case, observation: Observation) -> dict[str, float]:
    """Return the scores that apply to one answer, by name; one that is absent does not apply.

    A refusal has no groundedness and no citation validity; an unanswerable question has no retrieval
    scores and no facts; an assistant that retrieves nothing has none of retrieval, grounding, citations,
    and then a case without facts has no quality either.
    """
    answered = not _is_refusal(observation)
    scores = {
        "correct_refusal": float(answered != case.unanswerable),
        "latency_seconds": observation.latency_seconds,
    }
    if not case.unanswerable and observation.retrieved is not None:
        ranked = list(dict.fromkeys(chunk.document for chunk in observation.retrieved))
        relevant = dict.fromkeys(case.expected_documents, 1.0)
        scores["recall_at_10"] = recall(ranked, relevant)
        scores["ndcg_at_10"] = ndcg(ranked, relevant)
        scores["mrr_at_10"] = mrr(ranked, relevant)
    sources = _numbered(observation)
    said = _assertions(case, observation, sources)
    if not case.unanswerable and case.facts:
        scores["facts_covered"] = _facts_covered(case, said) if answered else 0.0
    if answered and observation.retrieved is not None:
        scores["groundedness"] = _groundedness(said, sources)
        scores["citation_validity"] = _citation_validity(said, sources)
    if case.unanswerable or case.facts or observation.retrieved is not None:
        scores["quality"] = _quality(case, observation, scores)
        scores["good"] = float(scores["quality"] >= _GOOD)
    if observation.cost is not None:
        scores["cost"] = observation.cost
    return scores


def _quality(case: Case, observation: Observation, scores: Mapping[str, float]) -> float:
    if case.unanswerable or _is_refusal(observation):
        return scores["correct_refusal"]
    cited = [chunk for chunk in observation.retrieved or () if chunk.cited]
    right_document = any(chunk.document in case.expected_documents for chunk in cited)
    content = scores.get("facts_covered", float(right_document))
    if observation.retrieved is None:
        return content
    return content * min(scores["groundedness"], scores["citation_validity"])


def _is_refusal(observation: Observation) -> bool:
    """Return whether the assistant refused; one that claims to and yet cites sources did not."""
    return observation.refused and not any(chunk.cited for chunk in observation.retrieved or ())


def _numbered(observation: Observation) -> dict[int, RetrievedChunk]:
    retrieved = enumerate(observation.retrieved or (), 1)
    return {chunk.number or place: chunk for place, chunk in retrieved if chunk.cited}


def _assertions(
    case: Case, observation: Observation, sources: Mapping[int, RetrievedChunk]
) -> list[Statement]:
    """Return the answer's sentences that assert something: neither questions nor the question repeated."""
    asked = words_of(case.question)
    found = statements(observation.text, sources.keys())
    return [s for s in found if not s.question and s.words.sequence != asked.sequence]


def _facts_covered(case: Case, said: Sequence[Statement]) -> float:
    windows = [s.words for s in said]
    windows += [first.words + second.words for first, second in pairwise(said)]
    facts = [words_of(fact) for fact in case.facts]
    return sum(any(supports(fact, w, **_FACT) for w in windows) for fact in facts) / len(facts)


def _groundedness(said: Sequence[Statement], sources: Mapping[int, RetrievedChunk]) -> float:
    if not said:
        return 0.0

    def evidence(statement: Statement) -> list[Words]:
        named = [sources[n] for n in statement.markers if n in sources]
        return [words_of(chunk.text) for chunk in (named if statement.markers else sources.values())]

    held = [any(supports(s.words, text, **_GROUND) for text in evidence(s)) for s in said]
    return sum(held) / len(said)


def _citation_validity(said: Sequence[Statement], sources: Mapping[int, RetrievedChunk]) -> float:
    if not said:
        return 0.0
    return sum(bool(s.markers) and all(n in sources for n in s.markers) for s in said) / len(said)


def _discounted(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))
