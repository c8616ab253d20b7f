"""The demo's part in an approval: show the evidence, wait for a person, or answer as the demo."""

from __future__ import annotations

import select
import sys
import time
from dataclasses import dataclass

from rich.console import Console
from rich.markdown import Markdown
from rich.text import Text

from llmops.cli._timing import Ledger
from llmops.stack import Stack

_TASK = "ask_reviewer"


@dataclass
class Approver:
    """Answers one approval request, or waits until somebody did so in Airflow."""

    stack: Stack
    console: Console
    ledger: Ledger
    asked: bool = False

    def answer(self, dag_id: str, run_id: str) -> None:
        """Show the request once; without a terminal approve it as the demo, with one wait for a person."""
        if self.asked:
            return
        question = self.stack.client("reviewer").question(dag_id, run_id, _TASK)
        if question is None:
            return
        self.asked = True
        self.console.print(Markdown(f"**{question['subject']}**\n\n{question['body']}"))
        began = time.monotonic()
        option = "Approve" if not sys.stdin.isatty() else self._ask_person(dag_id, run_id)
        if not sys.stdin.isatty():
            self._say(
                "No terminal, so the demo approves with the reviewer's account (channel demo, counts in dev only)."
            )
        else:
            self.ledger.human += time.monotonic() - began
        if option is not None:
            self.stack.client("reviewer").answer(dag_id, run_id, _TASK, option, {"channel": "demo"})

    def _ask_person(self, dag_id: str, run_id: str) -> str | None:
        """Return the option of a key, or None when the request was answered in Airflow meanwhile."""
        url = f"{self.stack.addresses['airflow']}/dags/{dag_id}/runs/{run_id}/tasks/{_TASK}/required_actions"
        self._say(f"Approve or reject in Airflow as reviewer (password {self.stack.password('reviewer')}):")
        self._say(f"  {url}")
        self._say("or press a (approve) or r (reject) and Enter to answer here with the reviewer's account.")
        reviewer = self.stack.client("reviewer")
        while True:
            if select.select([sys.stdin], [], [], 2)[0]:
                key = sys.stdin.readline().strip().lower()
                if key in ("a", "r"):
                    return "Approve" if key == "a" else "Reject"
                self._say("a approves, r rejects")
            question = reviewer.question(dag_id, run_id, _TASK)
            if question is None or question["response_received"]:
                return None

    def _say(self, text: str) -> None:
        self.console.print(Text(f"  {text}"))
