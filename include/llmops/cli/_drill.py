"""The drill itself: what is prepared, what is tried, and what has to happen then."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from llmops.cli._drill_assistant import ASSISTANT, QUESTIONS, write_assistant
from llmops.cli._drill_faults import Faults, Refused, Surprise
from llmops.cli._drill_questions import Questioner, wait_for
from llmops.database import connect
from llmops.errors import StackError
from llmops.release import (
    ApprovalRequest,
    RunReference,
    code_digest,
    ledger,
    list_releases,
    production_release,
    read_manifest,
    request_of_run,
)
from llmops.settings import Environment, assistant_names, load_environment
from llmops.stack import AirflowClient, Stack

__all__ = ["Drill", "Tally"]

_DAG, _TASK = "release_assistant", "ask_reviewer"
_RELEASE_SECONDS = 300.0


@dataclass
class Tally:
    """How often one class of attack was tried, and how often something else than a refusal came of it."""

    name: str
    tried: int = 0
    surprises: int = 0


@dataclass
class Drill:
    """Attacks the releases of one assistant on the running stack, ``kills`` times per class."""

    home: Path
    kills: int = 1
    seed: int = 7
    stack: Stack = field(default_factory=Stack)
    surprises: list[str] = field(default_factory=list)
    tallies: list[Tally] = field(default_factory=list)
    questions: int = 0

    def run(self) -> None:
        """Prepare, attack while questions are asked, and say how it went."""
        if not self.stack.is_running:
            raise StackError("no stack is running here: `make demo` first, then `make drill`")
        began = time.monotonic()
        environment = load_environment()
        base, candidate, run_id = self._prepare(environment)
        others = [name for name in assistant_names() if production_release(environment, name) is not None]
        faults = Faults(environment, self.stack, base, candidate, run_id, random.Random(self.seed))
        with Questioner(environment, sorted({ASSISTANT, *others}), QUESTIONS) as questioner:
            for name, attack in faults.classes():
                self._attack(name, attack)
        wrong = questioner.wrong()
        self.questions = len(questioner.asked)
        for problem in wrong[:10]:
            click.secho(f"✗ {problem}", fg="red")
        self.surprises += wrong
        click.echo(
            f"\n{self.questions} questions were asked meanwhile: {len(wrong)} wrong answers. "
            f"{sum(tally.tried for tally in self.tallies)} attacks, "
            f"{sum(tally.surprises for tally in self.tallies)} surprises, "
            f"{time.monotonic() - began:.0f} s."
        )

    def results(self) -> dict[str, Any]:
        """Return the counts of this drill."""
        return {
            "seed": self.seed,
            "questions": self.questions,
            "classes": [(tally.name, tally.tried, tally.surprises) for tally in self.tallies],
        }

    def _attack(self, name: str, attack: Callable[[int], Refused]) -> None:
        """Try one class of attack as often as wished; show the first refusal and every surprise."""
        tally = Tally(name)
        self.tallies.append(tally)
        for number in range(self.kills):
            tally.tried += 1
            try:
                refused = attack(number)
            except Surprise as surprise:
                tally.surprises += 1
                self.surprises.append(f"{name}: {surprise}")
                click.secho(f"✗ {name}: {surprise}", fg="red")
                continue
            if number == 0:
                where = (
                    f"ledger entry {refused.entry}" if refused.entry else "no entry: it never got that far"
                )
                click.echo(f"✓ {name}\n    {refused.said}\n    {where}")
        if self.kills > 1:
            click.echo(f"    {tally.tried} times, {tally.surprises} surprises")

    def _prepare(self, environment: Environment) -> tuple[ApprovalRequest, ApprovalRequest, str]:
        """Return the request of the production release, that of a candidate nobody has answered yet, and its run."""
        url = environment.database_url.get_secret_value()
        number = len(list_releases(url, ASSISTANT))
        write_assistant(self.home, number)
        if not self._has_base(environment):
            click.echo(f"Releasing the assistant {ASSISTANT!r}, which this drill attacks ...")
            self._run("ingest_documents")
            self._wait(self._release(), approve=True)
            write_assistant(self.home, number + 1)
        wait_for(ASSISTANT, environment.serving_url)
        click.echo("Assembling, evaluating and staging a candidate that waits for its approval ...")
        run_id = self._release()
        self._wait(run_id, approve=False)
        entries = ledger(url, ASSISTANT, "production")
        present = entries[-1].to_release
        nonce = next(
            e.approval_nonce for e in reversed(entries) if (e.action, e.to_release) == ("promote", present)
        )
        base = self._request_of(url, str(nonce))
        return base, request_of_run(url, RunReference(_DAG, run_id, _TASK)), run_id

    def _release(self) -> str:
        self.stack.client("admin").unpause(_DAG)
        return self.stack.client("author").trigger(_DAG, {"assistant": ASSISTANT})

    def _run(self, dag_id: str) -> None:
        self.stack.client("admin").unpause(dag_id)
        author = self.stack.client("author")
        run_id = author.trigger(dag_id, {"assistant": ASSISTANT})
        if author.wait_for_run(dag_id, run_id, timeout_seconds=_RELEASE_SECONDS) != "success":
            raise StackError(f"the run {run_id!r} of {dag_id!r} failed: see {_page(author, dag_id, run_id)}")

    def _wait(self, run_id: str, *, approve: bool) -> None:
        """Wait until a run asks for approval; give it and wait for the end, if that is wished."""
        reviewer = self.stack.client("reviewer")
        until = time.monotonic() + _RELEASE_SECONDS
        while reviewer.question(_DAG, run_id, _TASK) is None:
            if time.monotonic() > until or reviewer.run(_DAG, run_id)["state"] not in ("queued", "running"):
                raise StackError(
                    f"the run {run_id!r} asks for no approval: see {reviewer.url}/dags/{_DAG}/runs/{run_id}"
                )
            time.sleep(1)
        if approve:
            reviewer.answer(_DAG, run_id, _TASK, "Approve", {"channel": "demo"})
            if reviewer.wait_for_run(_DAG, run_id, timeout_seconds=_RELEASE_SECONDS) != "success":
                raise StackError(f"the run {run_id!r} failed: see {_page(reviewer, _DAG, run_id)}")

    @staticmethod
    def _has_base(environment: Environment) -> bool:
        """Tell whether a release of the drill's assistant, judged with the code that runs, is in production."""
        url = environment.database_url.get_secret_value()
        present = production_release(environment, ASSISTANT)
        return present is not None and read_manifest(url, present).code_digest == code_digest()

    @staticmethod
    def _request_of(url: str, nonce: str) -> ApprovalRequest:
        with connect(url) as connection:
            row = connection.execute(
                "SELECT dag_id, run_id, task_id FROM approval_requests WHERE nonce = %s", (nonce,)
            ).fetchone()
        assert row is not None
        return request_of_run(url, RunReference(*row))


def _page(airflow: AirflowClient, dag_id: str, run_id: str) -> str:
    return f"{airflow.url}/dags/{dag_id}/runs/{run_id}"
