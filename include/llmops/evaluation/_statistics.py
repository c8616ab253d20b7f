"""Statistics of paired scores: bootstrap intervals and what a number of questions can tell. Pure."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = [
    "Interval",
    "derive_seed",
    "paired_bootstrap",
    "questions_needed",
    "smallest_excludable_loss",
    "standard_error",
    "statistic_of",
]

Floats = npt.NDArray[np.float64]
Statistic = Literal["mean", "p95"]

_BATCH = 1_000_000


@dataclass(frozen=True)
class Interval:
    """An estimate and its bounds, each of which holds with the stated confidence on its own side."""

    estimate: float
    lower: float
    upper: float


def statistic_of(samples: Floats, statistic: Statistic) -> Floats:
    """Return the statistic of each row of ``samples``, shape (samples, questions) → (samples,)."""
    if statistic == "mean":
        return np.asarray(samples.mean(axis=1))
    return np.asarray(np.percentile(samples, 95, axis=1))


def paired_bootstrap(
    candidate: Floats,
    baseline: Floats,
    *,
    statistic: Statistic = "mean",
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Return statistic(candidate) - statistic(baseline) with bias-corrected, accelerated bootstrap bounds.

    Both arrays hold one score per question, in the same order; questions are resampled together, so
    what makes a question hard for both cancels out. Each bound is one-sided: the true difference lies
    below ``lower`` with probability 1 - ``confidence``, and above ``upper`` likewise. The plain percentile
    interval would be too narrow on the side of the losses when a few questions are lost and none is won.

    BCa: Efron, Better bootstrap confidence intervals, JASA 1987, https://doi.org/10.2307/2289144.
    """
    if candidate.shape != baseline.shape or candidate.ndim != 1 or not candidate.size:
        raise ValueError(f"paired scores must be two equal rows, got {candidate.shape} and {baseline.shape}")
    both = np.stack([candidate, baseline])
    estimate = float(np.subtract(*statistic_of(both, statistic)))
    if np.array_equal(candidate, baseline):
        return Interval(0.0, 0.0, 0.0)
    differences = _resample(both, statistic, resamples, seed)
    levels = _corrected_levels(differences, estimate, _acceleration(both, statistic), confidence)
    lower, upper = np.quantile(differences, levels)
    return Interval(estimate, float(lower), float(upper))


def standard_error(scores: Floats, *, statistic: Statistic, resamples: int, seed: int) -> float:
    """Return the standard error of a statistic of ``scores``: closed form for a mean, else bootstrap."""
    if scores.size < 2:
        return 0.0
    if statistic == "mean":
        return float(scores.std(ddof=1) / math.sqrt(scores.size))
    return float(_resample(scores[None, :], statistic, resamples, seed).std(ddof=1))


def smallest_excludable_loss(
    error: float, questions: int, *, confidence: float, power: float, bounded: bool = True
) -> float:
    """Return the smallest tolerance that an equally good candidate passes with probability ``power``.

    ``error`` is the standard error of the baseline's own figure. It stands for that of the paired
    difference, which is exact when the scores of two equally good releases correlate by one half; real
    releases correlate more, so this errs on the safe side. The usual sample-size formula for
    non-inferiority, (z_confidence + z_power) · error, never goes below -ln(1 - confidence) / questions
    for a score between 0 and 1: that much loss can hide behind questions which all scored the same
    (the rule of three; Hanley and Lippman-Hand, JAMA 1983).
    """
    loss = _z(confidence, power) * error
    return max(loss, -math.log(1 - confidence) / questions) if bounded else loss


def questions_needed(
    error: float, questions: int, tolerance: float, *, confidence: float, power: float, bounded: bool = True
) -> int:
    """Return how many questions of the same spread make ``tolerance`` the smallest excludable loss."""
    needed = questions * (_z(confidence, power) * error / tolerance) ** 2
    return math.ceil(max(needed, -math.log(1 - confidence) / tolerance if bounded else 0))


def derive_seed(seed: int, *parts: str | None) -> int:
    """Return a seed of its own for one comparison, whatever order comparisons are made in."""
    text = "\0".join([str(seed), *("" if part is None else part for part in parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _corrected_levels(
    differences: Floats, estimate: float, acceleration: float, confidence: float
) -> tuple[float, float]:
    """Return the quantiles of the bootstrap distribution that bound with ``confidence``, bias corrected."""
    normal = NormalDist()
    below = float(np.mean(differences < estimate) + np.mean(differences == estimate) / 2)
    if not 0 < below < 1:
        return 1 - confidence, confidence
    bias = normal.inv_cdf(below)

    def level(wanted: float) -> float:
        shifted = bias + normal.inv_cdf(wanted)
        return normal.cdf(bias + shifted / (1 - acceleration * shifted))

    return level(1 - confidence), level(confidence)


def _acceleration(both: Floats, statistic: Statistic) -> float:
    """Return the skewness of the jackknife over 6: how fast the standard error changes with the value."""
    count = both.shape[1]
    if statistic == "mean":
        influence = (both[0] - both[1]) - (both[0] - both[1]).mean()
    else:
        left_out = [np.subtract(*statistic_of(np.delete(both, i, axis=1), statistic)) for i in range(count)]
        influence = np.mean(left_out) - np.asarray(left_out)
    spread = float((influence**2).sum())
    return float((influence**3).sum() / (6 * spread**1.5)) if spread > 0 else 0.0


def _z(confidence: float, power: float) -> float:
    return NormalDist().inv_cdf(confidence) + NormalDist().inv_cdf(power)


def _resample(rows: Floats, statistic: Statistic, resamples: int, seed: int) -> Floats:
    """Return the bootstrap distribution of the first row's statistic, less the second row's if there is one.

    Resamples come in batches, so that memory stays flat however many questions there are.
    """
    generator = np.random.default_rng(seed)
    count = rows.shape[1]
    batch = max(1, _BATCH // count)
    found = []
    for start in range(0, resamples, batch):
        size = (min(batch, resamples - start), count)
        chosen = generator.integers(0, count, size=size, dtype=np.int32)
        if statistic == "mean" and len(rows) == 2:
            found.append(statistic_of((rows[0] - rows[1])[chosen], statistic))
            continue
        figures = [statistic_of(row[chosen], statistic) for row in rows]
        found.append(figures[0] - figures[1] if len(figures) == 2 else figures[0])
    return np.concatenate(found)
