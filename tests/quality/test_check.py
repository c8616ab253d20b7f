"""The suites in front of every merge."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from llmops.errors import QualityGateFailed
from llmops.quality import (
    QualityRules,
    SourceFigures,
    SourceVerdict,
    check_sources,
    gate_failure,
    screen,
)
from llmops.quality._expectations import _error
from quality.conftest import judged

BETWEEN = "expect_column_values_to_be_between"


def verdict(
    rows: pa.Table | None = None,
    figures: dict[str, int] | None = None,
    suite: str | None = None,
    **rules: Any,
) -> SourceVerdict:
    rows = judged() if rows is None else rows
    counts = {"documents": rows.num_rows, **(figures or {})}
    (found,) = check_sources([SourceFigures("docs", QualityRules(**rules), rows, suite=suite, **counts)])
    return found


def failed(found: SourceVerdict) -> dict[str, tuple[str, ...]]:
    return {failure.column: failure.found for failure in found.failures}


def told(*verdicts: SourceVerdict) -> str:
    error = gate_failure(verdicts)
    assert isinstance(error, QualityGateFailed)
    return str(error)


# --- every rule, where it holds and where it does not


def test_sound_documents_pass_every_expectation() -> None:
    found = verdict()
    assert (found.expectations, found.failures, found.passed, found.judged) == (14, (), True, 20)
    assert gate_failure([found]) is None


def test_a_repeated_id_is_named_with_its_rows() -> None:
    found = verdict(judged(3, document_id=["a", "b", "a"]))
    assert "1 of 14 expectations" in told(found)
    assert (
        "expect_column_values_to_be_unique on 'document_id' failed for docs:path0 (a), docs:path2 (a)"
        in told(found)
    )
    assert "nothing of it was merged" in told(found)


@pytest.mark.parametrize("column", ["document_id", "version", "source", "path", "title", "characters"])
def test_a_missing_value_is_named(column: str) -> None:
    values = judged(3)[column].to_pylist()
    values[1] = None
    found = verdict(judged(3, **{column: values}))
    assert [f.column for f in found.failures if f.expectation.endswith("not_be_null")] == [column]
    assert len(found.documents[0].found) == (column == "document_id")


@pytest.mark.parametrize(
    ("column", "good", "bad", "rules"),
    [
        ("characters", [6, 40, 10], [6, 5, 41], {"min_characters": 6, "max_characters": 40}),
        ("damage", [0.0, 0.01, 0.02], [0.0, 0.021, 1.0], {}),
        ("damage", [0.0, 0.5, 0.02], [0.5, 0.6, 0.7], {"max_damage": 0.5}),
        ("boilerplate_share", [0.9, 0.0, 0.5], [0.9, 0.91, 1.0], {}),
        ("boilerplate_share", [0.1, 0.0, 0.5], [0.5, 0.6, 0.7], {"max_boilerplate_share": 0.5}),
    ],
)
def test_a_figure_of_a_document_outside_its_bounds_is_named(
    column: str, good: list[float], bad: list[float], rules: dict[str, Any]
) -> None:
    assert verdict(judged(3, **{column: good}), **rules).passed
    found = verdict(judged(3, **{column: bad}), **rules)
    assert failed(found) == {column: (f"docs:path1 ({bad[1]})", f"docs:path2 ({bad[2]})")}


def test_bounds_are_told_in_words() -> None:
    found = verdict(judged(1, characters=[5]), min_characters=6, max_characters=40)
    assert (
        str(found.failures[0])
        == f"{BETWEEN} on 'characters' (at least 6, at most 40) failed for docs:path0 (5)"
    )


@pytest.mark.parametrize(
    ("figures", "rules", "failing"),
    [
        ({"documents": 100, "quarantined": 6}, {}, "quarantined_share"),
        ({"documents": 114, "quarantined": 6}, {}, None),
        ({"documents": 10, "quarantined": 5}, {}, None),
        ({"documents": 10, "quarantined": 1}, {"tolerated_files": 0}, "quarantined_share"),
        ({"held": 20, "vanished": 7}, {}, "shrinkage"),
        ({"held": 20, "vanished": 6}, {}, None),
        ({"held": 5, "vanished": 5}, {}, None),
        ({"documents": 100, "near_duplicates": 100}, {}, None),
        (
            {"documents": 100, "near_duplicates": 21},
            {"max_near_duplicate_share": 0.2},
            "near_duplicate_share",
        ),
        ({"documents": 100, "near_duplicates": 20}, {"max_near_duplicate_share": 0.2}, None),
        ({"documents": 2}, {"min_documents": 3}, "documents"),
        ({"documents": 3}, {"min_documents": 3}, None),
    ],
)
def test_a_figure_of_a_source_outside_its_bounds_is_named(
    figures: dict[str, int], rules: dict[str, Any], failing: str | None
) -> None:
    assert list(failed(verdict(figures=figures, **rules))) == ([failing] if failing else [])


def test_an_empty_source_fails_on_the_number_of_documents() -> None:
    found = verdict(judged(0))
    assert "'documents' (at least 1) failed for the value 0" in told(found)
    assert found.expectations == 4


# --- several sources


def test_a_failing_source_is_named_and_the_others_pass() -> None:
    rules = QualityRules()
    sources = [
        SourceFigures("guide", rules, judged(), documents=20),
        SourceFigures("website", rules, judged(2, damage=[0.0, 0.4]), documents=20),
        SourceFigures("lenient", QualityRules(max_damage=1), judged(2, damage=[0.0, 0.4]), documents=20),
        SourceFigures("old", rules, judged(0), documents=5, held=100, vanished=95),
    ]
    found = check_sources(sources)
    assert [(v.source, v.passed) for v in found] == [
        ("guide", True),
        ("website", False),
        ("lenient", True),
        ("old", False),
    ]
    message = told(*found)
    assert (
        f"source 'website': 1 of 14 expectations failed, nothing of it was merged: {BETWEEN} on 'damage'"
        in message
    )
    assert "source 'old': 1 of 4 expectations failed" in message
    assert (
        "(it would have 5 documents, 0 files could not become any, and 95 of 100 documents would go)"
        in message
    )
    assert "guide" not in message
    assert "lenient" not in message
    assert check_sources([]) == []


def test_sources_may_have_suites_of_their_own(write_suite: Callable[[str], Path]) -> None:
    write_suite(
        "documents:\n  - {type: expect_column_values_to_match_regex, column: path, regex: '^path[0-4]$'}\n"
        "  - {type: expect_column_values_to_be_between, column: keys, max_value: 0}\n"
        "run:\n  - {type: expect_column_values_to_be_between, column: documents, min_value: 3}\n"
    )
    found = verdict(judged(6, keys=[0, 0, 2, 0, 0, 0]), suite="own")
    assert (found.suite, found.expectations) == ("own", 3)
    assert failed(found) == {"path": ("docs:path5",), "keys": ("docs:path2 (2)",)}
    assert "failed for docs:path5" in told(found)
    assert '(regex "^path[0-4]$")' in told(found)


def test_a_share_of_the_documents_may_be_excepted(write_suite: Callable[[str], Path]) -> None:
    write_suite(
        "documents:\n  - {type: expect_column_values_to_be_between, column: damage, max_value: 0.1, mostly: 0.75}\n"
    )
    assert verdict(judged(4, damage=[0.0, 0.0, 0.0, 0.5]), suite="own").passed
    found = verdict(judged(4, damage=[0.0, 0.0, 0.5, 0.5]), suite="own")
    assert "(at most 0.1, in a share of 0.75) failed for docs:path2 (0.5), docs:path3 (0.5)" in told(found)


def test_many_rows_are_counted_not_listed() -> None:
    assert "path4 (3000) and 15 more " in told(verdict(max_characters=2))


def test_an_expectation_that_breaks_fails_the_source(write_suite: Callable[[str], Path]) -> None:
    write_suite("documents:\n  - {type: expect_column_values_to_match_regex, column: path, regex: '('}\n")
    found = verdict(judged(2), suite="own")
    assert "failed for an error, MetricResolutionError: Invalid regular expression" in told(found)


# --- what it costs, and what it says


def test_ten_thousand_documents_take_no_more_than_seconds() -> None:
    verdict(judged(1))  # imports
    start = time.process_time()
    assert verdict(judged(10_000)).passed
    assert time.process_time() - start < 2


def test_great_expectations_stays_quiet(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO):
        verdict()
    assert [record.name for record in caplog.records] == ["llmops.quality._check"]
    assert "Calculating Metrics" not in capfd.readouterr().err


CANARY = "Z3bra-canary"


@pytest.mark.parametrize(
    "entry",
    [
        "{type: expect_column_values_to_match_regex, column: title, regex: x}",
        "{type: expect_column_values_to_be_unique, column: title}",
        "{type: expect_column_values_to_be_between, column: title, max_value: 3}",
        "{type: expect_column_distinct_values_to_be_in_set, column: title, value_set: [a]}",
        "{type: expect_column_distinct_values_to_equal_set, column: title, value_set: [a]}",
        "{type: expect_column_most_common_value_to_be_in_set, column: title, value_set: [a]}",
        "{type: expect_compound_columns_to_be_unique, column_list: [source, title]}",
        "{type: expect_column_pair_values_to_be_equal, column_A: path, column_B: title}",
        "{type: expect_multicolumn_values_to_be_equal, column_list: [path, title]}",
        "{type: expect_column_mean_to_be_between, column: title, max_value: 3}",
        "{type: expect_column_values_to_be_dateutil_parseable, column: title}",
        "{type: expect_column_values_to_be_json_parseable, column: title}",
    ],
)
def test_no_title_is_ever_repeated(
    write_suite: Callable[[str], Path],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    entry: str,
) -> None:
    write_suite(f"documents:\n  - {entry}\n")
    with caplog.at_level(logging.DEBUG):
        found = verdict(judged(2, title=[CANARY, CANARY]), suite="own")
    assert not found.passed
    output = capfd.readouterr()
    for text in (told(found), repr(found), str(found.documents), caplog.text, output.out, output.err):
        assert CANARY not in text
    if found.failures[0].found[0].startswith("docs:"):
        assert found.failures[0].found[0] == "docs:path0"


def test_an_error_may_quote_paths_and_never_titles() -> None:
    raised = {
        "raised_exception": True,
        "exception_message": CANARY,
        "exception_traceback": f"x\na.b.Wrong: {CANARY}\n",
    }
    for info in (raised, {"a metric": raised}):
        assert _error(info, hidden=True) == "Wrong"
        assert _error(info, hidden=False) == f"Wrong: {CANARY}"
    assert _error({"raised_exception": False}, hidden=True) is None


def test_what_was_found_in_documents_reaches_the_gate_as_counts_alone() -> None:
    counts = screen(f"https://me:{CANARY}@host", QualityRules().sensitive).counts
    found = verdict(judged(1, keys=[counts["keys"]]))
    assert counts["keys"] == 1
    assert CANARY not in repr(found)
