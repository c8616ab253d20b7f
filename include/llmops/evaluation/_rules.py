"""The gate's rules as a person writes them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from llmops.evaluation._cases import SLICES, Slice
from llmops.evaluation._judges import Judge
from llmops.evaluation._scorers import JUDGED, METRICS, Metric, metric_of
from llmops.manifest import content_hash
from llmops.settings import Section

__all__ = ["GateRules", "Rule"]


class Rule(Section):
    """One demand on one metric, over all questions, one slice, or with ``slice: each`` on every slice by itself.

    ``minimum`` and ``maximum`` bound the measured figure itself. ``largest_loss`` is how much worse than the
    baseline, in the metric's own unit, the candidate may truly be: the rule passes when that much is excluded
    with the gate's confidence, fails when at least that much is certain, and is inconclusive in between.
    ``baseline`` names the only baseline that the comparison is for; by default it is made with whichever
    there is: production, or the keyword baseline before the first release. ``metric`` may be
    ``judge_<name>``, what a judge of the gate gives.
    """

    metric: str
    slice: Slice | Literal["each"] | None = None
    minimum: float | None = None
    maximum: float | None = None
    largest_loss: Annotated[float | None, Field(ge=0)] = None
    baseline: Literal["production", "keyword"] | None = None
    inconclusive: Literal["block", "allow"] = "block"
    underpowered: Literal["refuse", "allow"] | None = None

    @field_validator("metric")
    @classmethod
    def _is_known(cls, metric: str) -> str:
        if metric_of(metric) is None:
            raise ValueError(f"no such metric; there are {', '.join(METRICS)} and {JUDGED}<name of a judge>")
        return metric

    @model_validator(mode="after")
    def _demands_something(self) -> Rule:
        if self.minimum is None and self.maximum is None and self.largest_loss is None:
            raise ValueError("a rule needs a minimum, a maximum or a largest_loss")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError("minimum is above maximum")
        if self.baseline is not None and self.largest_loss is None:
            raise ValueError("baseline is for rules with a largest_loss")
        if self.slice is not None and self.slice != "each" and not self.of.may_apply(self.slice):
            raise ValueError(f"{self.metric} does not apply to unanswerable questions")
        return self

    @property
    def of(self) -> Metric:
        """Return the metric that the rule is about."""
        found = metric_of(self.metric)
        assert found is not None
        return found

    @property
    def name(self) -> str:
        """Return what the rule is about, in a few words."""
        if self.slice == "each":
            return f"{self.metric} on each slice"
        return self.metric + (f" on {self.slice}" if self.slice else "")

    @property
    def of_slice(self) -> Slice | None:
        """Return the slice whose questions count, None for all of them."""
        return None if self.slice == "each" else self.slice

    @property
    def limited(self) -> bool:
        """Return whether the rule bounds the measured figure itself."""
        return self.minimum is not None or self.maximum is not None

    def expanded(self, present: Collection[str] = SLICES) -> list[Rule]:
        """Return one rule per slice for ``slice: each``, else the rule; ``present`` are the slices asked."""
        if self.slice != "each":
            return [self]
        chosen = [name for name in SLICES if name in present and self.of.may_apply(name)]
        return [self.model_copy(update={"slice": name}) for name in chosen] or [self]


class GateRules(Section):
    """All rules of an assistant's gate; every one must pass on its own.

    ``confidence`` is that of each one-sided bound, ``resamples`` and ``seed`` belong to the bootstrap.
    The losses that fail the gate must be significant together (Holm), however many rules compare.
    ``underpowered: refuse`` refuses a ``largest_loss`` that the questions at hand cannot exclude with
    probability ``power`` even for an equally good candidate. ``largest_missing_share`` is the share of
    questions that may be missing from a metric; above it the rule is missing. With ``dry_run`` everything is
    measured and reported, and nothing passes. ``approval: personal`` asks approvers to sign the release's id
    with an SSH key of their own, beside the notary's record. ``judges`` are language models that score answers.
    """

    rules: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=100)]
    judges: Annotated[tuple[Judge, ...], Field(max_length=10)] = ()
    confidence: Annotated[float, Field(ge=0.8, le=0.999)] = 0.95
    power: Annotated[float, Field(ge=0.5, le=0.99)] = 0.8
    resamples: Annotated[int, Field(ge=1_000, le=100_000)] = 10_000
    seed: int = 20_260_101
    underpowered: Literal["refuse", "allow"] = "refuse"
    largest_missing_share: Annotated[float, Field(ge=0, le=0.2)] = 0.0
    dry_run: bool = False
    approval: Literal["notary", "personal"] = "notary"

    @model_validator(mode="after")
    def _has_no_rule_twice(self) -> GateRules:
        rules = [one for rule in self.rules for one in rule.expanded()]
        keys = [(rule.metric, rule.slice, rule.baseline) for rule in rules]
        twice = {key[0] for key in keys if keys.count(key) > 1}
        if twice:
            raise ValueError(f"two rules for the same metric, slice and baseline: {', '.join(sorted(twice))}")
        return self

    @model_validator(mode="after")
    def _knows_its_judges(self) -> GateRules:
        names = [judge.metric for judge in self.judges]
        if len(set(names)) != len(names):
            raise ValueError("two judges have the same name")
        used = {rule.metric for rule in self.rules if rule.metric.startswith(JUDGED)}
        if unknown := sorted(used - set(names)):
            raise ValueError(f"no such judge: {', '.join(unknown)}; add it to judges")
        return self

    @property
    def digest(self) -> str:
        """Return the sha-256 of all rules and settings, 64 hexadecimal digits."""
        return content_hash(self.model_dump(mode="json"))

    def allows_underpowered(self, rule: Rule) -> bool:
        """Return whether a rule may tolerate less than the questions can exclude."""
        return (rule.underpowered or self.underpowered) == "allow"
