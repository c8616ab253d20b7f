"""The gate tried on candidates whose worth is known: equal ones, and ones made worse by exactly a tolerance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from llmops.evaluation._evaluate import Evaluation
from llmops.evaluation._power import power_of_rule
from llmops.evaluation._report import DIGITS
from llmops.evaluation._rules import GateRules, Rule
from llmops.evaluation._statistics import (
    LEAST_DIVISOR,
    Bootstrap,
    Floats,
    derive_seed,
    excludes,
    holm,
    loss_p_value,
    paired_bootstrap,
)

__all__ = ["Rate", "RuleTrial", "SelfTest", "self_test"]

_KEEP = math.sqrt(0.5)
"""Chance that a side answers a question as it was reported, else as any other: two sides correlate by one half."""

_RESAMPLES = 1_000


@dataclass(frozen=True)
class Rate:
    """How often something happened in ``runs``, with a 95 % interval, beside the most that is declared.

    The interval is Wilson's (Probable inference, JASA 1927). ``declared`` is None where nothing is promised.
    """

    count: int
    runs: int
    declared: float | None

    @property
    def value(self) -> float:
        """Return the rate."""
        return self.count / self.runs

    @property
    def interval(self) -> tuple[float, float]:
        """Return the bounds of the true rate."""
        z = NormalDist().inv_cdf(0.975)
        middle = (self.count + z**2 / 2) / (self.runs + z**2)
        share = self.value * (1 - self.value) / self.runs + z**2 / (4 * self.runs**2)
        reach = z * math.sqrt(share) / (1 + z**2 / self.runs)
        return max(0.0, middle - reach), min(1.0, middle + reach)

    @property
    def holds(self) -> bool:
        """Return whether the true rate may be as low as declared."""
        return self.declared is None or self.interval[0] <= self.declared


@dataclass(frozen=True)
class RuleTrial:
    """One rule on simulated pairs: how often it blocked an equal candidate and passed one that is worse."""

    rule: str
    tolerance: float
    questions: int
    blocked: Rate
    passed: Rate

    @property
    def holds(self) -> bool:
        """Return whether both rates are what the file declares."""
        return self.blocked.holds and self.passed.holds


@dataclass(frozen=True)
class SelfTest:
    """All rules that compare, and how often they failed an equal candidate together.

    ``left_out`` says why a rule could not be tried.
    """

    trials: tuple[RuleTrial, ...]
    failed: Rate
    left_out: tuple[str, ...]

    @property
    def tells(self) -> bool:
        """Return whether any rule has the power to tell an equal candidate from a worse one."""
        return any(trial.blocked.declared is not None for trial in self.trials)

    @property
    def holds(self) -> bool:
        """Return whether every rate is what the file declares, and there is one that says something."""
        return self.tells and self.failed.holds and all(trial.holds for trial in self.trials)


def self_test(
    rules: GateRules, evaluation: Evaluation, *, runs: int = 1_000, seed: int = 0, worse: bool = False
) -> SelfTest:
    """Return how the gate decides on simulated pairs whose truth is known, from the scores of one evaluation.

    In each run questions are drawn anew, and each side answers each of them as was reported or, with noise, as
    any other: both are equally good, their scores correlate by one half as the gate's power assumes, and a
    generator that always says the same is no exception. The worse candidate then loses each rule's tolerance
    exactly. With ``worse`` the candidate that should pass is made worse too, so that the test must not hold.
    """
    trials, left_out, p_values = [], [], []
    present = {result.slice for result in evaluation.results}
    for rule in (one for written in rules.rules for one in written.expanded(present)):
        if rule.largest_loss is None:
            continue
        scores = evaluation.values(rule.metric)[evaluation.scored(rule.metric, rule.of_slice)]
        if (reason := _why_not(rule, scores)) is not None:
            left_out.append(f"{rule.name}: {reason}")
            continue
        generator = np.random.default_rng(derive_seed(seed, rule.metric, rule.slice, rule.baseline))
        trial, found = _try(rules, rule, scores, runs, generator, worse=worse)
        trials.append(trial)
        p_values.append(found)
    failed = sum(min(holm(row)) <= 1 - rules.confidence for row in zip(*p_values, strict=True))
    rate = Rate(failed, runs, 1 - rules.confidence)
    return SelfTest(tuple(trials), rate, tuple(left_out))


def _why_not(rule: Rule, scores: Floats) -> str | None:
    if len(scores) < 2:
        return f"the report has {len(scores)} scores"
    if rule.of.statistic == "ratio" and not scores[:, 1].any():
        return "the report has no good answer"
    if rule.of.bounded and scores.mean() <= (rule.largest_loss or 0):
        return f"no candidate can lose {rule.largest_loss:g} of {scores.mean():.3g}"
    return None


def _try(
    rules: GateRules,
    rule: Rule,
    scores: Floats,
    runs: int,
    generator: np.random.Generator,
    *,
    worse: bool,
) -> tuple[RuleTrial, list[float]]:
    """Return the trial of one rule, and the p-value of a loss of the candidate that should pass in each run."""
    blocked = passed = 0
    p_values = []
    for _ in range(runs):
        drawn = generator.integers(0, len(scores), len(scores))
        baseline, equal = (_noisy(scores, drawn, generator) for _ in range(2))
        spoilt = _spoilt(rule, scores, equal, generator)
        seed = int(generator.integers(2**63))
        first = _bootstrap(rules, rule, spoilt if worse else equal, baseline, seed)
        blocked += not _excludes(rules, rule, first)
        p_values.append(loss_p_value(first, rule.largest_loss or 0.0, rule.of.higher_is_better))
        passed += _excludes(rules, rule, _bootstrap(rules, rule, spoilt, baseline, seed))
    power = power_of_rule(rules, rule, scores)
    declared = 1 - rules.power if rule.largest_loss and power.enough else None
    trial = RuleTrial(
        rule.name,
        rule.largest_loss or 0.0,
        len(scores),
        Rate(blocked, runs, declared),
        Rate(passed, runs, 1 - rules.confidence),
    )
    return trial, p_values


def _noisy(scores: Floats, drawn: npt.NDArray[np.int64], generator: np.random.Generator) -> Floats:
    """Return one side's scores on the drawn questions; their distribution is that of all scores."""
    others = generator.integers(0, len(scores), len(scores))
    return scores[np.where(generator.random(len(scores)) < _KEEP, drawn, others)]


def _spoilt(rule: Rule, scores: Floats, equal: Floats, generator: np.random.Generator) -> Floats:
    """Return scores that are truly worse by the rule's tolerance.

    Scores between 0 and 1 become 0 as often as that takes; seconds and costs rise by as much on every question.
    """
    tolerance, spoilt = rule.largest_loss or 0.0, equal.copy()
    if rule.of.bounded:
        spoilt[generator.random(len(equal)) < tolerance / scores[:, 0].mean(), 0] = 0.0
        return spoilt
    per = max(scores[:, 1].mean(), LEAST_DIVISOR / len(scores)) if rule.of.statistic == "ratio" else 1.0
    spoilt[:, 0] += tolerance * per
    return spoilt


def _bootstrap(rules: GateRules, rule: Rule, candidate: Floats, baseline: Floats, seed: int) -> Bootstrap:
    return paired_bootstrap(
        candidate,
        baseline,
        statistic=rule.of.statistic,
        bounded=rule.of.bounded,
        resamples=min(rules.resamples, _RESAMPLES),
        seed=seed,
    )


def _excludes(rules: GateRules, rule: Rule, found: Bootstrap) -> bool:
    """Return whether the loss that the rule tolerates is excluded, as the gate decides it."""
    interval = found.interval(rules.confidence)
    largest = round(-interval.lower if rule.of.higher_is_better else interval.upper, DIGITS)
    return excludes(largest, rule.largest_loss or 0.0)
