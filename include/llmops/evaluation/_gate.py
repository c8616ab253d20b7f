"""The gate: rules that a person wrote, each decided on its own, and one verdict."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from llmops.errors import ConfigurationError, IntegrityError
from llmops.evaluation._cases import Slice
from llmops.evaluation._evaluate import Evaluation
from llmops.evaluation._report import GateReport, Outcome, RuleResult, Verdict, make_report
from llmops.evaluation._scorers import METRICS
from llmops.evaluation._statistics import (
    Floats,
    derive_seed,
    paired_bootstrap,
    questions_needed,
    smallest_excludable_loss,
    standard_error,
)
from llmops.manifest import content_hash
from llmops.settings import Section

__all__ = ["GateRules", "Rule", "decide"]

log = logging.getLogger(__name__)


class Rule(Section):
    """One demand on one metric, over all questions or one slice.

    ``minimum`` and ``maximum`` bound the measured figure itself. ``largest_loss`` is how much worse than the
    baseline, in the metric's own unit, the candidate may truly be: the rule passes when that much is excluded
    with the gate's confidence, fails when at least that much is certain, and is inconclusive in between.
    ``baseline`` names the only baseline that the comparison is for; by default it is made with whichever
    there is: production, or the keyword baseline before the first release.
    """

    metric: str
    slice: Slice | None = None
    minimum: float | None = None
    maximum: float | None = None
    largest_loss: Annotated[float | None, Field(ge=0)] = None
    baseline: Literal["production", "keyword"] | None = None
    inconclusive: Literal["block", "allow"] = "block"
    underpowered: Literal["refuse", "allow"] | None = None

    @field_validator("metric")
    @classmethod
    def _is_known(cls, metric: str) -> str:
        if metric not in METRICS:
            raise ValueError(f"no such metric; there are {', '.join(METRICS)}")
        return metric

    @model_validator(mode="after")
    def _demands_something(self) -> Rule:
        if self.minimum is None and self.maximum is None and self.largest_loss is None:
            raise ValueError("a rule needs a minimum, a maximum or a largest_loss")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError("minimum is above maximum")
        if self.baseline is not None and self.largest_loss is None:
            raise ValueError("baseline is for rules with a largest_loss")
        if METRICS[self.metric].answerable_only and self.slice == "unanswerable":
            raise ValueError(f"{self.metric} does not apply to unanswerable questions")
        return self

    @property
    def name(self) -> str:
        """Return what the rule is about, in a few words."""
        return self.metric + (f" on {self.slice}" if self.slice else "")


class GateRules(Section):
    """All rules of an assistant's gate; every one must pass on its own.

    ``confidence`` is that of each one-sided bound, ``resamples`` and ``seed`` belong to the bootstrap.
    ``underpowered: refuse`` refuses a ``largest_loss`` that the questions at hand cannot exclude with
    probability ``power`` even for an equally good candidate. ``largest_missing_share`` is the share of
    questions that may be missing from a metric; above it the rule is missing.
    """

    rules: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=100)]
    confidence: Annotated[float, Field(ge=0.8, le=0.999)] = 0.95
    power: Annotated[float, Field(ge=0.5, le=0.99)] = 0.8
    resamples: Annotated[int, Field(ge=1_000, le=100_000)] = 10_000
    seed: int = 20_260_101
    underpowered: Literal["refuse", "allow"] = "refuse"
    largest_missing_share: Annotated[float, Field(ge=0, le=0.2)] = 0.0

    @model_validator(mode="after")
    def _has_no_rule_twice(self) -> GateRules:
        keys = [(rule.metric, rule.slice, rule.baseline) for rule in self.rules]
        twice = {key[0] for key in keys if keys.count(key) > 1}
        if twice:
            raise ValueError(f"two rules for the same metric, slice and baseline: {', '.join(sorted(twice))}")
        return self

    @property
    def digest(self) -> str:
        """Return the sha-256 of all rules and settings, 64 hexadecimal digits."""
        return content_hash(self.model_dump(mode="json"))


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
        return self.compares or self.rule.minimum is not None or self.rule.maximum is not None

    @property
    def compares(self) -> bool:
        """Return whether the rule's comparison is for the baseline at hand."""
        kind = self.baseline.kind if self.baseline else None
        return self.rule.largest_loss is not None and (kind is None or self.rule.baseline in (None, kind))

    def pairs(self) -> tuple[Floats, Floats]:
        """Return the scores of all questions that both sides have one for."""
        assert self.baseline is not None
        ours = self.candidate.scores(self.rule.metric, self.rule.slice)
        theirs = self.baseline.scores(self.rule.metric, self.rule.slice)
        shared = sorted(ours.keys() & theirs.keys())
        return np.array([ours[i] for i in shared], float), np.array([theirs[i] for i in shared], float)

    @property
    def seed(self) -> int:
        """Return the seed of this rule's own bootstrap."""
        return derive_seed(self.gate.seed, self.rule.metric, self.rule.slice)


def decide(
    rules: GateRules,
    candidate: Evaluation,
    baseline: Evaluation | None,
    *,
    context: Mapping[str, str | int | None] | None = None,
) -> GateReport:
    """Return the report with the verdict on a candidate.

    ``baseline`` is production's evaluation on the same cases, or, when there is no production release yet,
    one labelled ``KEYWORD_BASELINE``. ``context`` (ids, digests, table versions) is kept in the report. Any
    rule that fails makes FAIL; else any that is missing or (unless it allows that) inconclusive makes
    INCOMPLETE; else the verdict is PASS. Raises ConfigurationError for a tolerance that the questions at hand
    cannot exclude, and IntegrityError when the two sides were asked different questions.
    """
    if baseline is not None and baseline.digest != candidate.digest:
        raise IntegrityError(
            f"{candidate.label!r} was evaluated on cases {candidate.digest[:12]}, "
            f"{baseline.kind} {baseline.label!r} on {baseline.digest[:12]}: "
            "evaluate both on the same cases"
        )
    comparisons = [_Comparison(rule, rules, candidate, baseline) for rule in rules.rules]
    applied = [comparison for comparison in comparisons if comparison.applies]
    results = [_decide_rule(comparison) for comparison in applied]
    verdict = _verdict(applied, results)
    skipped = [c.rule.name for c in comparisons if not c.applies]
    settings = {**rules.model_dump(mode="json"), "digest": rules.digest}
    report = make_report(verdict, results, skipped, settings, candidate, baseline, context or {})
    log.info("gate on %s: %s, report %s", candidate.label, verdict, report.report_hash)
    return report


def _verdict(applied: Sequence[_Comparison], results: Sequence[RuleResult]) -> Verdict:
    outcomes: set[Outcome] = set()
    for comparison, result in zip(applied, results, strict=True):
        allowed = result.outcome == "inconclusive" and comparison.rule.inconclusive == "allow"
        outcomes.add("pass" if allowed else result.outcome)
    if "fail" in outcomes:
        return "FAIL"
    return "PASS" if outcomes == {"pass"} else "INCOMPLETE"


def _decide_rule(comparison: _Comparison) -> RuleResult:
    rule, candidate = comparison.rule, comparison.candidate
    baseline = comparison.baseline if comparison.compares else None
    result = RuleResult(
        rule=rule.name,
        metric=rule.metric,
        slice=rule.slice,
        outcome="pass",
        reason="",
        candidate=candidate.value(rule.metric, rule.slice),
        baseline=baseline.value(rule.metric, rule.slice) if baseline else None,
        questions=len(candidate.scores(rule.metric, rule.slice)),
    )
    if (reason := _why_missing(comparison, result)) is not None:
        return result.with_outcome("missing", reason)
    limited = rule.minimum is not None or rule.maximum is not None
    parts = [_check_limits(rule, result)] if limited else []
    if comparison.compares:
        result = _compare(comparison, result)
        parts.append((result.outcome, result.reason))
    worst: tuple[Outcome, ...] = ("fail", "inconclusive")
    for outcome in worst:
        if any(part[0] == outcome for part in parts):
            return result.with_outcome(outcome, "; ".join(text for was, text in parts if was == outcome))
    return result.with_outcome("pass", "; ".join(text for _, text in parts))


def _why_missing(comparison: _Comparison, result: RuleResult) -> str | None:
    rule, gate = comparison.rule, comparison.gate
    if result.candidate is None:
        return f"the candidate has no score for {rule.name}"
    sides = [("candidate", comparison.candidate)]
    if comparison.compares:
        if comparison.baseline is None:
            return "there is no baseline to compare with"
        if not comparison.pairs()[0].size:
            return "no question has a score on both sides"
        sides.append((comparison.baseline.kind, comparison.baseline))
    for side, evaluation in sides:
        missing = len(evaluation.missing(rule.metric, rule.slice))
        asked = missing + len(evaluation.scores(rule.metric, rule.slice))
        if missing > gate.largest_missing_share * asked:
            return f"{missing} of {asked} questions were not measured ({side})"
    return None


def _check_limits(rule: Rule, result: RuleResult) -> tuple[Outcome, str]:
    assert result.candidate is not None
    unit = METRICS[rule.metric].unit
    if rule.minimum is not None and result.candidate < rule.minimum:
        return "fail", f"{result.candidate:.3f}{unit} is below the minimum {rule.minimum:g}"
    if rule.maximum is not None and result.candidate > rule.maximum:
        return "fail", f"{result.candidate:.3f}{unit} is above the maximum {rule.maximum:g}"
    bounds = [f"at least {rule.minimum:g}"] if rule.minimum is not None else []
    bounds += [f"at most {rule.maximum:g}"] if rule.maximum is not None else []
    return "pass", f"{result.candidate:.3f}{unit} is {' and '.join(bounds)}"


def _compare(comparison: _Comparison, result: RuleResult) -> RuleResult:
    """Return the result with interval and power, decided by the loss alone.

    A loss is a fall of the metric, or a rise where lower is better.
    """
    rule, gate = comparison.rule, comparison.gate
    tolerance = rule.largest_loss
    assert tolerance is not None
    ours, theirs = comparison.pairs()
    smallest = _smallest_loss(comparison, theirs)
    metric = METRICS[rule.metric]
    difference = paired_bootstrap(
        ours,
        theirs,
        statistic=metric.statistic,
        confidence=gate.confidence,
        resamples=gate.resamples,
        seed=comparison.seed,
    )
    sign = 1 if metric.higher_is_better else -1
    lower, upper = sorted((sign * difference.lower, sign * difference.upper))
    change = f"{difference.estimate:+.3f} [{difference.lower:+.3f}, {difference.upper:+.3f}]{metric.unit}"
    outcome: Outcome
    if lower >= -tolerance:
        outcome, reason = "pass", f"{change} excludes a loss above {tolerance:g}"
    elif upper < -tolerance:
        outcome, reason = "fail", f"{change} is a loss above {tolerance:g}"
    else:
        outcome = "inconclusive"
        reason = f"{change} neither excludes nor shows a loss above {tolerance:g} on {len(ours)} questions"
    return result.compared(outcome, reason, difference, comparison.seed, smallest, len(ours))


def _smallest_loss(comparison: _Comparison, theirs: Floats) -> float:
    """Return the smallest loss that the questions can exclude; refuse a tolerance below it.

    A tolerance of 0 asks for a candidate that is shown to be no worse at all. No number of questions lets
    an equal one pass that reliably, so its power is stated and not checked.
    """
    rule, gate = comparison.rule, comparison.gate
    metric = METRICS[rule.metric]
    error = standard_error(
        theirs, statistic=metric.statistic, resamples=min(gate.resamples, 2_000), seed=comparison.seed
    )
    bounded, count = metric.statistic == "mean", len(theirs)
    smallest = smallest_excludable_loss(
        error, count, confidence=gate.confidence, power=gate.power, bounded=bounded
    )
    log.info("gate rule %s: %d questions exclude a loss of %.3f", rule.name, count, smallest)
    tolerance = rule.largest_loss or 0.0
    allowed = (rule.underpowered or gate.underpowered) == "allow"
    if 0 < tolerance < smallest and not allowed:
        needed = questions_needed(
            error, count, tolerance, confidence=gate.confidence, power=gate.power, bounded=bounded
        )
        raise ConfigurationError(
            f"the gate rule {rule.name!r} tolerates a loss of {tolerance:g}, but {count} questions exclude "
            f"only a loss of {smallest:.3f} at {gate.power:.0%} power: raise largest_loss, add questions "
            f"({needed:,} are needed), or write `underpowered: allow` beside the rule"
        )
    return smallest
