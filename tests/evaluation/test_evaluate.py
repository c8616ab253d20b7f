import json
import threading

import pytest

from llmops.errors import IntegrityError, MissingInput
from llmops.evaluation import Case, Evaluation, Observation, evaluate

_CASES = [Case(id=f"q{n}", question=f"Question {n}?", slice="unanswerable") for n in range(8)]


def _refuse(question):
    return Observation("I do not know.", True, (), 0.2)


def _breaks_on_three(question):
    if "3" in question:
        raise TimeoutError("the judge took too long")
    return _refuse(question)


def test_a_failed_case_is_missing_with_its_error_and_never_0():
    found = evaluate(_CASES, _breaks_on_three, label="candidate")
    assert found.failures == {"q3": "TimeoutError"}
    assert "TimeoutError: the judge took too long" in found.texts[found.results[3].output]
    assert found.value("quality") == 1.0
    assert "q3" not in found.scores("quality")
    assert found.missing("quality", "unanswerable") == ["q3"]
    assert found.missing("recall_at_10") == []


def test_a_latency_that_is_no_number_is_missing():
    found = evaluate(_CASES[:1], lambda q: Observation("", True, (), float("nan")), label="x")
    assert "latency_seconds" in found.failures["q0"]


def test_when_everything_fails_nothing_is_measured():
    def broken(question):
        raise ConnectionError("down")

    found = evaluate(_CASES, broken, label="x")
    assert found.value("quality") is None
    assert set(found.means().values()) == {None}


def test_no_cases_are_refused():
    with pytest.raises(MissingInput, match="empty"):
        evaluate([], _refuse, label="x")


def test_threads_are_bounded_and_really_used():
    meeting = threading.Barrier(3, timeout=20)
    running, most, lock = 0, 0, threading.Lock()

    def answer(question):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        meeting.wait()
        with lock:
            running -= 1
        return _refuse(question)

    evaluate(_CASES[:6], answer, label="x", threads=3)
    assert most == 3


def test_order_of_cases_and_threads_change_nothing_but_the_clock():
    one = evaluate(_CASES, _breaks_on_three, label="x")
    other = evaluate(_CASES[::-1], _breaks_on_three, label="x", threads=4)
    assert one == other
    assert one.digest == other.digest


def test_progress_is_told_after_each_case():
    told = []
    evaluate(_CASES, _refuse, label="x", progress=lambda done, total: told.append((done, total)))
    assert told == [(n, 8) for n in range(1, 9)]


def test_a_stored_evaluation_is_read_back_equal_and_a_changed_one_is_refused():
    found = evaluate(_CASES, _breaks_on_three, label="x")
    stored = json.loads(json.dumps(found.to_json()))
    assert Evaluation.from_json(stored) == found
    assert "Question" not in json.dumps(stored)
    stored["results"][0]["digest"] = "0" * 64
    with pytest.raises(IntegrityError, match="evaluate again"):
        Evaluation.from_json(stored)
