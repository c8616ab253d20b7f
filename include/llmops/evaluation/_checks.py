"""What must hold of a release beside what its questions measure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from llmops.evaluation._report import DIGITS, RuleResult

__all__ = ["Check"]


@dataclass(frozen=True)
class Check:
    """One figure of the release itself, such as the share of a source's documents that its index holds.

    ``value`` of at least ``minimum`` passes; None was not measured. ``count`` is how many things were looked
    at, ``detail`` names some of those that were not as they should be.
    """

    name: str
    metric: str
    value: float | None
    minimum: float
    count: int
    detail: str = ""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Check:
        """Return the check that a report holds."""
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Return it as a report holds it."""
        return asdict(self) | {"value": None if self.value is None else round(self.value, DIGITS)}

    def result(self) -> RuleResult:
        """Return how the check came out, in the form of a rule's result."""
        reason = (
            f"{self.value:.3f} is at least {self.minimum:g}" if self.value is not None else "not measured"
        )
        outcome = "missing" if self.value is None else "pass"
        if self.value is not None and self.value < self.minimum:
            outcome, reason = "fail", f"{self.value:.3f} is below the minimum {self.minimum:g}"
        return RuleResult(
            rule=self.name,
            metric=self.metric,
            slice=None,
            outcome=outcome,  # type: ignore[arg-type]
            reason=f"{reason}: {self.detail}" if self.detail else reason,
            candidate=None if self.value is None else round(self.value, DIGITS),
            baseline=None,
            questions=self.count,
        )
