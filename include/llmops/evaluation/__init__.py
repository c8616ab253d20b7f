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
from llmops.evaluation._cases import SLICES, Case, case_digest, cases_digest, load_cases, save_cases
from llmops.evaluation._checks import Check
from llmops.evaluation._derive import derive_cases
from llmops.evaluation._evaluate import KEYWORD_BASELINE, CaseResult, Evaluation, evaluate
from llmops.evaluation._gate import decide
from llmops.evaluation._outputs import Judgement, digest_text
from llmops.evaluation._power import RulePower, power_of, require_power
from llmops.evaluation._replay import Replay, replay
from llmops.evaluation._report import GateReport, RuleResult
from llmops.evaluation._rules import GateRules, Rule
from llmops.evaluation._scorers import METRICS, Observation, RetrievedChunk, score_answer
from llmops.evaluation._self_test import SelfTest, self_test

__all__ = [
    "KEYWORD_BASELINE",
    "METRICS",
    "SLICES",
    "BeirDataset",
    "BeirDocument",
    "BeirRow",
    "Case",
    "CaseResult",
    "Check",
    "Evaluation",
    "GateReport",
    "GateRules",
    "Judgement",
    "Observation",
    "Replay",
    "RetrievedChunk",
    "Rule",
    "RulePower",
    "RuleResult",
    "SelfTest",
    "case_digest",
    "cases_digest",
    "decide",
    "derive_cases",
    "digest_text",
    "evaluate",
    "evaluate_exact",
    "evaluate_search",
    "load_beir",
    "load_cases",
    "power_of",
    "replay",
    "require_power",
    "save_cases",
    "score_answer",
    "self_test",
]
