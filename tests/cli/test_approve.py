"""The demo answers an approval in spite of blips, other people's answers and a terminal that was closed."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from rich.console import Console

from llmops.cli import _approve
from llmops.cli._approve import Approver
from llmops.cli._timing import Ledger
from llmops.errors import ServiceUnavailable
from llmops.stack import AirflowError, Stack


class _Airflow:
    """An Airflow with one request; ``troubles`` are raised by the next attempts to answer."""

    def __init__(self, *troubles: Exception, answered_at_look: int | None = None) -> None:
        self.troubles = list(troubles)
        self.at_look: dict[int, Callable[[], None]] = {}
        self.addresses = {"airflow": "http://airflow"}
        self.answers: list[str] = []
        self.looks = 0
        self._answered_at_look = answered_at_look

    def client(self, user: str) -> _Airflow:
        assert user == "reviewer"
        return self

    def password(self, user: str) -> str:
        return "secret"

    def question(self, *_: str) -> dict[str, Any]:
        self.looks += 1
        self.at_look.get(self.looks, lambda: None)()
        received = self._answered_at_look is not None and self.looks >= self._answered_at_look
        return {"subject": "Release", "body": "The evidence", "response_received": received}

    def answer(self, dag_id: str, run_id: str, task_id: str, option: str, form: dict[str, str]) -> None:
        assert form == {"channel": "demo"}
        if self.troubles:
            raise self.troubles.pop(0)
        self.answers.append(option)


class _Terminal:
    """A pseudo-terminal as standard input; a person types into it."""

    def __init__(self) -> None:
        self._person, ours = os.openpty()
        self.stdin = os.fdopen(ours)
        self._open = True

    def types(self, keys: bytes) -> None:
        os.write(self._person, keys)

    def hangs_up(self) -> None:
        os.close(self._person)
        self._open = False

    def close(self) -> None:
        self.stdin.close()
        if self._open:
            os.close(self._person)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Terminal]:
    made = _Terminal()
    monkeypatch.setattr(sys, "stdin", made.stdin)
    monkeypatch.setattr(_approve, "_LOOK_SECONDS", 0.05)
    yield made
    made.close()


def _approver(airflow: _Airflow, *, attended: bool = False) -> tuple[Approver, io.StringIO]:
    screen = io.StringIO()
    return Approver(cast(Stack, airflow), Console(file=screen, width=200), Ledger(), attended), screen


def test_an_answer_that_airflow_did_not_take_is_sent_again_at_the_next_look() -> None:
    airflow = _Airflow(ServiceUnavailable("a blip"))
    approver, screen = _approver(airflow)
    with pytest.raises(ServiceUnavailable):
        approver.answer("release_assistant", "run")
    assert (approver.asked, approver.answered) == (True, False)
    for _ in range(2):
        approver.answer("release_assistant", "run")
    assert airflow.answers == ["Approve"]
    assert screen.getvalue().count("The evidence") == 1


def test_a_request_that_was_answered_elsewhere_is_left_alone() -> None:
    airflow = _Airflow(AirflowError("answered already", 409))
    approver, _ = _approver(airflow)
    approver.answer("release_assistant", "run")
    approver.answer("release_assistant", "run")
    assert (approver.answered, airflow.answers) == (True, [])


def test_any_other_refusal_is_an_error() -> None:
    approver, _ = _approver(_Airflow(AirflowError("not one of the approvers", 403)))
    with pytest.raises(AirflowError, match="approvers"):
        approver.answer("release_assistant", "run")
    assert not approver.answered


def test_a_key_is_asked_for_once_even_when_its_answer_has_to_be_sent_twice(terminal: _Terminal) -> None:
    airflow = _Airflow(ServiceUnavailable("a blip"), answered_at_look=50)
    approver, screen = _approver(airflow, attended=True)
    airflow.at_look[2] = lambda: terminal.types(b"x\nr\n")
    with pytest.raises(ServiceUnavailable):
        approver.answer("release_assistant", "run")
    approver.answer("release_assistant", "run")
    assert airflow.answers == ["Reject"]
    assert screen.getvalue().count("press a (approve)") == 1
    assert screen.getvalue().count("a approves, r rejects") == 1
    assert approver.ledger.human > 0


@pytest.mark.parametrize("ending", ["end of file", "hang-up"])
def test_after_the_end_of_the_input_it_waits_for_an_answer_in_airflow(
    terminal: _Terminal, ending: str
) -> None:
    airflow = _Airflow(answered_at_look=6)
    approver, screen = _approver(airflow, attended=True)
    airflow.at_look[2] = terminal.hangs_up if ending == "hang-up" else lambda: terminal.types(b"\x04")
    began = time.monotonic()
    approver.answer("release_assistant", "run")
    assert (approver.answered, airflow.answers, airflow.looks) == (True, [], 6)
    assert time.monotonic() - began > 0.15
    assert screen.getvalue().count("answer in Airflow") == 1


def test_what_was_typed_before_the_question_was_shown_is_no_answer(terminal: _Terminal) -> None:
    airflow = _Airflow(answered_at_look=4)
    approver, _ = _approver(airflow, attended=True)
    terminal.types(b"a\na\n")
    approver.answer("release_assistant", "run")
    assert (approver.answered, airflow.answers, airflow.looks) == (True, [], 4)


def test_a_terminal_that_is_closed_before_the_question_leaves_it_to_airflow(terminal: _Terminal) -> None:
    airflow = _Airflow(answered_at_look=3)
    approver, _ = _approver(airflow, attended=True)
    terminal.hangs_up()
    approver.answer("release_assistant", "run")
    assert (approver.answered, airflow.answers) == (True, [])
