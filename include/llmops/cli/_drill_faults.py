"""The attacks of a drill: each either is refused, and says by what, or is a surprise."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TypeVar

import httpx
import psycopg

from llmops.database import connect
from llmops.errors import LlmopsError
from llmops.release import (
    ENTERED_PER_PERSON,
    Actor,
    ApprovalRequest,
    LedgerEntry,
    alias_doubt,
    confirm,
    ledger,
    production_release,
    promote,
    read_manifest,
    registry_of,
    roll_back,
)
from llmops.settings import Environment
from llmops.stack import AirflowError, Stack

__all__ = ["Faults", "Refused", "Surprise"]

_Found = TypeVar("_Found")

_DAG, _TASK = "release_assistant", "ask_reviewer"
_STEPS = [(step, phase) for step in ("alias", "tags", "ledger") for phase in ("began", "done")]
_WAIT_SECONDS = 60.0
_CONFIRM = timedelta(seconds=60)


class Surprise(Exception):
    """Something was not refused, or not as it should be."""


@dataclass(frozen=True)
class Refused:
    """What refused an attack, in its own words, and the entry of the ledger that remembers it."""

    said: str
    entry: int | None = None


@dataclass
class Faults:
    """Everything that a drill tries against the releases of one assistant.

    ``base`` is the request of the release in production, ``candidate`` that of one that waits for approval in
    ``run_id``. The classes come in the order in which they fit: the candidate is approved in the fourth, while a
    file of it is damaged, and promoted in the last.
    """

    environment: Environment
    stack: Stack
    base: ApprovalRequest
    candidate: ApprovalRequest
    run_id: str
    chance: random.Random
    _points: list[tuple[str, str]] = field(default_factory=list)

    def classes(self) -> list[tuple[str, Callable[[int], Refused]]]:
        """Return each class of attack with its name."""
        return [
            ("the author approves their own release", self.approve_as_author),
            ("a task forges an approval in the database", self.forge_as_worker),
            ("the approval of one release is used for another", self.replay),
            ("one byte of a staged file is flipped before promotion", self.flip_a_byte),
            ("the alias is moved by hand", self.move_the_alias),
            ("a promotion is killed between two steps", self.kill_a_promotion),
        ]

    def approve_as_author(self, number: int) -> Refused:
        """Answer the candidate's request as its author: Airflow refuses, and the notary enters that it did.

        Of the same person about the same request it enters the first ten; the others are recorded as attempts.
        """
        before, attempts = self._last(), self._refused_attempts("author")
        try:
            self.stack.client("author").answer(_DAG, self.run_id, _TASK, "Approve", {"channel": "demo"})
        except AirflowError as error:
            self._require_recorded("author", attempts)
            entry = self._entry_after(before, "refuse", "author") if attempts < ENTERED_PER_PERSON else None
            return Refused(f"Airflow: status {error.status}", entry.entry if entry else None)
        raise Surprise("Airflow accepted the author's answer")

    def forge_as_worker(self, number: int) -> Refused:
        """Write an approval, a decision, a promotion and an edit with the role that tasks have."""
        nonce, release, report = self.candidate.nonce, self.candidate.release_id, self.candidate.report_hash
        forgeries = (
            "INSERT INTO approvals (nonce, release_id, report_hash, decision, approver, reason, channel, environment, "
            f"answered_at, expires_at) VALUES ('{nonce}', '{release}', '{report}', 'approved', 'reviewer', 'forged', "
            "'airflow', 'dev', now(), now() + interval '1 day')",
            "UPDATE release_ledger SET to_release = '" + release + "'",
            "DELETE FROM release_ledger",
            "SELECT append_ledger_entry(jsonb_build_object('assistant', 'drill', 'action', 'approve', 'actor', "
            f"'reviewer', 'reason', 'forged', 'to_release', '{release}'))",
            "SELECT append_ledger_entry(jsonb_build_object('assistant', 'drill', 'alias', 'production', 'action', "
            f"'promote', 'actor', 'reviewer', 'reason', 'forged', 'to_release', '{release}', 'report_hash', "
            f"'{report}', 'approval_nonce', '{nonce}'))",
        )
        said = []
        for statement in forgeries:
            try:
                with connect(self._url) as connection:
                    connection.execute(statement)
            except psycopg.errors.InsufficientPrivilege as error:
                said.append(str(error).splitlines()[0])
                continue
            raise Surprise(f"the database took {statement[:60]!r} from a worker")
        return Refused("Postgres: " + "; ".join(dict.fromkeys(said)))

    def replay(self, number: int) -> Refused:
        """Promote the candidate with the approval that the notary gave to the release in production."""
        request = replace(self.candidate, nonce=self.base.nonce)
        return self._refused(lambda: promote(self.environment, request, _somebody("replay")))

    def flip_a_byte(self, number: int) -> Refused:
        """Damage a file of the approved candidate: the DAG's promotion meets it first, then others by hand."""
        if number > 0:
            with self._flipped() as name:
                refused = self._refused(lambda: promote(self.environment, self.candidate, _somebody("drill")))
            if name not in refused.said:
                raise Surprise(f"the promotion failed for another reason: {refused.said}")
            return refused
        before = self._last()
        with self._flipped() as name:
            reviewer = self.stack.client("reviewer")
            reviewer.answer(_DAG, self.run_id, _TASK, "Approve", {"channel": "demo"})
            if reviewer.wait_for_run(_DAG, self.run_id, timeout_seconds=_WAIT_SECONDS * 3) == "success":
                raise Surprise(f"a release with a damaged {name} was promoted")
        entry = self._entry_after(before, "refuse", "author")
        if name not in entry.reason or self._production() != self.base.release_id:
            raise Surprise(f"the promotion failed for another reason: {entry.reason}")
        return Refused(entry.reason, entry.entry)

    def move_the_alias(self, number: int) -> Refused:
        """Point the alias at another release: the service says so, and answers as before."""
        present, target = str(self._production()), self._other()
        registry = registry_of(self.environment, self.candidate.assistant)
        version = registry.release_version(target)
        if version is None:
            raise Surprise("the candidate is not registered")
        registry.set_alias("production", version)
        try:
            said = self._doubt()
            served = self._served()
            if served != present:
                raise Surprise(f"the service answers with {served[:12]}, which nobody promoted")
        finally:
            self._move(present, "the alias was moved by hand")
        if alias_doubt(self.environment, self.candidate.assistant):
            raise Surprise("the alias could not be put back")
        return Refused(f"the service: {said}", self._last())

    def kill_a_promotion(self, number: int) -> Refused:
        """Kill a move of ``production`` at a step: then it is wholly old or new, and the next attempt completes it."""
        before, target = str(self._production()), self._other()
        step, phase = self._point(number)
        ended = self._in_a_process_killed_at(step, phase, target, first=number == 0)
        if ended != -9:
            raise Surprise(f"the process that moves production ended with {ended} instead of being killed")
        between = str(self._production())
        if between not in (before, target) or self._served() not in (before, target):
            raise Surprise(f"after a kill at {step} {phase}, {between[:12]} is in production")
        if number == 0:
            promote(self.environment, self.candidate, _somebody("drill"))
        else:
            self._move(target, "the drill goes on")
        confirm(self.environment, target, _CONFIRM)
        if self._production() != target or self._served() != target:
            raise Surprise(f"after a kill at {step} {phase} the promotion could not be completed")
        return Refused(
            f"killed when the step {step!r} {'had begun' if phase == 'began' else 'was done'}: production was "
            f"{'the new release' if between == target else 'the old release'}, whole; the next attempt completed it",
            self._last(),
        )

    def _point(self, number: int) -> tuple[str, str]:
        """Return where to kill: in an order of chance every point once, before any of them comes again."""
        place = number % len(_STEPS)
        if place == 0:
            self._points = self.chance.sample(_STEPS, len(_STEPS))
        return self._points[place]

    def _in_a_process_killed_at(self, step: str, phase: str, target: str, *, first: bool) -> int:
        """Move production in another process, which kills itself when a step is recorded; return how it ended."""
        move = (
            "promote(environment, request_of_run(url, RunReference(*sys.argv[4:7])), actor, kill)"
            if first
            else f"roll_back(environment, {self.candidate.assistant!r}, {target!r}, actor, 'drill', kill)"
        )
        program = f"""
import os, signal, sys
from llmops.release import Actor, RunReference, promote, request_of_run, roll_back
from llmops.settings import load_environment
environment = load_environment()
url = environment.database_url.get_secret_value()
actor = Actor(sys.argv[3], "drill")
def kill(step, phase):
    if [step, phase] == sys.argv[1:3]:
        os.kill(os.getpid(), signal.SIGKILL)
{move}
"""
        asked = (self.candidate.dag_id, self.candidate.run_id, self.candidate.task_id)
        command = [sys.executable, "-c", program, step, phase, "author", *asked]
        return subprocess.run(command, check=False, capture_output=True, timeout=120).returncode

    @contextmanager
    def _flipped(self) -> Iterator[str]:
        """Flip one byte of a file of the candidate's embedder where MLflow keeps it, and put it back."""
        from mlflow.tracking.client import MlflowClient

        manifest = read_manifest(self._url, self.candidate.release_id)
        if manifest.embedder is None:
            raise Surprise("the candidate has no embedder")
        name, version = manifest.embedder.uri.removeprefix("models:/").rsplit("/", 1)
        run_id = MlflowClient(self.environment.mlflow_url).get_model_version(name, version).run_id
        (file,) = (self.stack.home / "mlflow" / "artifacts").glob(
            f"*/{run_id}/artifacts/embedder/tokenizer.json"
        )
        good = file.read_bytes()
        place = self.chance.randrange(len(good))
        try:
            file.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
            yield file.name
        finally:
            file.write_bytes(good)

    def _refused(self, attempt: Callable[[], object]) -> Refused:
        """Return how an attempt was refused; production must not have moved."""
        before, last = self._production(), self._last()
        try:
            attempt()
        except LlmopsError as error:
            if self._production() != before:
                raise Surprise(f"production moved although it was refused: {error}") from error
            entry = self._entry_after(last, "refuse", None)
            return Refused(str(error), entry.entry)
        raise Surprise("nobody refused it")

    def _move(self, target: str, reason: str = "drill") -> None:
        roll_back(self.environment, self.candidate.assistant, target, _somebody("drill"), reason)

    def _other(self) -> str:
        """Return the one of the two releases that is not in production."""
        present = self._production()
        return self.candidate.release_id if present == self.base.release_id else self.base.release_id

    def _production(self) -> str | None:
        return production_release(self.environment, self.candidate.assistant)

    def _served(self) -> str:
        """Return the release that the service answers with."""
        response = httpx.get(
            f"{self.environment.serving_url}/release",
            params={"assistant": self.candidate.assistant},
            timeout=30,
        )
        return str(response.json().get("release"))

    def _doubt(self) -> str:
        """Return what the service says about an alias that is elsewhere, once it has seen that."""

        def said() -> str | None:
            state = httpx.get(f"{self.environment.serving_url}/readyz", timeout=30).json()
            error: str | None = state["assistants"][self.candidate.assistant]["error"]
            return error

        return _awaited(said, "the service did not notice that the alias was moved")

    def _require_recorded(self, person: str, before: int) -> None:
        """Wait until one more refused answer of a person is recorded: that comes after Airflow's response."""
        _awaited(lambda: self._refused_attempts(person) > before, "the refused answer was not recorded")

    def _refused_attempts(self, person: str) -> int:
        """Return how many answers of a person to the candidate's request Airflow refused."""
        asked = (self.candidate.dag_id, self.candidate.run_id, self.candidate.task_id)
        with connect(self._url) as connection:
            row = connection.execute(
                "SELECT count(*) FROM approval_attempts WHERE (dag_id, run_id, task_id) = (%s, %s, %s) "
                "AND person = %s AND status >= 400",
                (*asked, person),
            ).fetchone()
        return int(row[0]) if row else 0

    def _entry_after(self, last: int, action: str, actor: str | None) -> LedgerEntry:
        """Return the newest entry of an action since an entry; wait for the notary to make it."""

        def newest() -> LedgerEntry | None:
            for entry in reversed(ledger(self._url, self.candidate.assistant)):
                if entry.entry > last and entry.action == action and actor in (None, entry.actor):
                    return entry
            return None

        return _awaited(newest, f"the ledger does not say that anything was refused (after entry {last})")

    def _last(self) -> int:
        entries = ledger(self._url)
        return entries[-1].entry if entries else 0

    @property
    def _url(self) -> str:
        return self.environment.database_url.get_secret_value()


def _awaited(look: Callable[[], _Found | None], otherwise: str) -> _Found:
    """Return what ``look`` finds once it finds anything; raise Surprise when that takes too long."""
    until = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < until:
        found = look()
        if found:
            return found
        time.sleep(0.2)
    raise Surprise(otherwise)


def _somebody(name: str) -> Actor:
    return Actor(name, "drill")
