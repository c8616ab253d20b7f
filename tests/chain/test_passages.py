from __future__ import annotations

import pytest

from llmops.chain._passages import passages


def prose(text: str) -> list[str]:
    return [p.text for p in passages(text) if not p.code]


def code(text: str) -> list[str]:
    return [p.text for p in passages(text) if p.code]


def test_wrapped_lines_become_sentences() -> None:
    text = "A pool keeps\nconnections open. It is\nthread-safe!\n\nClose it at the end."
    assert prose(text) == ["A pool keeps connections open.", "It is thread-safe!", "Close it at the end."]


def test_abbreviations_versions_and_names_do_not_end_a_sentence() -> None:
    text = "Use a pool, e.g. ConnectionPool, since psycopg 3.1. See pool.open() etc. It raises PoolTimeout."
    assert prose(text) == [
        "Use a pool, e.g. ConnectionPool, since psycopg 3.1.",
        "See pool.open() etc. It raises PoolTimeout.",
    ]


def test_list_items_stand_for_themselves_and_headings_and_tables_are_left_out() -> None:
    text = "# Title\n\nIntro.\n- `a` (`int`): The first\n  thing.\n- second\n\n| x |\n|---|\n\n:param n: How."
    assert prose(text) == ["Intro.", "`a` (`int`): The first thing.", "second", ":param n: How."]


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("Do:\n\n```sql\nSELECT 1;\n\nSELECT 2;\n```\nDone.", "```sql\nSELECT 1;\n\nSELECT 2;\n```"),
        ("Do:\n\n~~~\nx = 1\n~~~\nDone.", "```\nx = 1\n```"),
        ("Do:\n\n>>> 1 + 1\n2\n\nDone.", "```python\n>>> 1 + 1\n2\n```"),
        ("Do:\n\n    x = 1\n\n    y = 2\n\nDone.", "```python\n    x = 1\n\n    y = 2\n```"),
    ],
)
def test_code_blocks_are_kept_whole(text: str, block: str) -> None:
    assert code(text) == [block]
    assert prose(text) == ["Do:", "Done."]


def test_code_whose_fences_are_in_other_chunks_is_code() -> None:
    text = "import pandas\ndf = DataFrame(\n    {'id': [1]},\n)\nwrite_deltalake('tmp', df)\n\nThis is prose."
    assert code(text) == [f"```python\n{text.split(chr(10) * 2)[0]}\n```"]
    assert prose(text) == ["This is prose."]


def test_a_chain_of_calls_is_code() -> None:
    text = (
        "(\n    dt.merge(\n        source=new,\n        predicate='x',\n    )\n    .when_matched_delete()\n)"
    )
    assert code(text) == [f"```python\n{text}\n```"]


@pytest.mark.parametrize(
    "text",
    [
        "Call `pool.open()` first.",
        "If it fails, try again:",
        "Return the id.",
        "import it first",
        "For a start: go.",
    ],
)
def test_prose_about_code_is_prose(text: str) -> None:
    assert prose(text) == [text]


def test_a_fence_glued_to_the_words_before_it_still_opens_code() -> None:
    text = "**Example:** ```python\nx = 1\n```\nDone."
    assert code(text) == ["```python\nx = 1\n```"]
    assert prose(text) == ["**Example:**", "Done."]


def test_code_cut_by_the_chunks_end_is_closed() -> None:
    assert code("Do:\n\n```python\nx = 1\ny = 2") == ["```python\nx = 1\ny = 2\n```"]


def test_code_cut_by_the_chunks_beginning_is_still_code() -> None:
    text = "y = 2\n```\n\nNow it is done."
    assert code(text) == ["```\ny = 2\n```"]
    assert prose(text) == ["Now it is done."]


@pytest.mark.parametrize("text", ["", "\n\n", "# Only a heading", "```\n```", "====\n"])
def test_nothing_to_quote_is_nothing(text: str) -> None:
    assert passages(text) == []
