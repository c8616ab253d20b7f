"""The gate's report: every input of a decision as canonical JSON, and a page for whoever approves."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

from llmops.errors import IntegrityError
from llmops.evaluation._cases import SLICES
from llmops.evaluation._evaluate import CaseResult, Evaluation
from llmops.evaluation._markdown import render
from llmops.evaluation._rules import GateRules
from llmops.evaluation._scorers import METRICS
from llmops.manifest import canonical_json, content_hash

__all__ = ["DIGITS", "SCHEMA", "GateReport", "Outcome", "RuleResult", "Verdict", "make_report", "rounded"]

SCHEMA = 2
"""Version of the report's layout: since 2 it holds digests, and the texts are kept apart."""

DIGITS = 10
"""Decimals of what is computed and kept: fewer than machines differ in, so that any of them decides alike."""

Verdict = Literal["PASS", "FAIL", "INCOMPLETE"]
Outcome = Literal["pass", "fail", "inconclusive", "missing"]


@dataclass(frozen=True)
class RuleResult:
    """How one rule came out, and why; ``candidate`` and ``baseline`` are figures over the rule's slice.

    ``difference``, ``lower`` and ``upper`` are candidate less baseline over the ``pairs`` of questions that
    both have a score for; ``smallest_loss`` is what that many questions can exclude. ``p_value`` is that of a
    loss no larger than tolerated, ``p_together`` the same beside all other comparisons (Holm).
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
    p_value: float | None = None
    p_together: float | None = None
    smallest_loss: float | None = None
    pairs: int | None = None
    seed: int | None = None

    def with_outcome(self, outcome: Outcome, reason: str) -> RuleResult:
        """Return the same with another outcome."""
        return dataclasses.replace(self, outcome=outcome, reason=reason)

    def compared(self, **found: float | int) -> RuleResult:
        """Return the same with what the comparison found."""
        return dataclasses.replace(self, **found)  # type: ignore[arg-type]

    def adjusted(self, p_together: float) -> RuleResult:
        """Return the same with the p-value beside all other comparisons."""
        return dataclasses.replace(self, p_together=p_together)


@dataclass(frozen=True)
class GateReport:
    """One decision with all its inputs; ``content`` is plain JSON and its hash is what people approve.

    ``content`` names questions and answers by digest. ``texts`` are those that are at hand, by digest: the
    page shows some of them, nothing else needs them.
    """

    content: Mapping[str, Any]
    texts: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def verdict(self) -> Verdict:
        """Return PASS, FAIL or INCOMPLETE."""
        verdict: Verdict = self.content["verdict"]
        return verdict

    @cached_property
    def report_hash(self) -> str:
        """Return the sha-256 of the canonical JSON, 64 hexadecimal digits."""
        return content_hash(self.content)

    @property
    def replayable(self) -> bool:
        """Return whether this version can read the report's layout."""
        return bool(self.content.get("schema_version") == SCHEMA)

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
        return render(self.content, self.report_hash, self.texts)

    def sides(self) -> tuple[Evaluation, Evaluation | None]:
        """Return what was measured of candidate and baseline."""
        baseline = self.content["baseline"]
        candidate = self._side(self.content["candidate"]["label"], "candidate")
        return candidate, self._side(baseline["label"], "baseline") if baseline else None

    def digests(self) -> tuple[str, ...]:
        """Return the digests of all texts that the report names: cases, then what was answered."""
        results = self.content["results"]
        outputs = (r[side]["output"] for r in results for side in ("candidate", "baseline") if r[side])
        return tuple(dict.fromkeys([*(r["case"] for r in results), *filter(None, outputs)]))

    def _side(self, label: str, side: str) -> Evaluation:
        results = (
            CaseResult(
                id=r["id"],
                slice=r["slice"],
                synthetic=r["synthetic"],
                digest=r["case"],
                scores=r[side]["scores"],
                missing=tuple(r[side]["missing"]),
                error=r[side]["error"],
                output=r[side]["output"],
            )
            for r in self.content["results"]
        )
        return Evaluation(label, tuple(results), self.texts)

    @classmethod
    def parse(cls, text: str, report_hash: str, texts: Mapping[str, str] | None = None) -> GateReport:
        """Return the report in ``text``; raise IntegrityError unless it is the one with that hash.

        ``texts`` are those of its texts that are at hand, by digest.
        """
        try:
            content = json.loads(text)
            report = cls(content, texts or {})
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
    rules: GateRules,
    sides: tuple[Evaluation, Evaluation | None],
    context: Mapping[str, Any],
    checks: Sequence[Mapping[str, Any]] = (),
) -> GateReport:
    """Return the report of a decision; ``checks`` are those of the release itself, as they were measured."""
    candidate, baseline = sides
    content: dict[str, Any] = {
        "schema_version": SCHEMA,
        "verdict": verdict,
        "context": dict(context),
        "gate": {**rules.model_dump(mode="json"), "digest": rules.digest},
        "judges": [judge.describe() for judge in rules.judges],
        "cases": {
            "digest": candidate.digest,
            "count": len(candidate.results),
            "synthetic": sum(result.synthetic for result in candidate.results),
            "slices": {name: sum(r.slice == name for r in candidate.results) for name in SLICES},
        },
        "outcomes": [dataclasses.asdict(result) for result in results],
        "skipped": list(skipped),
        "figures": _figures([*METRICS, *(judge.metric for judge in rules.judges)], candidate, baseline),
        "candidate": {"label": candidate.label},
        "baseline": {"kind": baseline.kind, "label": baseline.label} if baseline else None,
        "results": _results(candidate, baseline),
    }
    if checks:
        content["checks"] = list(checks)
    texts = {**(baseline.texts if baseline else {}), **candidate.texts}
    return GateReport(json.loads(canonical_json(content)), texts)


def _results(candidate: Evaluation, baseline: Evaluation | None) -> list[dict[str, Any]]:
    """Return every case once with what both sides gave: ids, digests and scores, no text."""
    theirs = baseline.results if baseline else [None] * len(candidate.results)
    return [
        {
            "id": ours.id,
            "slice": ours.slice,
            "synthetic": ours.synthetic,
            "case": ours.digest,
            "candidate": _measured(ours),
            "baseline": _measured(other) if other else None,
        }
        for ours, other in zip(candidate.results, theirs, strict=True)
    ]


def _measured(result: CaseResult) -> dict[str, Any]:
    return {
        "output": result.output,
        "scores": dict(result.scores),
        "missing": list(result.missing),
        "error": result.error,
    }


def _figures(
    metrics: Sequence[str], candidate: Evaluation, baseline: Evaluation | None
) -> list[dict[str, Any]]:
    """Return every metric over all questions and per slice, both sides."""
    return [
        {
            "metric": metric,
            "slice": name,
            "questions": questions,
            "missing": missing,
            "candidate": rounded(candidate.value(metric, name)),
            "baseline": rounded(baseline.value(metric, name)) if baseline else None,
        }
        for metric in metrics
        for name in (None, *SLICES)
        if (questions := int(candidate.scored(metric, name).sum()))
        + (missing := len(candidate.missing(metric, name)))
    ]


def rounded(value: float | None) -> float | None:
    """Return a figure to the decimals in which machines agree."""
    return None if value is None else round(value, DIGITS)
