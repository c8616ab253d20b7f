import json

import pyarrow as pa
import pytest

from llmops.errors import MissingInput
from llmops.evaluation import derive_cases, load_cases, save_cases


def _chunks(*sections):
    """Return a chunks table; a section is (path, title, headings, text)."""
    columns = ("source", "path", "title", "heading_path", "position", "text")
    rows = [
        dict(zip(columns, ("docs", path, title, json.dumps(headings), position, text), strict=True))
        for position, (path, title, headings, text) in enumerate(sections)
    ]
    return pa.Table.from_pylist(rows)


_BOOK = _chunks(
    (
        "kiln.md",
        "The kiln",
        ["The kiln", "Firing the `kiln`"],
        "Open the lower damper before lighting. Then wait.",
    ),
    (
        "kiln.md",
        "The kiln",
        ["The kiln", "Firing the `kiln`"],
        "A second chunk of the same section, which is skipped.",
    ),
    ("kiln.md", "The kiln", ["The kiln", "Limits"], "The kiln holds forty pots at most per firing."),
    (
        "wheel.md",
        "The wheel",
        ["The wheel", "How to centre clay?"],
        "Press both hands firmly against the wet clay.",
    ),
    ("wheel.md", "The wheel", ["The wheel", "Index"], "kiln, wheel"),
    ("glaze.md", "Glazes", [], "A celadon glaze is transparent with little iron oxide."),
)


def test_cases_come_from_headings_sections_and_first_sentences():
    cases = {case.expected_documents + case.facts: case for case in derive_cases(_BOOK, limit=50)}
    firing = cases["docs:kiln.md", "Open the lower damper before lighting."]
    assert "Firing the kiln" in firing.question
    assert "The kiln" in firing.question
    assert firing.slice == "how-to"
    assert firing.question.endswith("?")
    assert cases["docs:kiln.md", "The kiln holds forty pots at most per firing."].slice == "limits"
    assert cases["docs:wheel.md", "Press both hands firmly against the wet clay."].slice == "how-to"
    assert (
        "Glazes" in cases["docs:glaze.md", "A celadon glaze is transparent with little iron oxide."].question
    )
    assert len([case for case in cases.values() if not case.unanswerable]) == 4


def test_all_are_marked_synthetic_and_some_cannot_be_answered():
    cases = derive_cases(_BOOK, limit=50)
    assert all(case.synthetic for case in cases)
    assert sum(case.unanswerable for case in cases) == 5


def test_an_off_topic_question_that_the_documents_speak_about_is_not_asked():
    text = "Let sourdough bread rise long before baking. A puppy needs a vaccine first. Penguins dive deep."
    cases = derive_cases(_chunks(("a.md", "Bread", ["Bread"], text)), limit=200)
    asked = {case.question for case in cases if case.unanswerable}
    assert not any("sourdough" in q or "puppy" in q or "penguins" in q for q in asked)
    assert asked


def test_the_same_table_and_seed_give_the_same_cases_whatever_the_order_of_rows():
    shuffled = _BOOK.take([5, 2, 0, 4, 1, 3])
    assert derive_cases(_BOOK, seed=1) == derive_cases(shuffled, seed=1)
    assert derive_cases(_BOOK, seed=1) != derive_cases(_BOOK, seed=2)


def test_a_limit_spreads_over_documents_and_keeps_one_refusal():
    cases = derive_cases(_BOOK, limit=4)
    assert len(cases) == 4
    assert len({case.expected_documents for case in cases}) == 4
    assert sum(case.unanswerable for case in cases) == 1


def test_documents_without_a_usable_section_are_a_clear_error():
    with pytest.raises(MissingInput, match="write cases by hand"):
        derive_cases(_chunks(("a.md", "", [], "x")))


def test_derived_cases_are_a_valid_file_to_edit(tmp_path):
    cases = derive_cases(_BOOK)
    save_cases(cases, tmp_path / "cases.jsonl")
    assert load_cases(tmp_path / "cases.jsonl") == cases
