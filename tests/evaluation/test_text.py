import pytest

from llmops.evaluation._text import first_sentence, statements, supports, words_of


def _says(claim, evidence):
    return supports(words_of(claim), words_of(evidence), words=0.8, pairs=0.4)


def test_words_lose_case_marks_punctuation_and_endings():
    assert words_of("**Opening** the `pool`, it's *opened*!") == words_of("opens the pool it opened")
    assert words_of("[the docs](https://x.example/y?z) say <b>so</b>") == words_of("the docs say so")
    assert words_of("1,000 rows") == words_of("1000 rows")
    assert words_of("can't, cannot, can not").sequence == ("can", "not") * 3


@pytest.mark.parametrize(
    "forms",
    [
        "setting settings set",
        "string strings",
        "open opens opened opening",
        "type types typed",
        "query queries",
    ],
)
def test_forms_of_a_word_are_one_word(forms):
    assert len(set(words_of(forms).sequence)) == 1


def test_no_word_becomes_a_negation_or_a_stop_word():
    assert "not" not in words_of("note noted noting notes").sequence
    assert _says("The pool opens its connections late.", "Note: the pool opens its connections late.")


def test_names_and_numbers_stay_as_they_are():
    assert words_of("psycopg_pool.ConnectionPool 3.3.2 s").sequence == (
        "psycopg_pool",
        "connectionpool",
        "3.3.2",
        "s",
    )


@pytest.mark.parametrize(
    "evidence",
    [
        "The pool opens its connections in the background.",
        "In the background, the pool opens its connections.",
        "THE POOL **opens its connections** in the background, as the manual says.",
        "Connections: the pool opened its connections in the background workers.",
    ],
)
def test_a_claim_is_supported_by_who_says_it_in_other_dress(evidence):
    assert _says("The pool opens its connections in the background.", evidence)


@pytest.mark.parametrize(
    "evidence",
    [
        "The pool never opens its connections in the background.",
        "The pool does not open its connections in the background.",
        "background connections pool opens",
        "The pool opens a file.",
        "",
    ],
)
def test_a_claim_is_not_supported_by_denial_salad_or_something_else(evidence):
    assert not _says("The pool opens its connections in the background.", evidence)


def test_a_claim_needs_each_of_its_numbers():
    assert _says(
        "The pool waits 30 seconds for a free connection.", "The pool waits 30 seconds for a free connection"
    )
    assert not _says(
        "The pool waits 30 seconds for a free connection.", "The pool waits 60 seconds for a free connection"
    )


def test_a_denial_elsewhere_in_the_sentence_does_no_harm():
    assert _says(
        "The default timeout is 30 seconds.", "If it is not given, the default timeout is 30 seconds."
    )


def test_markers_belong_to_the_sentence_before_them():
    found = statements("First thing happens. [1] Second thing happens [2]. Third thing happens.[3]")
    assert [s.markers for s in found] == [(1,), (2,), (3,)]


def test_a_sentence_without_marker_takes_the_next_in_its_paragraph_only():
    found = statements("Alpha comes first. Beta comes second. [1, 2]\n\nGamma stands alone.")
    assert [s.markers for s in found] == [(1, 2), (1, 2), ()]


def test_an_index_is_a_marker_only_when_that_source_exists():
    assert statements("Read row[1] of the table.", {2})[0].markers == ()
    assert statements("Read the row[1] of the table.", {1})[0].markers == (1,)


def test_nothing_inside_code_is_a_marker():
    text = "Run `execute(q, [1])` as shown. [2]\n\n```python\nrow = rows [1]\n```\n"
    assert {m for s in statements(text, {1, 2}) for m in s.markers} == {2}


def test_lead_ins_headings_and_empty_phrases_state_nothing():
    found = statements("# A heading here\n\nDo this:\n\n- Open the valve [1]\n- Close the door [1]\n\nYes.")
    assert [s.words for s in found] == [words_of("Open the valve"), words_of("Close the door")]


def test_abbreviations_and_versions_do_not_end_a_sentence():
    assert len(statements("Use a driver, e.g. psycopg 3.3, for that. It works.")) == 2


def test_first_sentence_is_the_first_that_says_something():
    assert first_sentence("## Title\n\nNote.\n\nThe pool opens connections in background. More.") == (
        "The pool opens connections in background."
    )
    assert first_sentence("```\ncode only\n```\n\nno full stop here") is None


def test_fenced_code_is_one_statement_with_the_marker_on_the_line_after_it():
    code = "```python\nrow = rows[7]\n\nprint(row). Then stop\n```"
    text = f"Open a pool. [1]\n\n{code}\n[2]\n\nClose the pool. [3]"
    found = statements(text, {1, 2, 3, 7})
    assert [s.markers for s in found] == [(1,), (2,), (3,)]
    assert found[1].words == words_of("row = rows 7 print row then stop")
