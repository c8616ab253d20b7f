from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llmops.errors import ConfigurationError
from llmops.quality import QualityRules, SourceFigures, check_sources, load_suite
from quality.conftest import judged

Write = Callable[[str], Path]


def test_the_shipped_suite_holds_the_rules_values() -> None:
    suite = load_suite(None, QualityRules(max_damage=0.3, min_documents=7))
    by_column = {entry.columns()[0]: entry.arguments for entry in (*suite.documents, *suite.run)}
    assert by_column["damage"]["max_value"] == 0.3
    assert by_column["documents"]["min_value"] == 7
    assert (suite.name, len(suite.documents), len(suite.run)) == ("documents", 10, 4)


def test_a_suite_of_the_repository_stands_in_place_of_the_shipped_one(write_suite: Write) -> None:
    write_suite(
        "documents:\n"
        "  - {type: expect_column_values_to_match_regex, column: path, regex: '^docs/', mostly: 0.5}\n"
        "  - {type: expect_column_values_to_be_in_set, column: keys, value_set: [0, $min_characters]}\n"
    )
    suite = load_suite("own", QualityRules(min_characters=3))
    assert suite.run == ()
    assert suite.documents[1].arguments == {"column": "keys", "value_set": [0, 3]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "documents:\n  - {type: expect_column_values_to_be_unique, column: titel}",
            "there is no column 'titel'",
        ),
        (
            "run:\n  - {type: expect_column_max_to_be_between, column: damage}",
            "no column 'damage'. There is: documents",
        ),
        (
            "documents:\n  - {type: expect_compound_columns_to_be_unique, column_list: [path, x]}",
            "no column 'x'",
        ),
        ("documents:\n  - {type: expect_compound_columns_to_be_unique, column_list: path}", "must be a list"),
        (
            "documents:\n  - {type: expect_column_values_to_be_between, column: damage, max_value: $max_damge}",
            r"there is no rule '\$max_damge'. There is: \$min_documents",
        ),
        ("documents:\n  - {column: path}", "an expectation is a mapping with a `type`"),
        ("documents:\n  - [path]", "an expectation is a mapping with a `type`"),
        (
            "documents: {type: expect_column_values_to_be_unique}",
            "must be a list of expectations, found dict",
        ),
        ("document: []", r"unknown keys \['document'\]"),
        ("documents: []", "has no expectation"),
        ("documents: [", "is not valid YAML"),
    ],
)
def test_a_mistake_in_a_suite_is_named_with_its_place(write_suite: Write, text: str, message: str) -> None:
    path = write_suite(text)
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_suite("own", QualityRules())
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{type: expect_column_values_to_be_uniqe, column: path}", "has no expectation of this type"),
        ("{type: expect_column_values_to_be_unique, colum: path}", "colum: extra fields not permitted"),
        ("{type: expect_column_values_to_be_unique}", "column: field required"),
        (
            "{type: expect_column_values_to_be_between, column: words}",
            "min_value and max_value cannot both be None",
        ),
        (
            "{type: expect_column_values_to_be_unique, column: path, mostly: 2}",
            "mostly: ensure this value is less",
        ),
    ],
)
def test_what_great_expectations_does_not_take_is_named_before_anything_is_checked(
    write_suite: Write, entry: str, message: str
) -> None:
    path = write_suite(
        f"documents:\n  - {{type: expect_column_values_to_be_unique, column: path}}\n  - {entry}"
    )
    sound = SourceFigures("sound", QualityRules(), judged(1), documents=1)
    wrong = SourceFigures("wrong", QualityRules(), judged(1), documents=1, suite="own")
    with pytest.raises(ConfigurationError, match=message) as caught:
        check_sources([sound, wrong])
    assert f"{path}, documents[1] (expect_" in str(caught.value)


def test_a_suite_that_does_not_exist_or_has_no_name_is_refused(write_suite: Write) -> None:
    write_suite("run: []")
    with pytest.raises(ConfigurationError, match=r"no suite 'other': .*does not exist \(there is: own\)"):
        load_suite("other", QualityRules())
    with pytest.raises(ConfigurationError, match=r"suite name '\.\./own' is not valid"):
        load_suite("../own", QualityRules())
