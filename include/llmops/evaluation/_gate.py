"""The gate: rules that a person wrote, each decided on its own, and one verdict."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from llmops.errors import IntegrityError
from llmops.evaluation._checks import Check
from llmops.evaluation._evaluate import Evaluation
from llmops.evaluation._power import RulePower, power_of_rule, require_power
from llmops.evaluation._report import DIGITS, GateReport, Outcome, RuleResult, Verdict, make_report, rounded
from llmops.evaluation._rules import GateRules, Rule
from llmops.evaluation._statistics import Floats, derive_seed, excludes, holm, loss_p_value, paired_bootstrap

__all__ = ["decide"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Comparison:
    """Everything one rule is decided on."""

    rule: Rule
    gate: GateRules
    candidate: Evaluation
    baseline: Evaluation | None

    @property
    def applies(self) -> bool:
        """Return whether the rule has something to say with the baseline at hand."""
        return self.compares or self.rule.limited

    @property
    def compares(self) -> bool:
        """Return whether the rule's comparison is for the baseline at hand."""
        kind = self.baseline.kind if self.baseline else None
        return self.rule.largest_loss is not None and (kind is None or self.rule.baseline in (None, kind))

    @cached_property
    def pairs(self) -> tuple[Floats, Floats]:
        """Return the scores of all questions that both sides have them for."""
        assert self.baseline is not None
        metric = self.rule.metric
        shared = self.candidate.scored(metric, self.rule.of_slice)
        shared = shared & self.baseline.scored(metric, self.rule.of_slice)
        return self.candidate.values(metric)[shared], self.baseline.values(metric)[shared]

    @property
    def seed(self) -> int:
        """Return the seed of this rule's own bootstrap."""
        return derive_seed(self.gate.seed, self.rule.metric, self.rule.slice)


@dataclass(frozen=True)
class _Draft:
    """A rule before all comparisons are looked at together: decided, or with the p-value of its loss."""

    comparison: _Comparison
    result: RuleResult
    power: RulePower | None = None

    @property
    def compared(self) -> bool:
        """Return whether the outcome still depends on what all comparisons say together."""
        return self.power is not None


def decide(
    rules: GateRules,
    candidate: Evaluation,
    baseline: Evaluation | None,
    *,
    context: Mapping[str, Any] | None = None,
    checks: Sequence[Check] = (),
) -> GateReport:
    """Return the report with the verdict on a candidate.

    ``baseline`` is production's evaluation on the same cases, or, when there is no production release yet,
    one labelled ``KEYWORD_BASELINE``. ``context`` (ids, digests, table versions) is kept in the report.
    ``checks`` are rules about the release itself. Any rule that fails makes FAIL; else any that is missing or
    (unless it allows that) inconclusive makes INCOMPLETE; else the verdict is PASS. A loss fails only when it is
    significant together with those of all
    other rules that compare (Holm); limits fail by themselves. Raises ConfigurationError for a tolerance that
    the questions at hand cannot exclude, and IntegrityError when the sides were asked different questions.
    """
    if baseline is not None and baseline.digest != candidate.digest:
        raise IntegrityError(
            f"{candidate.label!r} was evaluated on cases {candidate.digest[:12]}, "
            f"{baseline.kind} {baseline.label!r} on {baseline.digest[:12]}: "
            "evaluate both on the same cases"
        )
    present = {result.slice for result in candidate.results}
    expanded = [one for rule in rules.rules for one in rule.expanded(present)]
    comparisons = [_Comparison(rule, rules, candidate, baseline) for rule in expanded]
    applied = [comparison for comparison in comparisons if comparison.applies]
    drafts = [_draft(comparison) for comparison in applied]
    require_power(draft.power for draft in drafts if draft.power is not None)
    results = _together(rules, drafts)
    checked = [check.result() for check in checks]
    verdict = _verdict(rules, applied, results, checked)
    skipped = [c.rule.name for c in comparisons if not c.applies]
    report = make_report(
        verdict, [*results, *checked], skipped, rules, (candidate, baseline), context or {},
        [check.to_json() for check in checks],
    )  # fmt: skip
    log.info("gate on %s: %s, report %s", candidate.label, verdict, report.report_hash)
    return report


def _verdict(
    rules: GateRules,
    applied: Sequence[_Comparison],
    results: Sequence[RuleResult],
    checked: Sequence[RuleResult],
) -> Verdict:
    outcomes: set[Outcome] = {result.outcome for result in checked}
    for comparison, result in zip(applied, results, strict=True):
        allowed = result.outcome == "inconclusive" and comparison.rule.inconclusive == "allow"
        outcomes.add("pass" if allowed else result.outcome)
    if "fail" in outcomes:
        return "FAIL"
    return "PASS" if outcomes == {"pass"} and not rules.dry_run else "INCOMPLETE"


def _draft(comparison: _Comparison) -> _Draft:
    rule, candidate = comparison.rule, comparison.candidate
    baseline = comparison.baseline if comparison.compares else None
    scored = candidate.scored(rule.metric, rule.of_slice)
    result = RuleResult(
        rule=rule.name,
        metric=rule.metric,
        slice=rule.slice,
        outcome="pass",
        reason="",
        candidate=rounded(candidate.value(rule.metric, rule.of_slice)),
        baseline=rounded(baseline.value(rule.metric, rule.of_slice)) if baseline else None,
        questions=int(scored.sum()),
    )
    if (reason := _why_missing(comparison, result)) is not None:
        return _Draft(comparison, result.with_outcome("missing", reason))
    if result.candidate is None:
        reason = f"the candidate gave no good answer at all to {result.questions} questions"
        return _Draft(comparison, result.with_outcome("fail", reason))
    if comparison.compares:
        return _compare(comparison, result)
    return _Draft(comparison, result)


def _why_missing(comparison: _Comparison, result: RuleResult) -> str | None:
    rule, gate = comparison.rule, comparison.gate
    if rule.slice == "each":
        return f"no question belongs to a slice that {rule.metric} applies to"
    if not result.questions:
        return f"the candidate has no score for {rule.name}"
    sides = [("candidate", comparison.candidate)]
    if comparison.compares:
        if comparison.baseline is None:
            return "there is no baseline to compare with"
        if not len(comparison.pairs[0]):
            return "no question has a score on both sides"
        sides.append((comparison.baseline.kind, comparison.baseline))
    for side, evaluation in sides:
        missing = len(evaluation.missing(rule.metric, rule.of_slice))
        asked = missing + int(evaluation.scored(rule.metric, rule.of_slice).sum())
        if missing > gate.largest_missing_share * asked:
            return f"{missing} of {asked} questions were not measured ({side})"
    if comparison.compares and result.baseline is None:
        return "the baseline gave no good answer to compare with"
    return None


def _compare(comparison: _Comparison, result: RuleResult) -> _Draft:
    """Return the draft with interval, p-value and power.

    A loss is a fall of the metric, or a rise where lower is better.
    """
    rule, gate = comparison.rule, comparison.gate
    assert rule.largest_loss is not None
    ours, theirs = comparison.pairs
    found = paired_bootstrap(
        ours,
        theirs,
        statistic=rule.of.statistic,
        bounded=rule.of.bounded,
        resamples=gate.resamples,
        seed=comparison.seed,
    )
    interval = found.interval(gate.confidence)
    power = power_of_rule(gate, rule, theirs)
    drafted = result.compared(
        difference=round(interval.estimate, DIGITS),
        lower=round(interval.lower, DIGITS),
        upper=round(interval.upper, DIGITS),
        p_value=round(loss_p_value(found, rule.largest_loss, rule.of.higher_is_better), DIGITS),
        seed=comparison.seed,
        smallest_loss=power.smallest_loss,
        pairs=len(ours),
    )
    return _Draft(comparison, drafted, power)


def _together(rules: GateRules, drafts: Sequence[_Draft]) -> list[RuleResult]:
    """Return the outcome of every rule, the losses judged together."""
    p_values = [d.result.p_value for d in drafts if d.compared and d.result.p_value is not None]
    adjusted = iter(holm(p_values))
    results = []
    for draft in drafts:
        if draft.result.outcome != "pass":
            results.append(draft.result)
            continue
        result, rule = draft.result, draft.comparison.rule
        parts = [_check_limits(rule, result)] if rule.limited else []
        if draft.compared:
            result = result.adjusted(round(next(adjusted), DIGITS))
            parts.append(_check_loss(rules, rule, result, len(p_values)))
        results.append(_worst(result, parts))
    return results


def _worst(result: RuleResult, parts: Sequence[tuple[Outcome, str]]) -> RuleResult:
    worst: tuple[Outcome, ...] = ("fail", "inconclusive", "pass")
    outcome = next(one for one in worst if any(part[0] == one for part in parts))
    return result.with_outcome(outcome, "; ".join(text for was, text in parts if was == outcome))


def _check_limits(rule: Rule, result: RuleResult) -> tuple[Outcome, str]:
    assert result.candidate is not None
    unit = rule.of.unit
    if rule.minimum is not None and result.candidate < rule.minimum:
        return "fail", f"{result.candidate:.3f}{unit} is below the minimum {rule.minimum:g}"
    if rule.maximum is not None and result.candidate > rule.maximum:
        return "fail", f"{result.candidate:.3f}{unit} is above the maximum {rule.maximum:g}"
    bounds = [f"at least {rule.minimum:g}"] if rule.minimum is not None else []
    bounds += [f"at most {rule.maximum:g}"] if rule.maximum is not None else []
    return "pass", f"{result.candidate:.3f}{unit} is {' and '.join(bounds)}"


def _check_loss(gate: GateRules, rule: Rule, result: RuleResult, comparisons: int) -> tuple[Outcome, str]:
    tolerance, alpha = rule.largest_loss, 1 - gate.confidence
    assert result.difference is not None
    assert result.lower is not None
    assert result.upper is not None
    assert result.p_value is not None
    assert result.p_together is not None
    assert tolerance is not None
    change = f"{result.difference:+.3f} [{result.lower:+.3f}, {result.upper:+.3f}]{rule.of.unit}"
    largest = -result.lower if rule.of.higher_is_better else result.upper
    if excludes(largest, tolerance):
        return "pass", f"{change} excludes a loss above {tolerance:g}"
    if result.p_value > alpha:
        return (
            "inconclusive",
            f"{change} neither excludes nor shows a loss above {tolerance:g} on {result.pairs} questions",
        )
    if result.p_together > alpha:
        return (
            "inconclusive",
            f"{change} is a loss above {tolerance:g} if looked at alone (p = {result.p_value:.2g}), but "
            f"one of {comparisons} comparisons may look like that by chance (Holm: p = {result.p_together:.2g})",
        )
    return "fail", f"{change} is a loss above {tolerance:g}"
