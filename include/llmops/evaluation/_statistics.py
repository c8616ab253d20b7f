"""Statistics of paired scores: bootstrap bounds, multiplicity, and what a number of questions can tell. Pure.

Scores are arrays of shape (questions, columns): one column, or for a ratio two, what is divided and by what.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = [
    "Bootstrap",
    "Interval",
    "derive_seed",
    "excludes",
    "figure",
    "holm",
    "loss_p_value",
    "paired_bootstrap",
    "questions_needed",
    "smallest_excludable_loss",
    "standard_error",
]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.integer[Any]]
Statistic = Literal["mean", "p95", "ratio"]

LEAST_DIVISOR = 0.5
"""What a ratio divides by in a resample without anything to divide by: more than any count makes of it."""

_BATCH = 1_000_000
_TIE = 1e-12
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Interval:
    """An estimate and its bounds, each of which holds with the stated confidence on its own side."""

    estimate: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Bootstrap:
    """What resampling says about the true difference of two paired figures.

    ``differences`` is the sorted bootstrap distribution, which ``bias`` and ``acceleration`` correct (BCa:
    Efron, Better bootstrap confidence intervals, JASA 1987, https://doi.org/10.2307/2289144). By themselves
    such bounds are too narrow for few questions, so one of two guards widens them. ``unseen``, for scores
    between 0 and 1, are draws of the weight of a question that nobody asked. ``stretch``, for all others, is
    what Student's t is wider than the normal, and then the bounds are no narrower than uncorrected ones.
    """

    estimate: float
    differences: Floats
    bias: float = 0.0
    acceleration: float = 0.0
    questions: int = 0
    unseen: Floats | None = None
    stretch: float | None = None

    def interval(self, confidence: float) -> Interval:
        """Return the estimate with one-sided bounds, each of which holds with ``confidence``."""
        z = _NORMAL.inv_cdf(confidence) * (self.stretch or 1)
        lower, upper = np.quantile(self.differences, [self._level(-z), self._level(z)])
        if self.unseen is not None:
            lower = min(lower, np.quantile(self._guarded(-1), 1 - confidence))
            upper = max(upper, np.quantile(self._guarded(+1), confidence))
        if self.stretch is not None:
            plain = np.quantile(self.differences, [_NORMAL.cdf(-z), _NORMAL.cdf(z)])
            lower, upper = min(lower, plain[0]), max(upper, plain[1])
        return Interval(self.estimate, float(lower), float(upper))

    def p_at_least(self, threshold: float) -> float:
        """Return the one-sided p-value of "the true difference is ``threshold`` or more"."""
        below = self._quantile(int(np.searchsorted(self.differences, threshold - _TIE, "left")))
        guarded = None if self.unseen is None else self._guarded(+1) >= threshold - _TIE
        return self._p_value(-self._corrected(below), -below, guarded)

    def p_at_most(self, threshold: float) -> float:
        """Return the one-sided p-value of "the true difference is ``threshold`` or less"."""
        below = self._quantile(int(np.searchsorted(self.differences, threshold + _TIE, "right")))
        guarded = None if self.unseen is None else self._guarded(-1) <= threshold + _TIE
        return self._p_value(self._corrected(below), below, guarded)

    def _p_value(self, corrected: float, plain: float, guarded: npt.NDArray[np.bool_] | None) -> float:
        """Return the largest p-value of those that the bounds are made of."""
        p = _NORMAL.cdf(corrected / (self.stretch or 1))
        if self.stretch is not None:
            p = max(p, _NORMAL.cdf(plain / self.stretch))
        if guarded is not None:
            p = max(p, float(np.mean(guarded)))
        return max(p, self._least)

    @cached_property
    def _least(self) -> float:
        return 1 / (len(self.differences) + 1)

    def _guarded(self, sign: int) -> Floats:
        """Return the draws with the weight of half a question that came out as far to one side as can be."""
        assert self.unseen is not None
        moved = self.questions * self.differences + sign * self.unseen
        return np.asarray(moved / (self.questions + self.unseen))

    def _level(self, z: float) -> float:
        """Return the quantile of the distribution that stands for the normal quantile ``z``."""
        shifted = self.bias + z
        return _NORMAL.cdf(self.bias + shifted / (1 - self.acceleration * shifted))

    def _corrected(self, quantile: float) -> float:
        """Return the normal quantile for which ``_level`` gives that of ``quantile``."""
        apart = quantile - self.bias
        return apart / max(1 + self.acceleration * apart, 1e-6) - self.bias

    def _quantile(self, below: int) -> float:
        """Return the normal quantile of ``below`` out of all draws."""
        count = len(self.differences)
        return _NORMAL.inv_cdf(min(max(below, 0.5), count - 0.5) / count)


def figure(values: Floats, statistic: Statistic) -> float:
    """Return one figure of scores, shape (questions, columns); infinite for a ratio over nothing."""
    if statistic == "mean":
        return float(values[:, 0].mean())
    if statistic == "p95":
        return float(np.percentile(values[:, 0], 95))
    total, divisor = values.sum(axis=0)
    return float(total / divisor) if divisor else math.inf


def paired_bootstrap(
    candidate: Floats,
    baseline: Floats,
    *,
    statistic: Statistic = "mean",
    bounded: bool | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> Bootstrap:
    """Return the bootstrap of statistic(candidate) - statistic(baseline), over questions.

    Both hold the scores of the same questions in the same order, shape (questions,) or (questions, columns);
    questions are resampled together, so what makes a question hard for both cancels out. Means and ratios
    are corrected for bias and skewness; a 95th percentile is not, since that makes its bounds too narrow
    (simulated: 8 % beyond a nominal 5 %, without it 4 %).

    ``bounded`` says that scores lie between 0 and 1, or that they do not, and thereby which guard is added;
    None adds none. For bounded scores it is half a question of the worst kind that was not asked, as in the
    prior of Jeffreys for a share: without it few losses and no win are taken for less than they may be. Scores
    that are the same on every question give exactly 0, however few questions there are.
    """
    sides = [side[:, None] if side.ndim == 1 else side for side in (candidate, baseline)]
    if candidate.shape != baseline.shape or candidate.ndim > 2 or not candidate.size:
        raise ValueError(f"paired scores must be two equal rows, got {candidate.shape} and {baseline.shape}")
    if np.array_equal(candidate, baseline):
        return Bootstrap(0.0, np.zeros(resamples))
    count = len(candidate)
    generator = np.random.default_rng(seed)
    estimate = _capped(sides[0], statistic) - _capped(sides[1], statistic)
    drawn = _differences(sides, statistic, resamples, generator)
    unseen = generator.gamma(0.5, size=resamples) if bounded else None
    if statistic == "p95":
        return Bootstrap(estimate, np.sort(drawn), questions=count, unseen=unseen)
    below = float(np.mean(drawn < estimate - _TIE) + np.mean(np.abs(drawn - estimate) <= _TIE) / 2)
    order = np.argsort(drawn)
    return Bootstrap(
        estimate,
        drawn[order],
        bias=_NORMAL.inv_cdf(below) if 0 < below < 1 else 0.0,
        acceleration=_acceleration(_influence(sides[0], statistic) - _influence(sides[1], statistic)),
        questions=count,
        unseen=unseen,
        stretch=math.sqrt(count / max(count - 1, 1)) * (1 + 1 / count) if bounded is False else None,
    )


def excludes(largest_loss: float, tolerance: float) -> bool:
    """Return whether a bound on the loss excludes the tolerance.

    A bound that lies on the tolerance does not exclude a loss of just as much; no loss at all is always allowed.
    """
    return largest_loss < tolerance or largest_loss == tolerance == 0


def loss_p_value(found: Bootstrap, tolerance: float, higher_is_better: bool) -> float:
    """Return the one-sided p-value of "the loss is no larger than tolerated"."""
    return found.p_at_least(-tolerance) if higher_is_better else found.p_at_most(tolerance)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return each p-value adjusted for all of them, in their order: those at most α are significant together.

    The chance of any false one among them stays below α (Holm, A simple sequentially rejective multiple test
    procedure, Scandinavian Journal of Statistics 1979).
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def standard_error(
    values: Floats, *, statistic: Statistic, bounded: bool, resamples: int = 2_000, seed: int = 0
) -> float:
    """Return the error of the difference that is to be expected from one side's scores.

    It is that side's own standard error, which is exact for the difference when the scores of two equally
    good releases correlate by one half; real releases correlate more, so this errs on the safe side.
    Scores between 0 and 1 count with one more question at either end, so that few questions without spread
    do not promise too much. Seconds and money have long tails, which correlate hardly at all: there it is
    the error of two independent sides.
    """
    scores = values[:, 0] if values.ndim == 2 else values
    if scores.size < 2:
        return 0.0
    if bounded:
        return float(np.append(scores, [0.0, 1.0]).std(ddof=1) / math.sqrt(scores.size))
    if statistic == "p95":
        generator = np.random.default_rng(seed)
        drawn = _differences([scores[:, None]], "p95", resamples, generator)
        return float(math.sqrt(2) * drawn.std(ddof=1))
    spread = _influence(values if values.ndim == 2 else values[:, None], statistic)
    return float(math.sqrt(2) * spread.std(ddof=1) / math.sqrt(scores.size))


def smallest_excludable_loss(
    error: float, questions: int, *, confidence: float, power: float, bounded: bool = True
) -> float:
    """Return the smallest tolerance that an equally good candidate passes with probability ``power``.

    The usual sample-size formula for non-inferiority, (z_confidence + z_power) · error. For a score between
    0 and 1 one question's worth is added, for what the bounds allow for unasked questions, and it never goes
    below -ln(1 - confidence) / questions: that much loss can hide behind questions which all scored the
    same (the rule of three; Hanley and Lippman-Hand, JAMA 1983).
    """
    loss = _z(confidence, power) * error
    return max(loss + 1 / questions, -math.log(1 - confidence) / questions) if bounded else loss


def questions_needed(
    error: float, questions: int, tolerance: float, *, confidence: float, power: float, bounded: bool = True
) -> int:
    """Return how many questions of the same spread make ``tolerance`` the smallest excludable loss."""
    spread = _z(confidence, power) * error * math.sqrt(questions)
    if not bounded:
        return math.ceil((spread / tolerance) ** 2)
    root = (math.sqrt(spread**2 + 4 * tolerance) - spread) / 2
    return math.ceil(max(root**-2, -math.log(1 - confidence) / tolerance))


def derive_seed(seed: int, *parts: str | None) -> int:
    """Return a seed of its own for one comparison, whatever order comparisons are made in."""
    text = "\0".join([str(seed), *("" if part is None else part for part in parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _z(confidence: float, power: float) -> float:
    return _NORMAL.inv_cdf(confidence) + _NORMAL.inv_cdf(power)


def _capped(values: Floats, statistic: Statistic) -> float:
    """Return the figure as resamples give it: a ratio over nothing is large instead of infinite."""
    if statistic != "ratio":
        return figure(values, statistic)
    total, divisor = values.sum(axis=0)
    return float(total / max(divisor, LEAST_DIVISOR))


def _influence(values: Floats, statistic: Statistic) -> Floats:
    """Return how much each question moves the figure, to first order."""
    if statistic == "mean":
        return np.asarray(values[:, 0] - values[:, 0].mean())
    total, divisor = values.sum(axis=0)
    divisor = max(divisor, LEAST_DIVISOR)
    return np.asarray((values[:, 0] - total / divisor * values[:, 1]) * len(values) / divisor)


def _acceleration(influence: Floats) -> float:
    """Return the skewness of the influences over 6: how fast the standard error changes with the value."""
    spread = float((influence**2).sum())
    return float((influence**3).sum() / (6 * spread**1.5)) if spread > 0 else 0.0


def _differences(
    sides: Sequence[Floats], statistic: Statistic, resamples: int, generator: np.random.Generator
) -> Floats:
    """Return the bootstrap distribution of the first side's figure, less the second's if there is one.

    Resamples come in batches, so that memory stays flat however many questions there are.
    """
    count = len(sides[0])
    batch = max(1, _BATCH // count)
    if statistic == "mean" and len(sides) == 2:
        sides = [sides[0] - sides[1]]
    found = []
    for start in range(0, resamples, batch):
        size = (min(batch, resamples - start), count)
        chosen: Indices = generator.integers(0, count, size=size, dtype=_index_type(count))
        figures = [_resampled(side, chosen, statistic) for side in sides]
        found.append(figures[0] - figures[1] if len(figures) == 2 else figures[0])
    return np.concatenate(found)


def _resampled(values: Floats, chosen: Indices, statistic: Statistic) -> Floats:
    """Return the figure of each resample, shape (resamples, questions) → (resamples,)."""
    if statistic == "mean":
        return np.asarray(values[:, 0][chosen].mean(axis=1))
    if statistic == "ratio":
        divisor = np.maximum(values[:, 1][chosen].sum(axis=1), LEAST_DIVISOR)
        return np.asarray(values[:, 0][chosen].sum(axis=1) / divisor)
    order = np.argsort(values[:, 0], kind="stable")
    ranks = np.empty(len(order), dtype=chosen.dtype)
    ranks[order] = np.arange(len(order))
    drawn = np.sort(ranks[chosen], axis=1)  # small whole numbers: many times faster than np.percentile
    place = 0.95 * (len(order) - 1)
    below, above = int(place), min(int(place) + 1, len(order) - 1)
    ascending, share = values[order, 0], place - int(place)
    return np.asarray(ascending[drawn[:, below]] * (1 - share) + ascending[drawn[:, above]] * share)


def _index_type(count: int) -> type[np.uint16 | np.uint32]:
    return np.uint16 if count <= np.iinfo(np.uint16).max else np.uint32
