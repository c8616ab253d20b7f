"""A promotion that dies between any two steps is finished or taken back, and nobody is answered from half of it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from llmops.errors import MissingInput, NotApproved, NotConfirmed
from llmops.release import (
    Actor,
    ApprovalRequest,
    alias_doubt,
    confirm,
    ledger,
    production_release,
    promote,
    registry_of,
    report_replica,
    roll_back,
)
from llmops.release._moves import find_move
from llmops.settings import Environment
from support.http import FakeService, listening
from support.services import FreshDatabase

Ask = Callable[..., ApprovalRequest]
AUTHOR = Actor("author", "Airflow login")
POINTS = [(step, phase) for step in ("alias", "tags", "ledger") for phase in ("began", "done")]
NAMES = [f"{step} {phase}" for step, phase in POINTS]


class Killed(BaseException):
    """Ends a promotion where it stands, past every handler."""


def dying(point: tuple[str, str]) -> Callable[[str, str], None]:
    """Return an observer that ends the promotion at a point."""

    def die(step: str, phase: str) -> None:
        if (step, phase) == point:
            raise Killed

    return die


def killed(point: tuple[str, str], action: Callable[[Callable[[str, str], None]], Any]) -> int:
    """Run ``action`` in a process that is killed at a point; return the signal that ended it."""

    def kill(step: str, phase: str) -> None:
        if (step, phase) == point:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            action(kill)
        finally:
            os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


def production(environment: Environment) -> str | None:
    return production_release(environment, "guide")


def settled(environment: Environment) -> None:
    """Assert that alias, ledger and index agree and no move is half done."""
    assert alias_doubt(environment, "guide") is None


@pytest.mark.parametrize("point", POINTS, ids=NAMES)
def test_a_promotion_killed_between_any_two_steps_is_completed_by_the_next_attempt(
    environment: Environment, approved: Ask, url: str, point: tuple[str, str]
) -> None:
    first = approved("a")
    promote(environment, first, AUTHOR)
    second = approved("b", baseline=first.release_id)
    assert killed(point, lambda kill: promote(environment, second, AUTHOR, kill)) == signal.SIGKILL
    swapped = point == ("ledger", "done")
    assert production(environment) == (second if swapped else first).release_id
    assert promote(environment, second, AUTHOR) == first.release_id
    assert production(environment) == second.release_id
    settled(environment)
    moves = [entry.to_release for entry in ledger(url, "guide", "production")]
    assert moves == [first.release_id, second.release_id]
    move = find_move(url, {"assistant": "guide", "state": "running"})
    assert move is not None
    assert all(move.is_done(step) for step in ("alias", "tags", "ledger"))
    assert confirm(environment, second.release_id, timedelta()) == 0
    assert find_move(url, {"assistant": "guide", "state": "running"}) is None


@pytest.mark.parametrize("point", POINTS, ids=NAMES)
def test_a_rollback_killed_between_any_two_steps_is_settled_by_the_next_one(
    environment: Environment, approved: Ask, point: tuple[str, str]
) -> None:
    first = approved("a")
    promote(environment, first, AUTHOR)
    second = approved("b", baseline=first.release_id)
    promote(environment, second, AUTHOR)
    with pytest.raises(Killed):
        roll_back(environment, "guide", None, AUTHOR, "bad", dying(point))
    assert production(environment) == (first if point == ("ledger", "done") else second).release_id
    assert roll_back(environment, "guide", first.release_id, AUTHOR, "bad") == first.release_id
    assert production(environment) == first.release_id
    settled(environment)


@pytest.mark.parametrize("point", POINTS, ids=NAMES)
def test_a_move_that_follows_one_that_died_leaves_nothing_of_it_behind(
    environment: Environment, approved: Ask, url: str, point: tuple[str, str]
) -> None:
    """Another release is promoted instead: the one that died counts only if it had reached the ledger."""
    first = approved("a")
    promote(environment, first, AUTHOR)
    second = approved("b", baseline=first.release_id)
    with pytest.raises(Killed):
        promote(environment, second, AUTHOR, dying(point))
    reached = point == ("ledger", "done")
    third = approved("c", baseline=(second if reached else first).release_id)
    assert promote(environment, third, AUTHOR) == (second if reached else first).release_id
    assert production(environment) == third.release_id
    settled(environment)
    left = find_move(url, {"assistant": "guide", "approval_nonce": second.nonce})
    assert left is not None
    assert left.state == ("superseded" if reached else "gone back")


class FakeReplica:
    """Answers probes with a status and a body."""

    def __init__(self) -> None:
        self.status, self.body = 200, b"{}"
        self.url = ""


@pytest.fixture
def replica() -> Iterator[FakeReplica]:
    fake = FakeReplica()

    class Handler(FakeService):
        def do_POST(self) -> None:
            self.body()
            self.reply(fake.status, fake.body)

    with listening(Handler) as fake.url:
        yield fake


@pytest.fixture
def second(environment: Environment, approved: Ask) -> tuple[ApprovalRequest, ApprovalRequest]:
    """Return the requests of the release that was in production and of the one that now is, unconfirmed."""
    first = approved("a")
    promote(environment, first, AUTHOR)
    confirm(environment, first.release_id, timedelta())
    newer = approved("b", baseline=first.release_id)
    promote(environment, newer, AUTHOR)
    return first, newer


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (503, {"error": "no"}, "status 503"),
        (200, {"release": "b" * 64}, "with release bbbb"),
        (200, ["a list"], "status 200"),
        (200, None, "does not answer a probe"),
    ],
)
def test_a_replica_that_does_not_answer_a_probe_takes_the_promotion_back(
    environment: Environment, serving: Environment, replica: FakeReplica, url: str,
    second: tuple[ApprovalRequest, ApprovalRequest], status: int, body: Any, message: str,
) -> None:  # fmt: skip
    first, newer = second
    replica.status, replica.body = status, b"<html>" if body is None else json.dumps(body).encode()
    report_replica(serving, "guide", newer.release_id, "r1", replica.url)
    with pytest.raises(NotConfirmed, match=message):
        confirm(environment, newer.release_id, timedelta(seconds=0.5))
    assert production(environment) == first.release_id
    settled(environment)
    last = ledger(url, "guide", "production")[-1]
    assert (last.action, last.from_release, last.to_release, last.actor) == (
        "go back", newer.release_id, first.release_id, "llmops",
    )  # fmt: skip
    assert message in last.reason
    with pytest.raises(NotApproved, match="taken back"):
        promote(environment, newer, AUTHOR)
    assert production(environment) == first.release_id


def test_a_promotion_is_complete_when_every_live_replica_answers_a_probe_with_it(
    environment: Environment, serving: Environment, replica: FakeReplica, url: str,
    second: tuple[ApprovalRequest, ApprovalRequest],
) -> None:  # fmt: skip
    replica.body = json.dumps({"release": second[1].release_id}).encode()
    report_replica(serving, "guide", second[1].release_id, "r1", replica.url)
    report_replica(serving, "guide", second[1].release_id, "r2")
    assert confirm(environment, second[1].release_id, timedelta(seconds=1)) == 2
    move = find_move(url, {"assistant": "guide", "approval_nonce": second[1].nonce})
    assert move is not None
    assert (move.state, move.ended_at is not None) == ("complete", True)


def test_a_replica_that_changed_its_code_since_takes_the_promotion_back(
    environment: Environment, serving: Environment, database: FreshDatabase,
    second: tuple[ApprovalRequest, ApprovalRequest],
) -> None:  # fmt: skip
    report_replica(serving, "guide", second[1].release_id, "r1")
    with psycopg.connect(database.url("llmops_owner")) as connection:
        connection.execute("UPDATE replicas SET code_digest = 'another'")
    with pytest.raises(NotConfirmed, match="r1 runs code another"):
        confirm(environment, second[1].release_id, timedelta(seconds=0.5))
    assert production(environment) == second[0].release_id


@pytest.mark.parametrize("point", [("take back alias", "done"), ("take back ledger", "began")], ids=str)
def test_taking_back_that_dies_is_finished_by_the_next_confirmation(
    environment: Environment, serving: Environment, second: tuple[ApprovalRequest, ApprovalRequest],
    point: tuple[str, str],
) -> None:  # fmt: skip
    report_replica(serving, "guide", second[0].release_id, "r1")
    with pytest.raises(Killed):
        confirm(environment, second[1].release_id, timedelta(), dying(point))
    with pytest.raises(NotConfirmed):
        confirm(environment, second[1].release_id, timedelta())
    assert production(environment) == second[0].release_id
    settled(environment)


def test_a_first_release_that_no_replica_answers_with_leaves_nothing_in_production(
    environment: Environment, serving: Environment, approved: Ask
) -> None:
    request = approved()
    promote(environment, request, AUTHOR)
    report_replica(serving, "guide", "c" * 64, "r1")
    with pytest.raises(NotConfirmed):
        confirm(environment, request.release_id, timedelta())
    assert production(environment) is None
    assert registry_of(environment, "guide").alias("production") is None
    with pytest.raises(MissingInput, match="no production release"):
        roll_back(environment, "guide", None, AUTHOR, "why")
