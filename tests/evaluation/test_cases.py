import json

import pytest

from llmops.errors import ConfigurationError, MissingInput
from llmops.evaluation import Case, cases_digest, load_cases, save_cases

_CASE = {
    "id": "a",
    "question": "How?",
    "expected_documents": ["guide:one"],
    "facts": ["It works so."],
    "slice": "how-to",
}


def _file(tmp_path, *rows):
    path = tmp_path / "cases.jsonl"
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows), encoding="utf-8")
    return path


def test_cases_are_read_in_file_order_and_blank_lines_are_skipped(tmp_path):
    refusal = {"id": "b", "question": "Why?", "slice": "unanswerable"}
    first, second = load_cases(_file(tmp_path, refusal, "", _CASE))
    assert (first.id, first.unanswerable, second.facts) == ("b", True, ("It works so.",))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"fact": "x"}, "fact"),
        ({"slice": "howto"}, "slice"),
        ({"expected_documents": []}, "unanswerable"),
        ({"expected_documents": ["no-colon"]}, "expected_documents"),
        ({"facts": ["same", "same"]}, "twice"),
        ({"slice": "unanswerable"}, "no expected_documents"),
        ({"question": "  "}, "question"),
        ({"id": "../../etc"}, "id"),
    ],
)
def test_a_wrong_case_is_refused_with_file_and_line(tmp_path, change, says):
    path = _file(tmp_path, {**_CASE, "id": "first", "question": "First?"}, {**_CASE, **change})
    with pytest.raises(ConfigurationError, match=says) as error:
        load_cases(path)
    assert f"{path}:2" in str(error.value)


@pytest.mark.parametrize("line", ["{broken", "[1, 2]"])
def test_a_line_that_is_no_object_is_refused_with_file_and_line(tmp_path, line):
    with pytest.raises(ConfigurationError, match=r"cases\.jsonl:2"):
        load_cases(_file(tmp_path, _CASE, line))


@pytest.mark.parametrize(
    ("second", "says"),
    [({**_CASE, "question": "Else?"}, "id 'a'"), ({**_CASE, "id": "b", "question": " how? "}, "question")],
)
def test_a_repeated_id_or_question_is_refused_and_both_lines_are_named(tmp_path, second, says):
    with pytest.raises(ConfigurationError, match=rf":2: the {says}.*line 1"):
        load_cases(_file(tmp_path, _CASE, second))


def test_no_file_no_case_and_no_text_are_clear_errors(tmp_path):
    with pytest.raises(MissingInput, match="cases export"):
        load_cases(tmp_path / "absent.jsonl")
    with pytest.raises(MissingInput, match="holds no case"):
        load_cases(_file(tmp_path, "", ""))
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="UTF-8"):
        load_cases(tmp_path / "binary.jsonl")


def test_saved_cases_are_read_back_equal(tmp_path):
    cases = [Case(**_CASE), Case(id="b", question="Größe?", slice="unanswerable", synthetic=True)]
    save_cases(cases, tmp_path / "new" / "cases.jsonl")
    assert load_cases(tmp_path / "new" / "cases.jsonl") == cases
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["cases.jsonl"]


def test_digest_ignores_order_and_sees_every_change():
    one, two = Case(**_CASE), Case(id="b", question="Why?", slice="unanswerable")
    assert cases_digest([one, two]) == cases_digest([two, one])
    assert cases_digest([one, two]) != cases_digest([one, two.model_copy(update={"question": "Why not?"})])
    assert cases_digest([one]) != cases_digest([one, two])
