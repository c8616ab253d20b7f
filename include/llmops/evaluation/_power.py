"""What the questions at hand can tell, said before anything is asked."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llmops.errors import ConfigurationError
from llmops.evaluation._cases import Case
from llmops.evaluation._evaluate import Evaluation
from llmops.evaluation._rules import GateRules, Rule
from llmops.evaluation._statistics import (
    Floats,
    derive_seed,
    questions_needed,
    smallest_excludable_loss,
    standard_error,
)

__all__ = ["RulePower", "power_of", "power_of_rule", "require_power"]

log = logging.getLogger(__name__)

_RESAMPLES = 2_000
_DIGITS = 10


@dataclass(frozen=True)
class RulePower:
    """The smallest loss that some number of questions excludes, beside the loss that a rule tolerates.

    ``needed`` is how many questions would do, None for a tolerance of 0: that asks for a candidate which is
    shown to be no worse at all, and no number of questions lets an equal one pass that reliably. ``allowed``
    says that the file allows a rule that asks for more than the questions can tell.
    """

    rule: str
    questions: int
    smallest_loss: float
    tolerance: float
    needed: int | None
    power: float
    allowed: bool = False

    @property
    def enough(self) -> bool:
        """Return whether an equally good candidate passes with the gate's power; a tolerance of 0 is not checked."""
        return self.needed is None or self.tolerance >= self.smallest_loss

    def __str__(self) -> str:
        """Return one sentence for the person who wrote the rule."""
        needed = "" if self.enough else f": {self.needed:,} needed"
        return (
            f"{self.rule}: {self.questions:,} questions exclude a loss of {self.smallest_loss:.2g} "
            f"at {self.power:.0%} power; you ask for {self.tolerance:g}{needed}"
        )


def power_of(
    rules: GateRules, baseline: Evaluation, cases: Sequence[Case] | None = None
) -> tuple[RulePower, ...]:
    """Return the power of every rule that compares, from the spread of the baseline's own scores.

    ``cases`` are the questions that will be asked; by default those that the baseline was asked. A rule whose
    metric the baseline has no score for is left out: nothing is known of its spread.
    """
    present = {result.slice for result in baseline.results}
    found = []
    for rule in (one for written in rules.rules for one in written.expanded(present)):
        scored = baseline.scored(rule.metric, rule.of_slice)
        if rule.largest_loss is None or rule.baseline not in (None, baseline.kind) or not scored.any():
            continue
        count = int(scored.sum())
        if cases is not None:
            asked = sum(_may_ask(rule, case.slice) for case in cases)
            before = sum(_may_ask(rule, result.slice) for result in baseline.results)
            count = max(1, round(count * asked / before))
        found.append(power_of_rule(rules, rule, baseline.values(rule.metric)[scored], count))
    return tuple(found)


def power_of_rule(rules: GateRules, rule: Rule, scores: Floats, questions: int | None = None) -> RulePower:
    """Return the power of one rule on so many ``questions``, by default as many as there are ``scores``."""
    metric, tolerance = rule.of, rule.largest_loss or 0.0
    count = len(scores) if questions is None else questions
    error = standard_error(
        scores,
        statistic=metric.statistic,
        bounded=metric.bounded,
        resamples=min(rules.resamples, _RESAMPLES),
        seed=derive_seed(rules.seed, rule.metric, rule.slice),
    )
    error *= math.sqrt(len(scores) / count)
    smallest = smallest_excludable_loss(
        error, count, confidence=rules.confidence, power=rules.power, bounded=metric.bounded
    )
    needed = None
    if tolerance:
        needed = questions_needed(
            error,
            count,
            tolerance,
            confidence=rules.confidence,
            power=rules.power,
            bounded=metric.bounded,
        )
    allowed = rules.allows_underpowered(rule)
    return RulePower(
        rule.name, count, round(smallest, _DIGITS), tolerance, needed, rules.power, allowed=allowed
    )


def require_power(powers: Iterable[RulePower]) -> None:
    """Log what each rule can tell; raise ConfigurationError for a tolerance too small for its questions."""
    for power in powers:
        log.info("gate rule %s", power)
        if power.enough or power.allowed:
            continue
        raise ConfigurationError(
            f"the gate rule {power.rule!r} tolerates a loss of {power.tolerance:g}, but {power.questions} "
            f"questions exclude only a loss of {power.smallest_loss:.3f} at {power.power:.0%} power: raise "
            f"largest_loss, add questions ({power.needed:,} are needed), or write `underpowered: allow` "
            "beside the rule"
        )


def _may_ask(rule: Rule, slice_name: str) -> bool:
    return rule.of_slice in (None, slice_name) and rule.of.may_apply(slice_name)
