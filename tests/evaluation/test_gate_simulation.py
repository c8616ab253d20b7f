"""What the gate promises, counted over a thousand simulated gates that go through ``decide``.

A rate that must stay below p may be found up to the count that a rate of exactly p exceeds once in a thousand
times (binomial, 99.9 %): at p = 5 % that is 72 of 1,000, at p = 20 % it is 240.
"""

import numpy as np
import pytest

from llmops.evaluation import Case, Evaluation, GateRules, decide, power_of
from llmops.evaluation._evaluate import CaseResult

_GATES = 1_000
_CONFIDENCE, _POWER = 0.95, 0.8
_KEEP = 0.5**0.5
"""Chance that a side answers a question as it is, else as any other: two such sides correlate by one half."""


def _most(rate):
    return pytest.importorskip("scipy.stats").binom.ppf(0.999, _GATES, rate)


def _base(count):
    case = {"expected_documents": ["guide:one"], "slice": "concept"}
    cases = [Case(id=f"q{n:04}", question=f"Question {n}?", **case) for n in range(count)]
    return [CaseResult.of(case, {}) for case in cases]


_RESULTS = {count: _base(count) for count in (60, 80, 100)}


def _evaluation(label, **scores):
    count = len(next(iter(scores.values())))
    rows = zip(*(values.tolist() for values in scores.values()), strict=True)
    made = [
        CaseResult(r.id, r.slice, r.synthetic, r.digest, dict(zip(scores, row, strict=True)))
        for r, row in zip(_RESULTS[count], rows, strict=True)
    ]
    return Evaluation(label, tuple(made))


def _gate(*rules, **settings):
    return GateRules(
        rules=rules,
        confidence=_CONFIDENCE,
        power=_POWER,
        resamples=1_000,
        underpowered="allow",
        **settings,
    )


def _binary(generator, count, share=0.8):
    return (generator.random(count) < share).astype(float)


def _graded(generator, count):
    return generator.choice([0, 1 / 3, 1 / 2, 2 / 3, 1], count, p=[0.2, 0.1, 0.2, 0.1, 0.4])


def _seconds(generator, count):
    return np.exp(0.5 * generator.normal(size=count))


def _side(generator, draw, truth):
    """Return one side's scores: those of ``truth`` with noise that leaves their distribution as it is."""
    return np.where(generator.random(len(truth)) < _KEEP, truth, draw(generator, len(truth)))


def _equal(generator, draw, count):
    """Return the scores of two equally good releases that correlate by one half."""
    truth = draw(generator, count)
    return _side(generator, draw, truth), _side(generator, draw, truth)


_KINDS = {
    "binary": ("recall_at_10", "recall_at_10", _binary),
    "graded": ("quality", "quality", _graded),
    "p95": ("latency_p95_seconds", "latency_seconds", _seconds),
    "cost": ("cost_per_answer", "cost", _seconds),
}
_TOLERANCE = {"binary": 0.1, "graded": 0.1, "p95": 0.6, "cost": 0.3}


def _worse(kind, generator, scores):
    """Return scores that are truly worse by exactly the tolerance of their kind."""
    tolerance = _TOLERANCE[kind]
    if kind in ("p95", "cost"):
        return scores + tolerance
    mean = {"binary": 0.8, "graded": 0.1 / 3 + 0.2 / 2 + 0.1 * 2 / 3 + 0.4}[kind]
    return np.where(generator.random(len(scores)) < tolerance / mean, 0.0, scores)


@pytest.mark.parametrize("worse", _KINDS)
def test_a_candidate_worse_by_exactly_the_tolerance_on_one_metric_rarely_passes(worse):
    rules = _gate(
        *({"metric": metric, "largest_loss": _TOLERANCE[kind]} for kind, (metric, _, _) in _KINDS.items())
    )
    passed = 0
    for seed in range(_GATES):
        generator = np.random.default_rng(seed)
        ours, theirs = {}, {}
        for kind, (_, score, draw) in _KINDS.items():
            truth = draw(generator, 60)
            # The other metrics do not change, so that they never block: the worst case for a pass.
            ours[score] = theirs[score] = truth
            if kind == worse:
                ours[score], theirs[score] = (_side(generator, draw, truth) for _ in "ab")
                ours[score] = _worse(kind, generator, ours[score])
        found = decide(rules, _evaluation("candidate", **ours), _evaluation("production", **theirs))
        passed += found.results[list(_KINDS).index(worse)].outcome == "pass"
        assert (found.verdict == "PASS") == all(r.outcome == "pass" for r in found.results)
    assert passed <= _most(1 - _CONFIDENCE)


@pytest.mark.parametrize(("count", "lost", "won"), [(60, 0.0605, 0.01), (100, 0.03, 0.0)])
def test_small_differences_that_are_losses_and_hardly_a_win_rarely_pass(count, lost, won):
    """Losses come in steps of one question; the first tolerance is just above such a step, where most pass."""
    rules = _gate({"metric": "recall_at_10", "largest_loss": lost - won})
    passed = 0
    for seed in range(_GATES):
        generator = np.random.default_rng(seed)
        draw, theirs = generator.random(count), _binary(generator, count)
        theirs = np.where(draw < lost, 1.0, np.where(draw < lost + won, 0.0, theirs))
        ours = np.where(draw < lost, 0.0, np.where(draw < lost + won, 1.0, theirs))
        sides = (_evaluation(side, recall_at_10=scores) for side, scores in (("a", ours), ("b", theirs)))
        passed += decide(rules, *sides).verdict == "PASS"
    assert passed <= _most(1 - _CONFIDENCE)


@pytest.mark.parametrize(("kind", "count"), [("binary", 80), ("graded", 80), ("p95", 80), ("cost", 80)])
def test_an_equal_candidate_is_blocked_no_more_often_than_the_power_says(kind, count):
    metric, score, draw = _KINDS[kind]
    blocked = 0
    for seed in range(_GATES):
        generator = np.random.default_rng(seed)
        ours, theirs = _equal(generator, draw, count)
        production = _evaluation("production", **{score: theirs})
        (power,) = power_of(_gate({"metric": metric, "largest_loss": 1}), production)
        rules = _gate({"metric": metric, "largest_loss": power.smallest_loss}, seed=seed)
        blocked += decide(rules, _evaluation("candidate", **{score: ours}), production).verdict != "PASS"
    assert blocked <= _most(1 - _POWER)


def test_an_equal_candidate_rarely_fails_however_many_rules_there_are():
    """With a tolerance of 0, where an equal candidate is as bad as a rule may take it for."""
    binary = ("recall_at_10", "ndcg_at_10", "facts_covered")
    rules = _gate(*({"metric": metric, "largest_loss": 0} for metric in (*binary, "latency_p95_seconds")))
    failed = alone = 0
    for seed in range(_GATES):
        generator = np.random.default_rng(seed)
        ours, theirs = {}, {}
        for metric in binary:
            ours[metric], theirs[metric] = _equal(generator, _binary, 60)
        ours["latency_seconds"], theirs["latency_seconds"] = _equal(generator, _seconds, 60)
        found = decide(rules, _evaluation("candidate", **ours), _evaluation("production", **theirs))
        failed += found.verdict == "FAIL"
        alone += any(r.p_value <= 1 - _CONFIDENCE for r in found.results)
    assert failed <= _most(1 - _CONFIDENCE)
    assert alone > _most(1 - _CONFIDENCE)
