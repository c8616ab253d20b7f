"""What the questions at hand can tell is said in a sentence per rule, before anything is asked."""

import logging

import numpy as np
import pytest

from llmops.errors import ConfigurationError
from llmops.evaluation import KEYWORD_BASELINE, Case, Evaluation, GateRules, decide, power_of, require_power
from llmops.evaluation._evaluate import CaseResult


def _cases(count, slices=("concept", "limits")):
    return [
        Case(
            id=f"q{n:04}",
            question=f"Question {n}?",
            expected_documents=["guide:one"],
            slice=slices[n % len(slices)],
        )
        for n in range(count)
    ]


def _evaluation(count=200, label="production"):
    generator = np.random.default_rng(2)
    results = [
        CaseResult.of(case, {"recall_at_10": float(generator.random() < 0.87), "quality": generator.random()})
        for case in _cases(count)
    ]
    return Evaluation(label, tuple(results))


def _rules(*rules, **settings):
    return GateRules(rules=rules, **settings)


def test_a_sentence_says_what_is_excluded_what_is_asked_and_what_is_needed():
    (power,) = power_of(_rules({"metric": "recall_at_10", "largest_loss": 0.02}), _evaluation())
    assert str(power) == (
        "recall_at_10: 200 questions exclude a loss of 0.069 at 80% power; you ask for 0.02: 2,170 needed"
    )
    (enough,) = power_of(_rules({"metric": "recall_at_10", "largest_loss": 0.1}), _evaluation())
    assert str(enough).endswith("at 80% power; you ask for 0.1")


def test_it_is_what_the_gate_itself_goes_by():
    rules = _rules({"metric": "quality", "largest_loss": 0.1, "slice": "each"}, underpowered="allow")
    production = _evaluation()
    report = decide(rules, _evaluation(label="candidate"), production)
    powers = power_of(rules, production)
    assert [p.rule for p in powers] == ["quality on concept", "quality on limits"]
    assert [p.smallest_loss for p in powers] == [r.smallest_loss for r in report.results]


def test_more_questions_than_before_tell_more():
    rules = _rules({"metric": "quality", "slice": "limits", "largest_loss": 0.02})
    (before,) = power_of(rules, _evaluation())
    (after,) = power_of(rules, _evaluation(), _cases(800))
    assert (before.questions, after.questions) == (100, 400)
    assert after.smallest_loss == pytest.approx(before.smallest_loss / 2, rel=0.08)
    assert after.needed == pytest.approx(before.needed, rel=0.01)


def test_rules_that_do_not_compare_with_this_baseline_or_have_no_score_are_left_out():
    rules = _rules(
        {"metric": "quality", "minimum": 0.5},
        {"metric": "quality", "largest_loss": 0.1, "baseline": "keyword"},
        {"metric": "groundedness", "largest_loss": 0.1},
    )
    assert power_of(rules, _evaluation()) == ()
    assert [p.rule for p in power_of(rules, _evaluation(label=KEYWORD_BASELINE))] == ["quality"]


def test_what_rules_can_tell_is_logged_and_too_little_is_refused(caplog):
    rules = {"metric": "recall_at_10", "largest_loss": 0.02}
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(
            ConfigurationError, match=r"200 questions exclude only a loss of 0\.069.*2,170 are needed"
        ),
    ):
        require_power(power_of(_rules(rules), _evaluation()))
    assert "recall_at_10: 200 questions exclude a loss of 0.069" in caplog.text
    require_power(power_of(_rules(rules | {"underpowered": "allow"}), _evaluation()))
    require_power(power_of(_rules(rules, underpowered="allow"), _evaluation()))
    require_power(power_of(_rules(rules | {"largest_loss": 0.0}), _evaluation()))
