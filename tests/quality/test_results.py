from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from llmops.lakehouse import LakeTable
from llmops.quality import QualityRules, SourceFigures, check_sources, result_rows, results_schema
from quality.conftest import judged
from support.services import FreshDatabase

DAY = datetime(2026, 3, 2, tzinfo=UTC)


def verdicts() -> list:
    rules = QualityRules(max_characters=2)
    bad = SourceFigures("website", rules, judged(8), documents=30, quarantined=10)
    return check_sources([SourceFigures("guide", QualityRules(), judged(), documents=20), bad])


def test_there_is_one_row_for_every_expectation() -> None:
    rows = result_rows(verdicts(), "run 1", DAY)
    assert rows.schema == results_schema()
    assert rows.num_rows == 28
    by_source = rows["source"].to_pylist()
    assert (by_source.count("guide"), by_source.count("website")) == (14, 14)


def test_a_row_says_what_was_expected_and_what_was_found() -> None:
    rows = result_rows(verdicts(), "run 1", DAY).to_pylist()
    lengths = next(r for r in rows if r["source"] == "website" and r["unexpected"])
    assert {**lengths, "result_id": None} == {
        "result_id": None,
        "run_id": "run 1",
        "as_of": DAY,
        "source": "website",
        "suite": "documents",
        "scope": "documents",
        "expectation": "expect_column_values_to_be_between",
        "column": "characters",
        "expected": '{"column": "characters", "max_value": 2, "min_value": 1}',
        "success": False,
        "checked": 8,
        "unexpected": 8,
        "observed": None,
        "error": None,
        "examples": '["path0", "path1", "path2", "path3", "path4"]',
    }
    share = next(r for r in rows if r["source"] == "website" and r["column"] == "quarantined_share")
    assert (share["success"], json.loads(share["observed"]), share["examples"]) == (False, 0.25, "[]")
    passed = next(r for r in rows if r["source"] == "guide" and r["column"] == "documents")
    assert (passed["success"], passed["observed"], passed["checked"], passed["unexpected"]) == (
        True,
        "20",
        1,
        0,
    )


def test_a_run_that_is_repeated_writes_the_same_rows_again(database: FreshDatabase, tmp_path: Path) -> None:
    table = LakeTable(str(tmp_path), "quality_results")
    url = database.url("llmops_worker")
    first = table.merge(result_rows(verdicts(), "run 1", DAY), key="result_id", database_url=url)
    again = table.merge(result_rows(verdicts(), "run 1", DAY), key="result_id", database_url=url)
    other = table.merge(result_rows(verdicts(), "run 2", DAY), key="result_id", database_url=url)
    assert (first.inserted, again.written, other.inserted) == (28, 0, 28)
