"""The gate is what its file declares, and the self-test notices when it is not."""

import numpy as np
import pytest

from llmops.evaluation import Case, Evaluation, GateRules, self_test
from llmops.evaluation import _self_test as module
from llmops.evaluation._evaluate import CaseResult
from llmops.evaluation._self_test import Rate

_RUNS = 300


def _evaluation(count=120):
    generator = np.random.default_rng(4)
    results = []
    for n in range(count):
        case = Case(id=f"q{n}", question=f"Question {n}?", expected_documents=["guide:one"], slice="concept")
        quality = float(generator.choice([0, 0.5, 1], p=[0.2, 0.3, 0.5]))
        scores = {
            "quality": quality,
            "recall_at_10": float(generator.random() < 0.85),
            "latency_seconds": float(np.exp(0.4 * generator.normal())),
            "cost": float(generator.gamma(5, 0.1)),
            "good": float(quality >= 0.5),
        }
        results.append(CaseResult.of(case, scores))
    return Evaluation("candidate", tuple(results))


def _rules(*rules, **settings):
    return GateRules(rules=rules, **settings)


_EVERY_KIND = _rules(
    {"metric": "recall_at_10", "largest_loss": 0.1},
    {"metric": "quality", "largest_loss": 0.11},
    {"metric": "latency_p95_seconds", "largest_loss": 0.9},
    {"metric": "cost_per_answer", "largest_loss": 0.09},
    {"metric": "cost_per_good_answer", "largest_loss": 0.4},
    {"metric": "correct_refusal", "minimum": 0.5},
)


def test_the_gate_holds_what_it_declares_for_every_kind_of_metric():
    found = self_test(_EVERY_KIND, _evaluation(), runs=_RUNS)
    assert found.holds
    assert [trial.rule for trial in found.trials] == [rule.name for rule in _EVERY_KIND.rules[:5]]
    for trial in found.trials:
        assert trial.blocked.declared == pytest.approx(0.2)
        assert trial.passed.declared == pytest.approx(0.05)
        assert trial.passed.count > 0


def test_a_candidate_made_worse_turns_it_red():
    found = self_test(_EVERY_KIND, _evaluation(), runs=_RUNS, worse=True)
    assert not found.holds
    assert all(trial.blocked.value > 0.9 and not trial.holds for trial in found.trials)


def test_a_gate_that_passes_too_much_turns_it_red(monkeypatch):
    monkeypatch.setattr(module, "excludes", lambda largest, tolerance: largest < 1.5 * tolerance)
    found = self_test(_EVERY_KIND, _evaluation(), runs=_RUNS)
    assert not found.holds
    assert not any(trial.passed.holds for trial in found.trials)
    assert all(trial.blocked.holds for trial in found.trials)


def test_the_same_seed_gives_the_same_counts_and_another_seed_others():
    rules = _rules({"metric": "recall_at_10", "largest_loss": 0.1})
    one = self_test(rules, _evaluation(), runs=200, seed=1)
    assert one == self_test(rules, _evaluation(), runs=200, seed=1)
    assert one != self_test(rules, _evaluation(), runs=200, seed=2)


def test_it_means_something_with_a_generator_that_always_says_the_same():
    found = self_test(_rules({"metric": "quality", "largest_loss": 0.11}), _evaluation(), runs=200)
    assert 0 < found.trials[0].blocked.count < 200


def test_a_gate_without_the_power_to_tell_does_not_hold():
    rules = _rules({"metric": "quality", "largest_loss": 0.01, "underpowered": "allow"})
    found = self_test(rules, _evaluation(), runs=100)
    assert found.trials[0].blocked.declared is None
    assert found.trials[0].holds
    assert not found.tells
    assert not found.holds
    assert not self_test(_rules({"metric": "quality", "minimum": 0.5}), _evaluation(), runs=100).holds


def test_what_cannot_be_tried_is_named_with_its_reason():
    rules = _rules(
        {"metric": "groundedness", "largest_loss": 0.1},
        {"metric": "quality", "largest_loss": 0.9, "underpowered": "allow"},
        {"metric": "recall_at_10", "largest_loss": 0.1},
    )
    found = self_test(rules, _evaluation(), runs=100)
    assert found.left_out == (
        "groundedness: the report has 0 scores",
        "quality: no candidate can lose 0.9 of 0.654",
    )
    assert [trial.rule for trial in found.trials] == ["recall_at_10"]


def test_intervals_of_rates_are_those_of_wilson():
    proportion = pytest.importorskip("scipy.stats").binomtest(13, 200).proportion_ci(method="wilson")
    assert Rate(13, 200, 0.05).interval == pytest.approx((proportion.low, proportion.high))
    assert Rate(13, 200, 0.05).holds
    assert not Rate(33, 200, 0.05).holds
    assert Rate(0, 200, 0.05).interval[0] == pytest.approx(0, abs=1e-12)
