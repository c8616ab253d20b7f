"""The gate's report: every input of a decision as canonical JSON, and a page for whoever approves."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from llmops.errors import IntegrityError
from llmops.evaluation._cases import SLICES
from llmops.evaluation._evaluate import Evaluation
from llmops.evaluation._markdown import render
from llmops.evaluation._scorers import METRICS
from llmops.evaluation._statistics import Interval
from llmops.manifest import canonical_json, content_hash

__all__ = ["GateReport", "Outcome", "RuleResult", "Verdict", "make_report"]

Verdict = Literal["PASS", "FAIL", "INCOMPLETE"]
Outcome = Literal["pass", "fail", "inconclusive", "missing"]


@dataclass(frozen=True)
class RuleResult:
    """How one rule came out, and why; ``candidate`` and ``baseline`` are figures over the rule's slice.

    ``difference``, ``lower`` and ``upper`` are candidate less baseline over the ``pairs`` of questions that
    both have a score for; ``smallest_loss`` is what that many questions can exclude.
    """

    rule: str
    metric: str
    slice: str | None
    outcome: Outcome
    reason: str
    candidate: float | None
    baseline: float | None
    questions: int
    difference: float | None = None
    lower: float | None = None
    upper: float | None = None
    smallest_loss: float | None = None
    pairs: int | None = None
    seed: int | None = None

    def with_outcome(self, outcome: Outcome, reason: str) -> RuleResult:
        """Return the same with another outcome."""
        return dataclasses.replace(self, outcome=outcome, reason=reason)

    def compared(
        self, outcome: Outcome, reason: str, difference: Interval, seed: int, smallest_loss: float, pairs: int
    ) -> RuleResult:
        """Return the same with what the comparison found."""
        return dataclasses.replace(
            self,
            outcome=outcome,
            reason=reason,
            difference=difference.estimate,
            lower=difference.lower,
            upper=difference.upper,
            seed=seed,
            smallest_loss=smallest_loss,
            pairs=pairs,
        )


@dataclass(frozen=True)
class GateReport:
    """One decision with all its inputs; ``content`` is plain JSON and its hash is what people approve."""

    content: Mapping[str, Any]

    @property
    def verdict(self) -> Verdict:
        """Return PASS, FAIL or INCOMPLETE."""
        verdict: Verdict = self.content["verdict"]
        return verdict

    @property
    def report_hash(self) -> str:
        """Return the sha-256 of the canonical JSON, 64 hexadecimal digits."""
        return content_hash(self.content)

    @property
    def results(self) -> tuple[RuleResult, ...]:
        """Return the outcome of every rule that applied."""
        return tuple(RuleResult(**values) for values in self.content["outcomes"])

    @property
    def synthetic(self) -> bool:
        """Return whether any case was derived by a program instead of written by a person."""
        return bool(self.content["cases"]["synthetic"])

    def json(self) -> str:
        """Return the canonical JSON: the text whose sha-256 is ``report_hash``."""
        return canonical_json(self.content)

    def markdown(self) -> str:
        """Return a page that fits into an approval: verdict, rules, production against candidate."""
        return render(self.content, self.report_hash)

    @classmethod
    def parse(cls, text: str, report_hash: str) -> GateReport:
        """Return the report in ``text``; raise IntegrityError unless it is the one with that hash."""
        try:
            content = json.loads(text)
            report = cls(content)
            valid = report.report_hash == report_hash and content["verdict"] in get_args(Verdict)
        except (ValueError, TypeError, KeyError) as error:
            raise IntegrityError(f"gate report {report_hash[:12]} cannot be read: {error!r}") from error
        if not valid:
            raise IntegrityError(
                f"the gate report stored as {report_hash[:12]} hashes to {report.report_hash[:12]}: "
                "it was changed after it was made, run the gate again"
            )
        return report


def make_report(
    verdict: Verdict,
    results: Sequence[RuleResult],
    skipped: Sequence[str],
    settings: Mapping[str, Any],
    candidate: Evaluation,
    baseline: Evaluation | None,
    context: Mapping[str, str | int | None],
) -> GateReport:
    """Return the report of a decision."""
    cases = candidate.cases
    content: dict[str, Any] = {
        "schema_version": 1,
        "verdict": verdict,
        "context": dict(context),
        "gate": dict(settings),
        "cases": {
            "digest": candidate.digest,
            "count": len(cases),
            "synthetic": sum(case.synthetic for case in cases),
            "slices": {name: sum(case.slice == name for case in cases) for name in SLICES},
        },
        "outcomes": [dataclasses.asdict(result) for result in results],
        "skipped": list(skipped),
        "figures": _figures(candidate, baseline),
        "candidate": candidate.to_json(),
        "baseline": {"kind": baseline.kind, **baseline.to_json()} if baseline else None,
    }
    return GateReport(json.loads(canonical_json(content)))


def _figures(candidate: Evaluation, baseline: Evaluation | None) -> list[dict[str, Any]]:
    """Return every metric over all questions and per slice, both sides."""
    return [
        {
            "metric": metric,
            "slice": name,
            "questions": len(candidate.scores(metric, name)),
            "missing": len(candidate.missing(metric, name)),
            "candidate": candidate.value(metric, name),
            "baseline": baseline.value(metric, name) if baseline else None,
        }
        for metric in METRICS
        for name in (None, *SLICES)
        if candidate.scores(metric, name) or candidate.missing(metric, name)
    ]
