"""A gate report as the board shows it: read strictly, since whoever can write to the database can write anything."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from llmops.evaluation import METRICS
from release_board.text import number

__all__ = ["Bars", "Example", "Forest", "GateView", "Side", "read_gate"]

_MOST_EXAMPLES = 5
_PADDING = 0.06

Outcome = Literal["pass", "fail", "inconclusive", "missing"]
Texts = Mapping[str, str | None]


class _Rule(BaseModel):
    metric: str
    slice: str | None = None
    largest_loss: FiniteFloat | None = None


class _Gate(BaseModel):
    rules: list[_Rule]
    confidence: FiniteFloat
    power: FiniteFloat
    dry_run: bool = False


class Decided(BaseModel):
    """The outcome of one rule."""

    rule: str
    metric: str
    slice: str | None
    outcome: Outcome
    reason: str
    candidate: FiniteFloat | None
    baseline: FiniteFloat | None
    difference: FiniteFloat | None
    lower: FiniteFloat | None
    upper: FiniteFloat | None
    smallest_loss: FiniteFloat | None
    pairs: int | None


class _Figure(BaseModel):
    metric: str
    slice: str | None
    questions: int
    missing: int
    candidate: FiniteFloat | None
    baseline: FiniteFloat | None


class _Measured(BaseModel):
    output: str | None
    scores: dict[str, FiniteFloat]
    error: str | None


class _Result(BaseModel):
    id: str
    slice: str
    case: str
    candidate: _Measured
    baseline: _Measured | None


class _Cases(BaseModel):
    digest: str
    count: int
    synthetic: int


class _Label(BaseModel):
    kind: str
    label: str


class _Content(BaseModel):
    gate: _Gate
    cases: _Cases
    outcomes: list[Decided]
    skipped: list[str]
    figures: list[_Figure]
    baseline: _Label | None
    results: list[_Result] = Field(max_length=100_000)


@dataclass(frozen=True)
class Comparison:
    """One paired difference with its interval; places are shares of the plot's width in percent."""

    rule: str
    text: str
    outcome: Outcome
    pairs: int | None
    estimate: float
    lower: float
    upper: float
    tolerance: float | None
    tolerated: str | None


@dataclass(frozen=True)
class Forest:
    """Differences that share one unit, on one scale from ``low`` to ``high``."""

    title: str
    low: str
    high: str
    zero: float
    better: Literal["right", "left"]
    rows: tuple[Comparison, ...]


@dataclass(frozen=True)
class Bar:
    """One slice of one metric; widths in percent, None for what was not measured."""

    slice: str
    baseline: str
    candidate: str
    baseline_width: float | None
    candidate_width: float | None
    questions: int
    missing: int


@dataclass(frozen=True)
class Bars:
    """One metric over all questions and by slice."""

    metric: str
    scale: str
    rows: tuple[Bar, ...]


@dataclass(frozen=True)
class Side:
    """What one side answered: its text, or why there is none to show."""

    state: Literal["answered", "refused", "failed", "erased", "lost", "changed"]
    text: str
    quality: float


@dataclass(frozen=True)
class Example:
    """One question that both sides answered; ``state`` says why there is no ``question`` where it is None."""

    case: str
    slice: str
    question: str | None
    state: str
    change: float
    baseline: Side
    candidate: Side


@dataclass(frozen=True)
class GateView:
    """Everything that the page shows of a report."""

    content: _Content
    forests: tuple[Forest, ...]
    bars: tuple[Bars, ...]
    worse: tuple[_Result, ...]
    better: tuple[_Result, ...]
    worse_count: int
    better_count: int

    @property
    def digests(self) -> tuple[str, ...]:
        """Return the digests of all texts that the examples show."""
        chosen = [*self.worse, *self.better]
        sides = [side.output for r in chosen for side in (r.candidate, r.baseline) if side and side.output]
        return tuple(dict.fromkeys([*(r.case for r in chosen), *sides]))

    def examples(self, texts: Texts) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
        """Return examples answered worse and better, with the texts that are at hand."""
        return tuple(_example(r, texts) for r in self.worse), tuple(_example(r, texts) for r in self.better)


def read_gate(report: str) -> GateView | None:
    """Return what to show of a report's text, None when it is of another layout than the gate writes today."""
    try:
        content = _Content.model_validate_json(report)
    except ValidationError:
        return None
    worse, better = _changed(content.results)
    return GateView(
        content,
        _forests(content),
        _bars(content.figures),
        tuple(worse[:_MOST_EXAMPLES]),
        tuple(better[:_MOST_EXAMPLES]),
        len(worse),
        len(better),
    )


def _forests(content: _Content) -> tuple[Forest, ...]:
    """Return one plot for all shares between 0 and 1, and one for each metric with a unit of its own."""
    groups: dict[str, list[Decided]] = {}
    for decided in content.outcomes:
        if None not in (decided.difference, decided.lower, decided.upper):
            groups.setdefault(_unit(decided.metric), []).append(decided)
    return tuple(_forest(title, rows, content.gate.rules) for title, rows in groups.items())


def _forest(title: str, rows: Sequence[Decided], rules: Sequence[_Rule]) -> Forest:
    rising = _higher_is_better(rows[0].metric)
    limits = [_tolerance(decided, rules) for decided in rows]
    signed = [None if limit is None else (-limit if rising else limit) for limit in limits]
    values = [v for d in rows for v in (d.lower, d.upper, d.difference) if v is not None]
    values += [0.0, *(v for v in signed if v is not None)]
    low, high = min(values), max(values)
    margin = _PADDING * ((high - low) or 1.0)
    low, high = low - margin, high + margin

    def place(value: float | None) -> float:
        return round(100 * ((value or 0.0) - low) / (high - low), 2)

    found = tuple(
        Comparison(
            rule=d.rule,
            text=f"{d.difference:+.3f} [{d.lower:+.3f}, {d.upper:+.3f}]",
            outcome=d.outcome,
            pairs=d.pairs,
            estimate=place(d.difference),
            lower=place(d.lower),
            upper=place(d.upper),
            tolerance=None if limit is None else place(limit),
            tolerated=None if limit is None else f"{limit:+.3g}",
        )
        for d, limit in zip(rows, signed, strict=True)
    )
    return Forest(title, f"{low:+.3g}", f"{high:+.3g}", place(0.0), "right" if rising else "left", found)


def _tolerance(decided: Decided, rules: Sequence[_Rule]) -> float | None:
    return next(
        (
            rule.largest_loss
            for rule in rules
            if rule.metric == decided.metric
            and rule.slice in (decided.slice, "each")
            and rule.largest_loss is not None
        ),
        None,
    )


def _unit(metric: str) -> str:
    """Return under which title differences of a metric are drawn: those on one scale share a title."""
    known = METRICS.get(metric)
    return "Shares, from 0 to 1" if known is None or known.bounded else metric


def _higher_is_better(metric: str) -> bool:
    known = METRICS.get(metric)
    return known is None or known.higher_is_better


def _bars(figures: Sequence[_Figure]) -> tuple[Bars, ...]:
    groups: dict[str, list[_Figure]] = {}
    for figure in figures:
        groups.setdefault(figure.metric, []).append(figure)
    return tuple(_metric_bars(metric, rows) for metric, rows in groups.items())


def _metric_bars(metric: str, rows: Sequence[_Figure]) -> Bars:
    known = METRICS.get(metric)
    values = [abs(v) for row in rows for v in (row.baseline, row.candidate) if v is not None]
    largest = max(values, default=1.0) or 1.0
    full = 1.0 if (known is None or known.bounded) and largest <= 1 else largest

    def width(value: float | None) -> float | None:
        return None if value is None else round(100 * max(0.0, value) / full, 2)

    found = tuple(
        Bar(
            slice=row.slice or "all questions",
            baseline=number(row.baseline),
            candidate=number(row.candidate),
            baseline_width=width(row.baseline),
            candidate_width=width(row.candidate),
            questions=row.questions,
            missing=row.missing,
        )
        for row in rows
    )
    return Bars(metric, f"0 to {full:.3g}", found)


def _changed(results: Sequence[_Result]) -> tuple[list[_Result], list[_Result]]:
    """Return the questions answered worse and better, the largest changes first."""
    both = [
        r
        for r in results
        if r.baseline and {"quality"} <= r.candidate.scores.keys() & r.baseline.scores.keys()
    ]
    ordered = sorted(both, key=lambda r: (_change(r), r.id))
    return [r for r in ordered if _change(r) < 0], [r for r in reversed(ordered) if _change(r) > 0]


def _change(result: _Result) -> float:
    assert result.baseline is not None
    return result.candidate.scores["quality"] - result.baseline.scores["quality"]


def _example(result: _Result, texts: Texts) -> Example:
    assert result.baseline is not None
    case = _read(result.case, texts)
    question = None if isinstance(case, str) else case.get("question")
    known = isinstance(question, str)
    return Example(
        case=result.id,
        slice=result.slice,
        question=question if known else None,
        state=case if isinstance(case, str) else "" if known else "changed",
        change=_change(result),
        baseline=_side(result.baseline, texts),
        candidate=_side(result.candidate, texts),
    )


def _side(measured: _Measured, texts: Texts) -> Side:
    quality = measured.scores["quality"]
    output = _read(measured.output, texts)
    if isinstance(output, str):
        return Side(output, "", quality)
    text, error = output.get("text"), output.get("error")
    if isinstance(error, str):
        return Side("failed", error, quality)
    if not isinstance(text, str):
        return Side("changed", "", quality)
    return Side("refused" if output.get("refused") is True else "answered", text, quality)


def _read(digest: str | None, texts: Texts) -> dict[str, Any] | Literal["erased", "lost", "changed"]:
    """Return the object in a text, or why there is none: it must still be what was judged."""
    if digest is None or digest not in texts:
        return "lost"
    text = texts[digest]
    if text is None:
        return "erased"
    if hashlib.sha256(text.encode()).hexdigest() != digest:
        return "changed"
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return "changed"
    return found if isinstance(found, dict) else "changed"
