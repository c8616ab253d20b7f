"""Data quality: what a text is screened for, what it measures, and the suites that stand before every merge."""

from llmops.quality._check import (
    QualityFailure,
    SourceFigures,
    SourceVerdict,
    check_sources,
    gate_failure,
    judged_schema,
)
from llmops.quality._corpus import corpus_figures
from llmops.quality._docs import docs_folder, publish
from llmops.quality._measures import Measures, measure
from llmops.quality._results import result_rows, results_schema
from llmops.quality._rules import QualityRules, rules_for
from llmops.quality._sensitive import Screened, SensitiveRules, screen
from llmops.quality._suites import load_suite

__all__ = [
    "Measures",
    "QualityFailure",
    "QualityRules",
    "Screened",
    "SensitiveRules",
    "SourceFigures",
    "SourceVerdict",
    "check_sources",
    "corpus_figures",
    "docs_folder",
    "gate_failure",
    "judged_schema",
    "load_suite",
    "measure",
    "publish",
    "result_rows",
    "results_schema",
    "rules_for",
    "screen",
]
