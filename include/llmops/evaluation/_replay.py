"""Deciding again from a report alone: without a question, an answer, a model or a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from pydantic import ValidationError

from llmops.errors import IntegrityError, LlmopsError
from llmops.evaluation._checks import Check
from llmops.evaluation._gate import decide
from llmops.evaluation._report import SCHEMA, GateReport, RuleResult
from llmops.evaluation._rules import GateRules

__all__ = ["Replay", "RuleReplay", "replay"]


@dataclass(frozen=True)
class RuleReplay:
    """One rule as it was reported and as it comes out again; ``differences`` is empty when both are equal."""

    reported: RuleResult | None
    again: RuleResult | None

    @property
    def rule(self) -> str:
        """Return what the rule is about."""
        known = self.reported or self.again
        assert known is not None
        return known.rule

    @property
    def differences(self) -> tuple[str, ...]:
        """Return each value that differs, as ``name: reported → again``."""
        if self.reported is None or self.again is None:
            return ("only reported",) if self.again is None else ("only in the replay",)
        return _differences(dataclasses.asdict(self.reported), dataclasses.asdict(self.again))


@dataclass(frozen=True)
class Replay:
    """A report beside what its own seeds, scores and limits give again."""

    report: GateReport
    again: GateReport
    rules: tuple[RuleReplay, ...]

    @property
    def equal(self) -> bool:
        """Return whether the report came out the same, to the last digit of its hash."""
        return self.report.report_hash == self.again.report_hash

    @property
    def differences(self) -> tuple[str, ...]:
        """Return what differs beside the rules: the verdict, a figure, the digest of the cases."""
        ours, theirs = dict(self.report.content), dict(self.again.content)
        return _differences({**ours, "outcomes": None}, {**theirs, "outcomes": None})


def replay(report: GateReport) -> Replay:
    """Decide again from nothing but the report, with its own seeds, scores and limits.

    Raises IntegrityError for a report that this version cannot read or whose inputs no gate could decide on.
    """
    if not report.replayable:
        version = report.content.get("schema_version")
        raise IntegrityError(
            f"report {report.report_hash[:12]} has the layout {version!r}, this version replays {SCHEMA}: "
            "replay it with the version that made it"
        )
    try:
        settings = {key: value for key, value in report.content["gate"].items() if key != "digest"}
        rules = GateRules.model_validate(settings)
        candidate, baseline = report.sides()
        checks = [Check.of(values) for values in report.content.get("checks", ())]
        again = decide(rules, candidate, baseline, context=report.content["context"], checks=checks)
        reported = report.results
    except (ValidationError, KeyError, TypeError, AttributeError, LlmopsError) as error:
        raise IntegrityError(f"report {report.report_hash[:12]} cannot be decided again: {error}") from error
    pairs = zip_longest(reported, again.results)
    return Replay(report, again, tuple(RuleReplay(old, new) for old, new in pairs))


def _differences(reported: Mapping[str, Any], again: Mapping[str, Any]) -> tuple[str, ...]:
    names = dict.fromkeys([*reported, *again])
    return tuple(
        f"{name}: {_short(reported.get(name))} → {_short(again.get(name))}"
        for name in names
        if reported.get(name) != again.get(name)
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"
