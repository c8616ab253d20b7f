"""The demo's part in an approval: show the evidence, wait for a person, or answer as the demo."""

from __future__ import annotations

import select
import sys
import termios
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from rich.text import Text

from llmops.cli._timing import Ledger
from llmops.stack import AirflowError, Stack

_TASK = "ask_reviewer"
_LOOK_SECONDS = 2.0
_CONFLICT = 409


@dataclass
class Approver:
    """Answers one approval request, or waits until somebody did so in Airflow.

    It is called at every look at the run, also after one that Airflow did not answer: what was shown
    is not shown again, and a decision that could not be sent is sent by the next call.
    ``attended`` says that the demo began on a terminal: losing it later is no reason to approve without a person.
    """

    stack: Stack
    console: Console
    ledger: Ledger
    attended: bool
    asked: bool = False
    answered: bool = False
    _decision: str | None = None
    _told: bool = False
    _keys: bool = True

    def answer(self, dag_id: str, run_id: str) -> None:
        """Show the request once; approve it as the demo when nobody attends, else wait for a person."""
        if self.answered:
            return
        question = self.stack.client("reviewer").question(dag_id, run_id, _TASK)
        if question is None:
            return
        self._show(question)
        if question["response_received"]:
            self.answered = True
            return
        if self._decision is None:
            self._decision = self._decide(dag_id, run_id)
        if self._decision is not None:
            self._send(dag_id, run_id, self._decision)
        self.answered = True

    def _show(self, question: dict[str, Any]) -> None:
        if not self.asked:
            self.console.print(Markdown(f"**{question['subject']}**\n\n{question['body']}"))
            self.asked = True

    def _decide(self, dag_id: str, run_id: str) -> str | None:
        """Return the option to answer with, or None when the request was answered in Airflow meanwhile."""
        if not self.attended:
            self._say(
                "No terminal, so the demo approves with the reviewer's account (channel demo, counts in dev only)."
            )
            return "Approve"
        began = time.monotonic()
        try:
            return self._ask_person(dag_id, run_id)
        finally:
            self.ledger.human += time.monotonic() - began

    def _send(self, dag_id: str, run_id: str, option: str) -> None:
        """Send the answer; somebody may have been faster, or an earlier attempt may have arrived after all."""
        try:
            self.stack.client("reviewer").answer(dag_id, run_id, _TASK, option, {"channel": "demo"})
        except AirflowError as error:
            if error.status != _CONFLICT:
                raise
            self._say("The request was answered already.")
            return
        if self.attended:
            self._say("Airflow has the answer; the notary records it.")

    def _ask_person(self, dag_id: str, run_id: str) -> str | None:
        """Return the option of a key, or None when the request was answered in Airflow meanwhile."""
        self._tell(dag_id, run_id)
        reviewer = self.stack.client("reviewer")
        while True:
            if option := self._key():
                return option
            question = reviewer.question(dag_id, run_id, _TASK)
            if question is None or question["response_received"]:
                return None

    def _tell(self, dag_id: str, run_id: str) -> None:
        if self._told:
            return
        self._told = True
        _forget_what_was_typed()
        url = f"{self.stack.addresses['airflow']}/dags/{dag_id}/runs/{run_id}/tasks/{_TASK}/required_actions"
        self._say(f"Approve or reject in Airflow as reviewer (password {self.stack.password('reviewer')}):")
        self._say(f"  {url}")
        self._say("or press a (approve) or r (reject) and Enter to answer here with the reviewer's account.")

    def _key(self) -> str | None:
        """Wait a moment for a key; return the option it stands for. After the end of the input only wait."""
        if not self._keys:
            time.sleep(_LOOK_SECONDS)
            return None
        if not select.select([sys.stdin], [], [], _LOOK_SECONDS)[0]:
            return None
        line = sys.stdin.readline()
        if not line:
            self._keys = False
            self._say("The terminal's input has ended: answer in Airflow.")
            return None
        option = {"a": "Approve", "r": "Reject"}.get(line.strip().lower())
        if option is None:
            self._say("a approves, r rejects")
        return option

    def _say(self, text: str) -> None:
        self.console.print(Text(f"  {text}"))


def _forget_what_was_typed() -> None:
    """Drop lines typed before the question was shown: nobody approves what they have not seen."""
    with suppress(termios.error):  # a terminal that was closed has none
        termios.tcflush(sys.stdin, termios.TCIFLUSH)
