"""The suites in front of every merge."""

from __future__ import annotations

import logging
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from llmops.errors import QualityGateFailed
from llmops.quality import QualityRules, check_documents


def documents(count: int = 20, **columns: list[Any]) -> pa.Table:
    names = ("document_id", "version", "source", "path", "title", "text")
    made = {name: [f"{name}{n}" for n in range(count)] for name in names}
    return pa.table({**made, **columns}, schema=pa.schema([(name, pa.string()) for name in names]))


def test_sound_documents_pass_every_expectation() -> None:
    verdict = check_documents(documents(), 0, 20, 0, QualityRules())
    assert verdict.expectations == 11
    assert verdict.failures == ()


def test_a_repeated_id_is_named_with_its_rows() -> None:
    rows = documents(3, document_id=["a", "b", "a"])
    with pytest.raises(QualityGateFailed) as caught:
        check_documents(rows, 0, 0, 0, QualityRules())
    message = str(caught.value)
    assert "1 of 11 expectations" in message
    assert (
        "expect_column_values_to_be_unique on 'document_id' failed for source0:path0 (a), source2:path2 (a)"
        in message
    )
    assert "nothing was merged" in message


@pytest.mark.parametrize("column", ["document_id", "version", "source", "path", "title"])
def test_a_missing_value_is_named(column: str) -> None:
    values: list[str | None] = [f"{column}{n}" for n in range(3)]
    values[1] = None
    with pytest.raises(QualityGateFailed, match=f"to_not_be_null on '{column}' failed for"):
        check_documents(documents(3, **{column: values}), 0, 0, 0, QualityRules())


def test_a_length_outside_the_bounds_is_named_with_the_bounds() -> None:
    rows = documents(2, text=["short", "x" * 50])
    with pytest.raises(
        QualityGateFailed, match=r"\(at least 6, at most 40\) failed for source0:path0 \(5\), source1"
    ):
        check_documents(rows, 0, 0, 0, QualityRules(min_characters=6, max_characters=40))


def test_many_rows_are_counted_not_listed() -> None:
    with pytest.raises(QualityGateFailed, match="and 15 more"):
        check_documents(documents(20, text=["long text"] * 20), 0, 0, 0, QualityRules(max_characters=2))


@pytest.mark.parametrize(
    ("figures", "failing"),
    [
        ((6, 0, 0), "quarantined_share"),
        ((0, 20, 7), "shrinkage"),
        ((5, 0, 0), None),
        ((0, 5, 5), None),
        ((0, 20, 6), None),
    ],
)
def test_shares_count_once_they_are_more_than_a_few_files(
    figures: tuple[int, int, int], failing: str | None
) -> None:
    if failing is None:
        check_documents(documents(), *figures, QualityRules())
        return
    with pytest.raises(QualityGateFailed, match=failing):
        check_documents(documents(), *figures, QualityRules())


def test_an_empty_corpus_fails_on_the_number_of_documents() -> None:
    with pytest.raises(QualityGateFailed, match="'documents' \\(at least 1\\) failed for the value 0"):
        check_documents(documents(0), 0, 0, 0, QualityRules())


def test_rules_that_contradict_each_other_or_are_misspelt_are_refused() -> None:
    with pytest.raises(ValidationError, match="must not be above"):
        QualityRules(min_characters=5, max_characters=4)
    with pytest.raises(ValidationError, match="max_shrinkag"):
        QualityRules.model_validate({"max_shrinkag": 1})


def test_great_expectations_stays_quiet(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO):
        check_documents(documents(), 0, 0, 0, QualityRules())
    assert [record.name for record in caplog.records] == ["llmops.quality"]
    assert "Calculating Metrics" not in capfd.readouterr().err
