"""Evaluation and the gate: cases, scorers without a language model, statistics, verdict and report.

It knows no chain: whatever answers a question is passed in as a callable that returns an Observation.
"""

from llmops.evaluation._beir import (
    BeirDataset,
    BeirDocument,
    BeirRow,
    evaluate_exact,
    evaluate_search,
    load_beir,
)
from llmops.evaluation._cases import SLICES, Case, cases_digest, load_cases, save_cases
from llmops.evaluation._derive import derive_cases
from llmops.evaluation._evaluate import KEYWORD_BASELINE, CaseResult, Evaluation, evaluate
from llmops.evaluation._gate import GateRules, Rule, decide
from llmops.evaluation._report import GateReport, RuleResult
from llmops.evaluation._scorers import METRICS, Observation, RetrievedChunk, score_answer

__all__ = [
    "KEYWORD_BASELINE",
    "METRICS",
    "SLICES",
    "BeirDataset",
    "BeirDocument",
    "BeirRow",
    "Case",
    "CaseResult",
    "Evaluation",
    "GateReport",
    "GateRules",
    "Observation",
    "RetrievedChunk",
    "Rule",
    "RuleResult",
    "cases_digest",
    "decide",
    "derive_cases",
    "evaluate",
    "evaluate_exact",
    "evaluate_search",
    "load_beir",
    "load_cases",
    "save_cases",
    "score_answer",
]
