"""Asking every question of a set and keeping what was measured, and what could not be."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from llmops.errors import IntegrityError, MissingInput
from llmops.evaluation._cases import Case, Slice, case_digest, case_text, digest_of
from llmops.evaluation._outputs import Judgement, digest_text, failure_text, output_text
from llmops.evaluation._scorers import METRICS, Metric, Observation, metric_of, score_answer
from llmops.evaluation._statistics import Floats, figure

__all__ = ["KEYWORD_BASELINE", "CaseResult", "Evaluation", "Judging", "evaluate"]

KEYWORD_BASELINE = "keyword baseline"
"""Label of what the first release is compared with: the same assistant, searching by keywords only."""

Judging = Callable[[Sequence[tuple[Case, Observation]]], Sequence[Judgement]]
"""What gives answers to questions a score of its own, in their order."""

Mask = npt.NDArray[np.bool_]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaseResult:
    """What one case gave: its scores, or the kind of error that left it without any. It holds no text.

    ``digest`` is that of the case and ``output`` that of what was answered. ``missing`` names the scores that
    apply and yet could not be had: a judge that failed, a price that nobody knows.
    """

    id: str
    slice: Slice
    synthetic: bool
    digest: str
    scores: Mapping[str, float]
    missing: tuple[str, ...] = ()
    error: str | None = None
    output: str | None = None

    @classmethod
    def of(
        cls,
        case: Case,
        scores: Mapping[str, float],
        error: str | None = None,
        *,
        missing: Iterable[str] = (),
        output: str | None = None,
    ) -> CaseResult:
        """Return the result of a case."""
        return cls(
            case.id,
            case.slice,
            case.synthetic,
            case_digest(case),
            scores,
            tuple(sorted(missing)),
            error,
            output,
        )


@dataclass(frozen=True)
class Evaluation:
    """The results of one assistant on one set of cases, in the order of their ids.

    ``label`` says what was evaluated: a release, or ``KEYWORD_BASELINE``. ``texts`` are the cases and what was
    answered, by digest; an evaluation that was read back has none, and decides like any other.
    """

    label: str
    results: tuple[CaseResult, ...]
    texts: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "results", tuple(sorted(self.results, key=lambda result: result.id)))

    @property
    def kind(self) -> Literal["production", "keyword"]:
        """Return what this is when it serves as a baseline."""
        return "keyword" if self.label == KEYWORD_BASELINE else "production"

    @cached_property
    def digest(self) -> str:
        """Return the digest of the case set."""
        return digest_of([result.digest for result in self.results])

    @property
    def failures(self) -> dict[str, str]:
        """Return the kind of error of every case that was not measured, by case id."""
        return {result.id: result.error for result in self.results if result.error is not None}

    def scores(self, metric: str, slice_name: str | None = None) -> dict[str, float]:
        """Return the score of every case that has one for ``metric``, by case id."""
        scored = np.flatnonzero(self.scored(metric, slice_name))
        first = self.values(metric)[:, 0]
        return {self.results[place].id: float(first[place]) for place in scored}

    def values(self, metric: str) -> Floats:
        """Return all scores that ``metric`` needs, shape (cases, columns), NaN where there is none."""
        return np.stack([self._column(name) for name in _metric(metric).columns], axis=1)

    def scored(self, metric: str, slice_name: str | None = None) -> Mask:
        """Return which cases have what ``metric`` needs, shape (cases,)."""
        if (metric, slice_name) not in self._masks:
            known = [~np.isnan(self._column(name)) for name in _metric(metric).columns]
            wanted = [] if slice_name is None else [self._slices == slice_name]
            self._masks[metric, slice_name] = np.logical_and.reduce([*known, *wanted])
        return self._masks[metric, slice_name]

    def missing(self, metric: str, slice_name: str | None = None) -> list[str]:
        """Return the ids of the cases that ``metric`` may apply to and that were not measured."""
        known = _metric(metric)
        return [
            result.id
            for result in self._incomplete
            if slice_name in (None, result.slice)
            and known.may_apply(result.slice)
            and (result.error is not None or set(known.columns) & set(result.missing))
        ]

    def value(self, metric: str, slice_name: str | None = None) -> float | None:
        """Return one figure for ``metric`` over what was measured, or None when nothing was.

        A cost per good answer is None too when there is no good answer.
        """
        scored = self.scored(metric, slice_name)
        if not scored.any():
            return None
        found = figure(self.values(metric)[scored], _metric(metric).statistic)
        return found if math.isfinite(found) else None

    def means(self) -> dict[str, float | None]:
        """Return the figure of every metric over all cases, None where nothing was measured."""
        return {name: self.value(name) for name in METRICS}

    def to_json(self) -> dict[str, Any]:
        """Return everything but the texts as plain values that JSON can hold; ``from_json`` takes them back."""
        return {
            "label": self.label,
            "cases_digest": self.digest,
            "results": [asdict(result) for result in self.results],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Evaluation:
        """Return the evaluation that ``to_json`` wrote; raise IntegrityError when its cases changed."""
        results = tuple(CaseResult(**{**r, "missing": tuple(r["missing"])}) for r in values["results"])
        found = cls(values["label"], results)
        if found.digest != values["cases_digest"]:
            raise IntegrityError(
                f"the evaluation of {found.label!r} holds cases with digest {found.digest[:12]}, "
                f"but names {values['cases_digest'][:12]}: it was changed, evaluate again"
            )
        return found

    def _column(self, name: str) -> Floats:
        if name not in self._columns:
            found = [result.scores.get(name, math.nan) for result in self.results]
            self._columns[name] = np.asarray(found, dtype=float)
        return self._columns[name]

    @cached_property
    def _columns(self) -> dict[str, Floats]:
        return {}

    @cached_property
    def _masks(self) -> dict[tuple[str, str | None], Mask]:
        return {}

    @cached_property
    def _slices(self) -> npt.NDArray[np.str_]:
        return np.asarray([result.slice for result in self.results])

    @cached_property
    def _incomplete(self) -> list[CaseResult]:
        return [result for result in self.results if result.missing or result.error is not None]


def evaluate(
    cases: Sequence[Case],
    answer: Callable[[str], Observation],
    *,
    label: str,
    threads: int = 1,
    judges: Mapping[str, Judging] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Ask every question and score what comes back.

    ``answer`` takes a question and returns an Observation; with ``threads`` above 1 it is called from
    that many threads at once. ``judges`` then score all answers, each under the name of its metric.
    ``progress`` is called with (done, all) after each case. A case whose answer raises is missing, with the
    error, and never counts as 0; so is a judge's score that could not be had. Raises MissingInput for no cases.
    """
    if not cases:
        raise MissingInput("nothing to evaluate: the set of cases is empty")
    ordered = sorted(cases, key=lambda case: case.id)
    asked: dict[str, Observation | Exception] = {}
    with ThreadPoolExecutor(max_workers=max(1, threads), thread_name_prefix="evaluate") as pool:
        running = {pool.submit(_ask, case, answer): case for case in ordered}
        try:
            for done, future in enumerate(as_completed(running), 1):
                asked[running[future].id] = future.result()
                if progress is not None:
                    progress(done, len(ordered))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    judged = _judge(ordered, asked, judges or {})
    texts: dict[str, str] = {}
    results = [_result(case, asked[case.id], judged.get(case.id, {}), texts) for case in ordered]
    found = Evaluation(label, tuple(results), texts)
    log.info("evaluated %s on %d cases, %d missing", label, len(ordered), len(found.failures))
    return found


def _metric(name: str) -> Metric:
    found = metric_of(name)
    if found is None:
        raise KeyError(name)
    return found


def _ask(case: Case, answer: Callable[[str], Observation]) -> Observation | Exception:
    """Return the answer to one case, or the error that whoever answers raised, of whatever kind."""
    try:
        return answer(case.question)
    except Exception as error:  # noqa: BLE001 - the edge between what is measured and who measures
        log.warning("case %s was not measured: %s", case.id, type(error).__name__)
        return error


def _judge(
    cases: Sequence[Case], asked: Mapping[str, Observation | Exception], judges: Mapping[str, Judging]
) -> dict[str, dict[str, Judgement]]:
    """Return what every judge said of every answer there is, by case id and metric."""
    answered = [(case, given) for case in cases if isinstance(given := asked[case.id], Observation)]
    found: dict[str, dict[str, Judgement]] = {case.id: {} for case, _ in answered}
    for metric, judging in judges.items():
        for (case, _), judgement in zip(answered, judging(answered), strict=True):
            found[case.id][metric] = judgement
    return found


def _result(
    case: Case,
    given: Observation | Exception,
    judged: Mapping[str, Judgement],
    texts: dict[str, str],
) -> CaseResult:
    """Return the result of one case, and add its texts to ``texts``."""
    texts[case_digest(case)] = case_text(case)
    if isinstance(given, Exception):
        text = failure_text(f"{type(given).__name__}: {given}")
        texts[digest_text(text)] = text
        return CaseResult.of(case, {}, type(given).__name__, output=digest_text(text))
    text = output_text(given, judged)
    texts[digest_text(text)] = text
    scores = score_answer(case, given)
    broken = [name for name, score in scores.items() if not math.isfinite(score)]
    if broken:
        return CaseResult.of(case, {}, f"not a finite number: {', '.join(broken)}", output=digest_text(text))
    missing = [name for name, judgement in judged.items() if judgement.score is None]
    missing += ["cost"] if given.unpriced is not None else []
    scores |= {name: j.score for name, j in judged.items() if j.score is not None}
    return CaseResult.of(case, scores, missing=missing, output=digest_text(text))
