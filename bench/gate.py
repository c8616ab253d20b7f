"""How long the gate's statistics take on a thousand questions and ten metrics at full resampling."""

from __future__ import annotations

import time

import numpy as np

from bench.figure import Figure
from llmops.evaluation import Case, CaseResult, Evaluation, GateRules, decide

_LIMIT_SECONDS = 2.0
_QUESTIONS = 1_000
_RESAMPLES = 10_000
_ROUNDS = 3
_BOUNDED = (
    "quality",
    "recall_at_10",
    "ndcg_at_10",
    "mrr_at_10",
    "facts_covered",
    "groundedness",
    "citation_validity",
)
_OTHERS = ("latency_p95_seconds", "cost_per_answer", "cost_per_good_answer")


def measure() -> list[Figure]:
    """Decide on every metric with a tolerance of its own, and return the best of a few rounds."""
    metrics = (*_BOUNDED, *_OTHERS)
    rules = GateRules(
        rules=tuple({"metric": metric, "largest_loss": 0.1} for metric in metrics),
        resamples=_RESAMPLES,
        underpowered="allow",
    )
    cases = [
        Case(id=f"q{n}", question=f"Question {n}?", expected_documents=("a:b",), slice="concept")
        for n in range(_QUESTIONS)
    ]
    seconds = []
    for _ in range(_ROUNDS):
        candidate, production = _evaluation(cases, "candidate", 1), _evaluation(cases, "production", 2)
        began = time.perf_counter()
        report = decide(rules, candidate, production)
        seconds.append(time.perf_counter() - began)
        if len(report.results) != len(metrics) or any(result.p_value is None for result in report.results):
            raise SystemExit("the gate left a comparison out, so there is nothing to time")
    name = f"gate: {_QUESTIONS:,} questions, {len(metrics)} metrics"
    return [Figure(name, min(seconds), "s", _LIMIT_SECONDS, at_most=True)]


def _evaluation(cases: list[Case], label: str, seed: int) -> Evaluation:
    generator = np.random.default_rng(seed)
    results = []
    for case in cases:
        scores = {metric: float(generator.integers(0, 5)) / 4 for metric in _BOUNDED}
        scores |= {"latency_seconds": float(generator.gamma(4, 0.1)), "cost": float(generator.gamma(4, 0.01))}
        results.append(CaseResult.of(case, {**scores, "good": float(scores["quality"] >= 0.5)}))
    return Evaluation(label, tuple(results))
