import dataclasses
import time

import numpy as np
import pytest
from pydantic import ValidationError

from llmops.errors import ConfigurationError, IntegrityError
from llmops.evaluation import KEYWORD_BASELINE, Case, Evaluation, GateRules, decide, digest_text
from llmops.evaluation._evaluate import CaseResult

_QUESTIONS = 200


def _evaluation(scores, *, label="candidate", metric="quality", errors=(), slice_name="concept"):
    results = []
    for number, score in enumerate(scores):
        case = Case(
            id=f"q{number:04}",
            question=f"Question {number}?",
            expected_documents=["guide:one"],
            facts=["A fact is a fact."],
            slice=slice_name,
        )
        failed = number in errors
        results.append(
            CaseResult.of(case, {} if failed else {metric: float(score)}, "broken" if failed else None)
        )
    return Evaluation(label, tuple(results))


def _rules(*rules, **settings):
    return GateRules(rules=rules, **{"underpowered": "allow", "resamples": 2_000, **settings})


def _loss(tolerance, **more):
    return {"metric": "quality", "largest_loss": tolerance, **more}


_BASE = np.tile([1.0, 0.0, 0.5, 1.0], _QUESTIONS // 4)
_PRODUCTION = _evaluation(_BASE, label="production")


def _changed(better=0, worse=0):
    """Return production's scores with that many questions answered better and worse."""
    scores = _BASE.copy()
    scores[np.flatnonzero(scores == 0)[:better]] = 1
    scores[np.flatnonzero(scores == 1)[:worse]] = 0
    return _evaluation(scores)


@pytest.mark.parametrize(
    ("candidate", "tolerance", "outcome", "verdict"),
    [
        (_changed(), 0.05, "pass", "PASS"),
        (_changed(), 0.0, "pass", "PASS"),
        (_changed(better=10, worse=10), 0.05, "pass", "PASS"),
        (_changed(better=40), 0.0, "pass", "PASS"),
        (_changed(worse=60), 0.05, "fail", "FAIL"),
        (_changed(better=10, worse=20), 0.05, "inconclusive", "INCOMPLETE"),
        (_changed(better=20, worse=20), 0.0, "inconclusive", "INCOMPLETE"),
    ],
)
def test_a_loss_is_excluded_shown_or_neither(candidate, tolerance, outcome, verdict):
    report = decide(_rules(_loss(tolerance)), candidate, _PRODUCTION)
    assert (report.results[0].outcome, report.verdict) == (outcome, verdict)


def test_a_loss_of_exactly_the_tolerance_on_every_question_does_not_pass():
    before = np.random.default_rng(0).gamma(4, 0.05, _QUESTIONS)
    base = _evaluation(before, label="production", metric="latency_seconds")
    slower = _evaluation(before + 0.25, metric="latency_seconds")
    rule = {"metric": "latency_p95_seconds", "largest_loss": 0.25}
    assert decide(_rules(rule), slower, base).results[0].outcome == "inconclusive"


def test_a_rise_is_a_loss_where_lower_is_better():
    generator = np.random.default_rng(0)
    before = generator.gamma(4, 0.05, _QUESTIONS)
    rule = {"metric": "latency_p95_seconds", "largest_loss": 0.1}

    def outcome(after):
        made = {"metric": "latency_seconds"}
        base = _evaluation(before, label="production", **made)
        return decide(_rules(rule), _evaluation(after, **made), base).results[0].outcome

    assert [outcome(before), outcome(before / 3), outcome(before + 1)] == ["pass", "pass", "fail"]


@pytest.mark.parametrize(
    ("rule", "outcome"),
    [
        ({"minimum": 0.6}, "pass"),
        ({"minimum": 0.63}, "fail"),
        ({"maximum": 0.7}, "pass"),
        ({"maximum": 0.6}, "fail"),
        ({"minimum": 0.6, "maximum": 0.7}, "pass"),
        ({"minimum": 0.6, "slice": "how-to"}, "missing"),
        ({"minimum": 0.6, "slice": "concept"}, "pass"),
    ],
)
def test_limits_bound_the_measured_figure(rule, outcome):
    report = decide(_rules({"metric": "quality", **rule}), _changed(), None)
    assert report.results[0].outcome == outcome


def test_limit_and_loss_of_one_rule_must_both_hold():
    worse = _changed(worse=60)
    assert decide(_rules(_loss(0.5, minimum=0.6)), worse, _PRODUCTION).verdict == "FAIL"
    assert decide(_rules(_loss(0.05, minimum=0.1)), worse, _PRODUCTION).verdict == "FAIL"
    assert decide(_rules(_loss(0.5, minimum=0.1)), worse, _PRODUCTION).verdict == "PASS"


_PASS = {"metric": "quality", "minimum": 0.1}
_FAIL = {"metric": "quality", "minimum": 0.9, "slice": "concept"}
_MISSING = {"metric": "groundedness", "minimum": 0.1}
_UNSURE = _loss(0.05, slice="concept")


@pytest.mark.parametrize(
    ("rules", "verdict"),
    [
        ([_PASS], "PASS"),
        ([_FAIL], "FAIL"),
        ([_MISSING], "INCOMPLETE"),
        ([_UNSURE], "INCOMPLETE"),
        ([_UNSURE | {"inconclusive": "allow"}], "PASS"),
        ([_PASS, _FAIL], "FAIL"),
        ([_PASS, _MISSING], "INCOMPLETE"),
        ([_PASS, _UNSURE], "INCOMPLETE"),
        ([_MISSING, _UNSURE], "INCOMPLETE"),
        ([_FAIL, _MISSING], "FAIL"),
        ([_PASS, _UNSURE | {"inconclusive": "allow"}], "PASS"),
        ([_MISSING, _UNSURE | {"inconclusive": "allow"}], "INCOMPLETE"),
        ([_FAIL, _MISSING, _PASS], "FAIL"),
    ],
)
def test_verdict_follows_from_the_outcomes(rules, verdict):
    candidate = _changed(better=10, worse=20)
    assert decide(_rules(*rules), candidate, _PRODUCTION).verdict == verdict
    assert decide(_rules(*rules[::-1]), candidate, _PRODUCTION).verdict == verdict


@pytest.mark.parametrize("side", ["candidate", "production"])
def test_one_unmeasured_question_makes_a_comparison_missing(side):
    broken = {"errors": (3,)}
    candidate = _evaluation(_BASE, **(broken if side == "candidate" else {}))
    production = _evaluation(_BASE, label="production", **(broken if side == "production" else {}))
    report = decide(_rules(_loss(0.05)), candidate, production)
    assert (report.verdict, report.results[0].outcome) == ("INCOMPLETE", "missing")
    assert f"1 of 200 questions were not measured ({side})" in report.results[0].reason


def test_the_share_of_missing_questions_can_be_declared():
    candidate = _evaluation(_BASE, errors=(3,))
    assert decide(_rules(_PASS, largest_missing_share=0.01), candidate, None).verdict == "PASS"
    assert decide(_rules(_PASS, largest_missing_share=0.001), candidate, None).verdict == "INCOMPLETE"


def test_an_evaluation_in_which_everything_failed_is_incomplete():
    broken = _evaluation(_BASE, errors=range(_QUESTIONS))
    assert decide(_rules(_PASS, largest_missing_share=0.2), broken, _PRODUCTION).verdict == "INCOMPLETE"


def test_a_loss_without_any_baseline_is_missing():
    report = decide(_rules(_loss(0.05)), _changed(), None)
    assert (report.verdict, report.results[0].reason) == (
        "INCOMPLETE",
        "there is no baseline to compare with",
    )


def test_rules_apply_to_the_baseline_they_name():
    keyword = _evaluation(_BASE, label=KEYWORD_BASELINE)
    worse = _changed(worse=60)
    only_keyword, only_production = _loss(0.05, baseline="keyword"), _loss(0.05, baseline="production")
    assert decide(_rules(_PASS, only_keyword), worse, keyword).verdict == "FAIL"
    assert decide(_rules(_PASS, only_keyword), worse, _PRODUCTION).verdict == "PASS"
    assert decide(_rules(_PASS, only_production), worse, _PRODUCTION).verdict == "FAIL"
    skipping = decide(_rules(_PASS, only_production), worse, keyword)
    assert skipping.verdict == "PASS"
    assert skipping.content["skipped"] == ["quality"]
    assert "another baseline: quality" in skipping.markdown()


def test_a_gate_of_which_no_rule_applies_is_incomplete():
    assert decide(_rules(_loss(0.05, baseline="keyword")), _changed(), _PRODUCTION).verdict == "INCOMPLETE"


def test_limits_hold_also_when_the_comparison_is_for_another_baseline():
    rule = _loss(0.05, baseline="keyword", minimum=0.9)
    assert decide(_rules(rule), _changed(), _PRODUCTION).verdict == "FAIL"


def test_sides_that_were_asked_different_questions_are_refused():
    with pytest.raises(IntegrityError, match="same cases"):
        decide(_rules(_PASS), _changed(), _evaluation(_BASE[:10], label="production"))


def test_a_tolerance_that_the_questions_cannot_exclude_is_refused_unless_allowed():
    rule = _loss(0.02)
    with pytest.raises(
        ConfigurationError, match=r"200 questions exclude only a loss of 0\.078 .*2,\d+ are needed"
    ):
        decide(_rules(rule, underpowered="refuse"), _changed(), _PRODUCTION)
    assert decide(_rules(rule, underpowered="allow"), _changed(), _PRODUCTION).verdict == "PASS"
    allowed = _rules(rule | {"underpowered": "allow"}, underpowered="refuse")
    report = decide(allowed, _changed(), _PRODUCTION)
    assert report.results[0].smallest_loss == pytest.approx(0.078, abs=0.001)
    assert "quality: 0.078 on 200 questions" in report.markdown()


def test_a_tolerance_that_the_questions_can_exclude_is_accepted():
    assert decide(_rules(_loss(0.08), underpowered="refuse"), _changed(), _PRODUCTION).verdict == "PASS"


def test_zero_tolerance_asks_for_no_power():
    assert decide(_rules(_loss(0.0), underpowered="refuse"), _changed(), _PRODUCTION).verdict == "PASS"


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ([], "at least 1"),
        ([{"metric": "quality"}], "needs a minimum"),
        ([{"metric": "qualty", "minimum": 0}], "no such metric"),
        ([{"metric": "quality", "minimun": 0}], "minimun"),
        ([{"metric": "quality", "minimum": 0.5, "maximum": 0.4}], "above maximum"),
        ([{"metric": "quality", "minimum": 0.5, "baseline": "keyword"}], "largest_loss"),
        ([{"metric": "quality", "largest_loss": -0.1}], "greater than or equal"),
        ([{"metric": "recall_at_10", "minimum": 0.5, "slice": "unanswerable"}], "does not apply"),
        ([{"metric": "quality", "minimum": 0.5, "slice": "howto"}], "slice"),
        ([{"metric": "quality", "minimum": 0.5}, {"metric": "quality", "minimum": 0.6}], "two rules"),
    ],
)
def test_wrong_rules_are_refused_when_they_are_loaded(rules, says):
    with pytest.raises(ValidationError, match=says):
        GateRules(rules=rules)


@pytest.mark.parametrize("setting", ["enabled", "disabled", "skip"])
def test_a_gate_cannot_be_switched_off(setting):
    with pytest.raises(ValidationError, match=setting):
        GateRules(rules=[_PASS], **{setting: True})


def test_the_same_inputs_give_the_same_report_whatever_the_order_of_rules():
    candidate = _changed(better=10, worse=20)
    one = decide(_rules(_UNSURE, _PASS), candidate, _PRODUCTION)
    assert one.report_hash == decide(_rules(_UNSURE, _PASS), candidate, _PRODUCTION).report_hash
    other = decide(_rules(_PASS, _UNSURE), candidate, _PRODUCTION)
    assert set(one.results) == set(other.results)


def test_an_equal_candidate_is_rarely_blocked_and_a_worse_one_rarely_passes():
    equal_blocked = worse_passed = 0
    rules = _rules(_loss(0.08), resamples=1_000)
    for seed in range(100):
        generator = np.random.default_rng(seed)
        base = (generator.random(_QUESTIONS) < 0.6).astype(float)
        noise = generator.random(_QUESTIONS)
        equal = np.where(noise < 0.2, generator.permutation(base), base)
        worse = np.where((base == 1) & (noise < 0.08 / 0.6), 0.0, base)
        production = _evaluation(base, label="production")
        equal_blocked += decide(rules, _evaluation(equal), production).verdict != "PASS"
        worse_passed += decide(rules, _evaluation(worse), production).verdict == "PASS"
    assert equal_blocked / 100 < 0.1
    assert worse_passed / 100 < 0.1


def test_a_thousand_questions_take_a_moment_only():
    generator = np.random.default_rng(0)
    base = generator.random(1_000)
    started = time.perf_counter()
    other = _evaluation(generator.permutation(base), label="production")
    decide(_rules(_loss(0.05), resamples=10_000), _evaluation(base), other)
    assert time.perf_counter() - started < 10


def test_one_loss_among_many_comparisons_must_be_significant_beside_them_all():
    """Alone the loss fails; beside five comparisons that find nothing it may be chance."""
    scores = _BASE.copy()
    scores[np.flatnonzero(scores == 1)[:17]] = 0
    scores[np.flatnonzero(scores == 0)[:2]] = 1

    def sides(*metrics):
        """Return both sides with the loss in ``quality`` and nothing changed in ``metrics``."""
        found = []
        for label, quality in (("candidate", scores), ("production", _BASE)):
            one = _evaluation(quality, label=label)
            results = [
                dataclasses.replace(r, scores={**r.scores, **dict.fromkeys(metrics, float(n % 2))})
                for n, r in enumerate(one.results)
            ]
            found.append(Evaluation(label, tuple(results)))
        return found

    others = ("recall_at_10", "ndcg_at_10", "mrr_at_10", "facts_covered", "groundedness")
    quality = _loss(0.03)
    alone = decide(_rules(quality), *sides())
    assert (alone.verdict, alone.results[0].outcome) == ("FAIL", "fail")
    beside = [{"metric": name, "largest_loss": 0.05} for name in others]
    together = decide(_rules(quality, *beside), *sides(*others))
    found = together.results[0]
    assert (together.verdict, found.outcome) == ("INCOMPLETE", "inconclusive")
    assert found.p_value < 0.05 < found.p_together
    assert "if looked at alone" in found.reason
    assert "one of 6 comparisons" in found.reason


def test_limits_fail_by_themselves_however_many_rules_there_are():
    many = [_loss(0.5, slice="concept"), {"metric": "quality", "minimum": 0.99}]
    assert decide(_rules(*many), _changed(worse=1), _PRODUCTION).verdict == "FAIL"


def test_a_dry_run_measures_everything_and_passes_nothing():
    wet = decide(_rules(_PASS, _UNSURE), _changed(), _PRODUCTION)
    dry = decide(_rules(_PASS, _UNSURE, dry_run=True), _changed(), _PRODUCTION)
    assert (wet.verdict, dry.verdict) == ("PASS", "INCOMPLETE")
    assert dry.results == wet.results
    assert dry.markdown().startswith("## INCOMPLETE: **this is a dry run**")
    assert "every rule passed, and even so this is not a pass" in dry.markdown().splitlines()[0]
    failing = decide(_rules(_FAIL, dry_run=True), _changed(), _PRODUCTION)
    assert failing.verdict == "FAIL"
    assert "see the rules below" in failing.markdown().splitlines()[0]


def _sliced(**scores):
    """Return an evaluation with that many questions of one score per slice."""
    parts = [_evaluation([score] * 40, slice_name=name.replace("_", "-")) for name, score in scores.items()]
    results = [
        dataclasses.replace(
            result, id=f"{result.slice}-{result.id}", digest=digest_text(f"{part}{result.id}")
        )
        for part, one in enumerate(parts)
        for result in one.results
    ]
    return Evaluation("candidate", tuple(results))


def test_a_rule_for_each_slice_decides_every_slice_that_was_asked_by_itself():
    rule = {"metric": "quality", "slice": "each", "minimum": 0.5}
    report = decide(_rules(rule), _sliced(concept=1.0, limits=0.25, how_to=0.75), None)
    assert report.verdict == "FAIL"
    assert {r.rule: r.outcome for r in report.results} == {
        "quality on how-to": "pass",
        "quality on concept": "pass",
        "quality on limits": "fail",
    }


def test_a_rule_for_each_slice_to_which_none_belongs_is_missing():
    rule = {"metric": "recall_at_10", "slice": "each", "minimum": 0.5}
    results = [dataclasses.replace(result, slice="unanswerable") for result in _PRODUCTION.results]
    report = decide(_rules(rule), Evaluation("candidate", tuple(results)), None)
    assert (report.verdict, report.results[0].outcome) == ("INCOMPLETE", "missing")
    assert "no question belongs to a slice" in report.results[0].reason


def test_a_slice_cannot_have_a_rule_of_its_own_beside_one_for_each():
    rules = [{"metric": "quality", "slice": name, "minimum": 0.5} for name in ("each", "limits")]
    with pytest.raises(ValidationError, match="two rules"):
        GateRules(rules=rules)


def _costs(costs, good, label="candidate", unpriced=()):
    plain = _evaluation(good, label=label)
    results = [
        dataclasses.replace(
            result,
            scores={"good": float(good[n])} | ({} if n in unpriced else {"cost": float(costs[n])}),
            missing=("cost",) if n in unpriced else (),
        )
        for n, result in enumerate(plain.results)
    ]
    return Evaluation(label, tuple(results))


_GOOD = np.tile([1.0, 0.0], _QUESTIONS // 2)
_PRICE = np.random.default_rng(3).gamma(8, 0.001, _QUESTIONS)


def test_costs_are_per_answer_and_per_good_answer():
    report = decide(_rules({"metric": "cost_per_good_answer", "maximum": 1}), _costs(_PRICE, _GOOD), None)
    figures = {f["metric"]: f["candidate"] for f in report.content["figures"] if f["slice"] is None}
    assert figures["cost_per_answer"] == pytest.approx(_PRICE.mean())
    assert figures["cost_per_good_answer"] == pytest.approx(_PRICE.mean() * 2)


@pytest.mark.parametrize("metric", ["cost_per_answer", "cost_per_good_answer"])
def test_a_dearer_candidate_fails_and_one_as_dear_passes(metric):
    rule = {"metric": metric, "largest_loss": 0.004}
    before = _costs(_PRICE, _GOOD, label="production")

    def outcome(factor):
        return decide(_rules(rule), _costs(_PRICE * factor, _GOOD), before).results[0].outcome

    assert [outcome(1.0), outcome(1.1), outcome(2.5)] == ["pass", "pass", "fail"]


def test_good_answers_that_become_fewer_make_each_of_them_dearer():
    fewer = _GOOD.copy()
    fewer[:160] = 0
    rule = {"metric": "cost_per_good_answer", "largest_loss": 0.004}
    report = decide(_rules(rule), _costs(_PRICE, fewer), _costs(_PRICE, _GOOD, label="production"))
    assert report.verdict == "FAIL"


def test_without_any_good_answer_their_cost_fails_with_that_reason():
    none = np.zeros(_QUESTIONS)
    for rule in ({"maximum": 1}, {"largest_loss": 0.004}):
        report = decide(
            _rules({"metric": "cost_per_good_answer", **rule}),
            _costs(_PRICE, none),
            _costs(_PRICE, _GOOD, label="production"),
        )
        assert report.verdict == "FAIL"
        assert "no good answer at all to 200 questions" in report.results[0].reason
    behind = decide(
        _rules({"metric": "cost_per_good_answer", "largest_loss": 0.004}),
        _costs(_PRICE, _GOOD),
        _costs(_PRICE, none, label="production"),
    )
    assert (behind.verdict, behind.results[0].outcome) == ("INCOMPLETE", "missing")


def test_a_cost_that_nobody_knows_is_missing_and_never_0():
    rule = {"metric": "cost_per_answer", "maximum": 1}
    unknown = decide(_rules(rule), _costs(_PRICE, _GOOD, unpriced=range(_QUESTIONS)), None)
    assert (unknown.verdict, unknown.results[0].candidate) == ("INCOMPLETE", None)
    one = decide(_rules(rule), _costs(_PRICE, _GOOD, unpriced=(7,)), None)
    assert (one.verdict, one.results[0].outcome) == ("INCOMPLETE", "missing")
    assert "1 of 200 questions were not measured (candidate)" in one.results[0].reason
