"""Asking every question of a set and keeping what was measured, and what could not be."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from llmops.errors import IntegrityError, MissingInput
from llmops.evaluation._cases import Case, cases_digest
from llmops.evaluation._scorers import METRICS, Observation, score_answer
from llmops.evaluation._statistics import statistic_of

__all__ = ["KEYWORD_BASELINE", "CaseResult", "Evaluation", "evaluate"]

KEYWORD_BASELINE = "keyword baseline"
"""Label of what the first release is compared with: the same assistant, searching by keywords only."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaseResult:
    """What one case gave: its scores, or the error that left it without any."""

    case: Case
    scores: Mapping[str, float]
    error: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """The results of one assistant on one set of cases, in the order of their ids.

    ``label`` says what was evaluated: a release, or ``KEYWORD_BASELINE``.
    """

    label: str
    results: tuple[CaseResult, ...]

    @property
    def kind(self) -> Literal["production", "keyword"]:
        """Return what this is when it serves as a baseline."""
        return "keyword" if self.label == KEYWORD_BASELINE else "production"

    @property
    def cases(self) -> tuple[Case, ...]:
        """Return the cases that were asked."""
        return tuple(result.case for result in self.results)

    @property
    def digest(self) -> str:
        """Return the digest of the case set."""
        return cases_digest(self.cases)

    @property
    def failures(self) -> dict[str, str]:
        """Return the error of every case that was not measured, by case id."""
        return {result.case.id: result.error for result in self.results if result.error is not None}

    def scores(self, metric: str, slice_name: str | None = None) -> dict[str, float]:
        """Return the score of every case that has one for ``metric``, by case id."""
        key = METRICS[metric].score
        return {
            result.case.id: result.scores[key]
            for result in self.results
            if key in result.scores and slice_name in (None, result.case.slice)
        }

    def missing(self, metric: str, slice_name: str | None = None) -> list[str]:
        """Return the ids of the cases that ``metric`` may apply to and that were not measured."""
        failed = [result.case for result in self.results if result.error is not None]
        applies = METRICS[metric].may_apply
        return [case.id for case in failed if slice_name in (None, case.slice) and applies(case)]

    def value(self, metric: str, slice_name: str | None = None) -> float | None:
        """Return one figure for ``metric`` over what was measured, or None when nothing was."""
        scores = list(self.scores(metric, slice_name).values())
        if not scores:
            return None
        return float(statistic_of(np.asarray(scores)[None, :], METRICS[metric].statistic)[0])

    def means(self) -> dict[str, float | None]:
        """Return the figure of every metric over all cases, None where nothing was measured."""
        return {name: self.value(name) for name in METRICS}

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values that JSON can hold; ``from_json`` takes them back."""
        return {
            "label": self.label,
            "cases_digest": self.digest,
            "results": [
                {"case": r.case.model_dump(mode="json"), "scores": dict(r.scores), "error": r.error}
                for r in self.results
            ],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Evaluation:
        """Return the evaluation that ``to_json`` wrote; raise IntegrityError when its cases changed."""
        results = tuple(
            CaseResult(Case.model_validate(r["case"]), dict(r["scores"]), r["error"])
            for r in values["results"]
        )
        found = cls(values["label"], results)
        if found.digest != values["cases_digest"]:
            raise IntegrityError(
                f"the evaluation of {found.label!r} holds cases with digest {found.digest[:12]}, "
                f"but names {values['cases_digest'][:12]}: it was changed, evaluate again"
            )
        return found


def evaluate(
    cases: Sequence[Case],
    answer: Callable[[str], Observation],
    *,
    label: str,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Ask every question and score what comes back.

    ``answer`` takes a question and returns an Observation; with ``threads`` above 1 it is called from
    that many threads at once. ``progress`` is called with (done, all) after each case. A case whose
    answer raises is missing, with the error, and never counts as 0. Raises MissingInput for no cases.
    """
    if not cases:
        raise MissingInput("nothing to evaluate: the set of cases is empty")
    ordered = sorted(cases, key=lambda case: case.id)
    results: dict[str, CaseResult] = {}
    with ThreadPoolExecutor(max_workers=max(1, threads), thread_name_prefix="evaluate") as pool:
        running = {pool.submit(_measure, case, answer) for case in ordered}
        try:
            for done, future in enumerate(as_completed(running), 1):
                result = future.result()
                results[result.case.id] = result
                if progress is not None:
                    progress(done, len(ordered))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    found = Evaluation(label, tuple(results[case.id] for case in ordered))
    log.info("evaluated %s on %d cases, %d missing", label, len(ordered), len(found.failures))
    return found


def _measure(case: Case, answer: Callable[[str], Observation]) -> CaseResult:
    """Return the scores of one case, or the error that whoever answers raised, of whatever kind."""
    try:
        scores = score_answer(case, answer(case.question))
    except Exception as error:  # noqa: BLE001 - the edge between what is measured and who measures
        log.warning("case %s was not measured: %s", case.id, type(error).__name__)
        return CaseResult(case, {}, f"{type(error).__name__}: {error}"[:500])
    broken = [name for name, score in scores.items() if not math.isfinite(score)]
    if broken:
        return CaseResult(case, {}, f"not a finite number: {', '.join(broken)}")
    return CaseResult(case, scores)
