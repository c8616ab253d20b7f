"""A report alone is enough to decide again, and what was changed in it shows."""

import copy
import json

import numpy as np
import pytest

from llmops.errors import IntegrityError
from llmops.evaluation import Case, Evaluation, GateReport, GateRules, decide, replay
from llmops.evaluation._evaluate import CaseResult
from llmops.manifest import canonical_json

_RULES = GateRules(
    rules=[
        {"metric": "quality", "largest_loss": 0.05, "minimum": 0.1},
        {"metric": "quality", "largest_loss": 0.2, "baseline": "production"},
        {"metric": "recall_at_10", "slice": "each", "largest_loss": 0.3},
        {"metric": "latency_p95_seconds", "largest_loss": 1},
        {"metric": "cost_per_good_answer", "largest_loss": 2},
        {"metric": "groundedness", "minimum": 0.5},
    ],
    underpowered="allow",
    resamples=1_000,
)


def _evaluation(label, seed):
    generator = np.random.default_rng(seed)
    results = []
    for n in range(40):
        case = Case(
            id=f"q{n:02}",
            question=f"Question {n}?",
            expected_documents=["guide:one"],
            slice=("how-to", "concept")[n % 2],
        )
        quality, recall, latency, cost = generator.random(4)
        scores = {"quality": quality, "recall_at_10": recall, "latency_seconds": latency}
        scores |= {"good": float(quality >= 0.5), "cost": cost}
        results.append(CaseResult.of(case, scores, output=f"{n:064x}"))
    return Evaluation(label, tuple(results), {"0" * 64: "a text"})


def _report():
    report = decide(
        _RULES, _evaluation("candidate", 1), _evaluation("production", 2), context={"code_digest": "c" * 64}
    )
    return GateReport.parse(report.json(), report.report_hash)


def _changed(change):
    content = copy.deepcopy(_report().content)
    change(content)
    return GateReport(json.loads(canonical_json(content)))


def test_a_report_comes_out_again_from_itself_alone():
    report = _report()
    found = replay(report)
    assert found.equal
    assert found.again.json() == report.json()
    assert [rule.rule for rule in found.rules] == [r.rule for r in report.results]
    assert not found.differences
    assert all(rule.differences == () for rule in found.rules)


def test_a_verdict_that_does_not_follow_shows():
    found = replay(_changed(lambda content: content.update(verdict="PASS")))
    assert not found.equal
    assert found.differences == ("verdict: 'PASS' → 'INCOMPLETE'",)


def test_a_changed_score_shows_in_the_rules_that_it_belongs_to():
    def change(content):
        content["results"][0]["candidate"]["scores"]["recall_at_10"] = 0.0

    found = replay(_changed(change))
    assert not found.equal
    assert [rule.rule for rule in found.rules if rule.differences] == ["recall_at_10 on how-to"]


def test_a_changed_outcome_a_dropped_rule_and_another_seed_show():
    def soften(content):
        content["outcomes"][-1].update(outcome="pass", reason="")

    def drop(content):
        content["outcomes"].pop()

    def reseed(content):
        content["gate"]["seed"] = 1

    assert replay(_changed(soften)).rules[-1].differences[0] == "outcome: 'pass' → 'missing'"
    assert replay(_changed(drop)).rules[-1].differences == ("only in the replay",)
    reseeded = replay(_changed(reseed))
    assert all(rule.differences for rule in reseeded.rules if rule.reported.seed is not None)


def test_another_case_digest_shows():
    def change(content):
        content["results"][3]["case"] = "f" * 64

    assert any(line.startswith("cases: ") for line in replay(_changed(change)).differences)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda content: content.update(schema_version=1), "has the layout 1"),
        (lambda content: content["gate"].update(rules=[]), "cannot be decided again"),
        (lambda content: content.pop("results"), "cannot be decided again"),
        (lambda content: content["gate"].update(underpowered="refuse"), "questions exclude only"),
    ],
)
def test_what_no_gate_could_have_decided_on_is_named(change, says):
    with pytest.raises(IntegrityError, match=says):
        replay(_changed(change))
