"""A drill counts what was not refused, judges the answers given meanwhile, and says how sure its counts make us."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from click.testing import CliRunner

from llmops import cli
from llmops.answers import AnswerChunk, AnswerOutcome, close_answer, open_answer
from llmops.cli import _drill, drill
from llmops.cli._drill import Drill
from llmops.cli._drill_faults import Faults, Refused, Surprise
from llmops.cli._drill_questions import Asked, Questioner, _ask, _was_production
from llmops.cli._drill_report import write_report
from llmops.manifest import ArtifactPin, IndexPin
from llmops.release import Actor, ApprovalRequest, LedgerEntry, promote
from llmops.settings import Environment
from support.services import FreshDatabase

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def move(
    seconds: float, to: str | None, alias: str | None = "production", assistant: str = "drill"
) -> LedgerEntry:
    return LedgerEntry(
        entry=1, assistant=assistant, alias=alias, action="promote", from_release=None, to_release=to,
        actor="a", reason="r", report_hash=None, approval_nonce=None, at=at(seconds), authentication="x",
        previous="p", hash="h",
    )  # fmt: skip


def asked(began: float, ended: float, release: str | None, **values: Any) -> Asked:
    return Asked("drill", "Why?", at(began), at(ended), release, **values)


MOVES = [move(0, "old"), move(100, "new"), move(200, "old")]


@pytest.mark.parametrize(
    ("began", "ended", "release", "right"),
    [
        (-2, -0.001, "old", False),
        (-2, 0, "old", True),
        (50, 51, "old", True),
        (50, 51, "new", False),
        (99, 100, "new", True),
        (99, 101, "old", True),
        (110, 111, "old", True),
        (110.001, 111, "old", False),
        (110.001, 200, "old", True),
        (150, 151, "new", True),
        (210, 211, "new", True),
        (210.001, 211, "new", False),
        (9_999, 10_000, "old", True),
        (50, 51, "other", False),
        (50, 51, None, False),
    ],
)
def test_an_answer_is_right_when_its_release_was_in_production_during_the_question_or_ten_seconds_before(
    began: float, ended: float, release: str | None, right: bool
) -> None:
    assert _was_production(MOVES, asked(began, ended, release)) is right


def test_other_assistants_staging_and_decisions_put_nothing_into_production() -> None:
    entries = [move(0, "x", assistant="other"), move(0, "x", alias="staging"), move(0, "x", alias=None)]
    assert not _was_production(entries, asked(1, 2, "x"))
    assert _was_production([*entries, move(0, "x")], asked(1, 2, "x"))


def test_an_answer_of_no_release_is_wrong_also_while_none_is_in_production() -> None:
    assert not _was_production([move(0, "old"), move(10, None)], asked(50, 51, None))


@pytest.mark.parametrize(
    ("response", "problem"),
    [
        (httpx.Response(200, json={"release": "r", "answer_id": "1"}), None),
        (httpx.Response(503, json={"title": "busy"}), "status 503: {'title': 'busy'}"),
        (httpx.Response(200, text="<html>"), "JSONDecodeError: "),
        (httpx.Response(200, json=["r"]), "status 200: ['r']"),
        (httpx.ConnectError("refused"), "ConnectError: refused"),
    ],
    ids=["answer", "error", "no JSON", "no object", "no connection"],
)
def test_whatever_comes_back_is_noted_and_the_questions_go_on(
    response: httpx.Response | Exception, problem: str | None
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert b'"model":"drill"' in request.content.replace(b" ", b"")
        if isinstance(response, Exception):
            raise response
        return response

    with httpx.Client(base_url="http://service", transport=httpx.MockTransport(answer)) as client:
        noted = _ask(client, "drill", "Why?")
    assert (noted.release, noted.answer_id) == (("r", "1") if problem is None else (None, None))
    assert str(noted.problem).startswith(str(problem))
    assert noted.began <= noted.ended


def test_a_drill_during_which_nothing_was_asked_has_shown_nothing(environment: Environment) -> None:
    assert Questioner(environment, ["drill"], ["Why?"]).wrong() == ["no question was asked"]


def test_a_failed_answer_and_one_of_another_release_are_wrong(
    environment: Environment, approved: Callable[..., ApprovalRequest]
) -> None:
    request = approved()
    promote(environment, request, Actor("anna", "Airflow login"))
    now = datetime.now(UTC)
    right, failed = request.release_id, "status 500: {}"
    answers = [
        Asked("guide", "Why?", now, now, release, None, problem)
        for release, problem in ((right, None), ("f" * 64, None), (None, failed), (right, failed))
    ]
    questioner = Questioner(environment, ["guide"], ["Why?"], answers)
    foreign = f"guide: an answer of release {'f' * 12}"
    assert questioner.wrong() == [foreign, f"guide: {failed}", f"guide: {failed}"]


def test_an_answer_with_a_passage_that_its_index_does_not_hold_is_wrong(
    environment: Environment, database: FreshDatabase, release: Callable[..., str],
    approved: Callable[..., ApprovalRequest],
) -> None:  # fmt: skip
    pin = ArtifactPin(uri="models:/e/1", files={}, fingerprint="f")
    indexed = release("i", embedder=pin, index=IndexPin(generation="g1", chunker={"digest": "d"}))
    with psycopg.connect(database.url("llmops_owner")) as connection:
        connection.execute("CREATE TABLE generation_g1 (chunk_id text)")
        connection.execute("INSERT INTO generation_g1 VALUES ('held')")
        connection.execute("GRANT SELECT ON generation_g1 TO llmops_worker")
    bare = release("no index")
    began = datetime.now(UTC)
    ids = {
        (name, chunk): _answered(database, release_id, chunk)
        for name, release_id in (("indexed", indexed), ("bare", bare))
        for chunk in ("held", "strange")
    }
    others = _answered(database, indexed, "strange")  # somebody else asked this
    asked_here = [
        Asked("guide", "Why?", began, datetime.now(UTC), None, answer_id) for answer_id in ids.values()
    ]
    found = Questioner(environment, ["guide"], ["Why?"], asked_here)._foreign_chunks(
        environment.database_url.get_secret_value()
    )
    wrong = {("indexed", "strange"), ("bare", "held"), ("bare", "strange")}
    assert sorted(found) == sorted(f"guide: answer {ids[key]} of chunks ['{key[1]}']" for key in wrong)
    assert others not in str(found)


def _answered(database: FreshDatabase, release_id: str, chunk: str) -> str:
    serving = database.url("llmops_serving")
    answer_id = open_answer(serving, assistant="guide", release_id=release_id, question="Why?")
    passage = AnswerChunk(chunk, "document", "v" * 64, cited=True)
    close_answer(serving, answer_id, AnswerOutcome("So.", chunks=(passage,), status="complete"))
    return answer_id


def test_the_report_bounds_what_was_never_seen_and_does_not_where_something_was(tmp_path: Path) -> None:
    file = tmp_path / "new" / "report.md"
    classes = [("forged", 300, 0), ("killed", 1_000, 2), ("once", 1, 0)]
    write_report(file, {"seed": 9, "questions": 12_345, "classes": classes})
    text = file.read_text("utf-8")
    assert "`make drill KILLS=300` (seed 9)" in text
    assert "12,345 questions" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[1:] == [
        "| forged | 300 | 0 | below 1.0% (3/300) |",
        "| killed | 1000 | 2 | see the surprises |",
        "| once | 1 | 0 | unknown: too few |",
    ]
    assert "1,301 attacks in all" in text


def test_without_a_stack_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["llmops", "drill"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    said = "error: no stack is running here: `make demo` first, then `make drill`\n"
    assert capsys.readouterr().err == said
    assert list(tmp_path.iterdir()) == []


Attack = Callable[[int], Refused]


@pytest.fixture
def attacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run ``llmops drill`` with attacks and wrong answers of our own, on no stack."""

    class Running:
        is_running = True

    class Asking:
        def __init__(self, *_: object) -> None:
            self.asked = [asked(0, 1, "old")]

        def __enter__(self) -> Asking:
            return self

        def __exit__(self, *_: object) -> None:
            """End."""

        def wrong(self) -> list[str]:
            return wrong

    wrong: list[str] = []

    def run(attacks: Sequence[tuple[str, Attack]], *arguments: str, answers: Sequence[str] = ()) -> Any:
        wrong[:] = answers
        faults = type("Faults", (), {"__init__": lambda *_: None, "classes": lambda _: attacks})
        for name, value in {
            "Questioner": Asking, "Faults": faults, "load_environment": lambda: None,
            "assistant_names": list,
        }.items():  # fmt: skip
            monkeypatch.setattr(_drill, name, value)
        monkeypatch.setattr(Drill, "_prepare", lambda *_: (None, None, "run"))
        started = partial(Drill, stack=Running())  # type: ignore[arg-type]
        monkeypatch.setattr(drill, "Drill", started)
        monkeypatch.setenv("LLMOPS_HOME", str(tmp_path))
        return CliRunner().invoke(drill.command, arguments, catch_exceptions=False)

    return run


def test_a_drill_in_which_everything_was_refused_exits_with_0(attacked: Callable[..., Any]) -> None:
    refused = [("forge", lambda _: Refused("Postgres: no")), ("kill", lambda _: Refused("whole", 12))]
    result = attacked(refused)
    assert result.exit_code == 0
    assert "✓ forge\n    Postgres: no\n    no entry: it never got that far" in result.output
    assert "✓ kill\n    whole\n    ledger entry 12" in result.output
    assert "1 questions were asked meanwhile: 0 wrong answers. 2 attacks, 0 surprises" in result.output


def test_a_drill_that_is_ended_from_outside_puts_back_what_it_damaged(attacked: Callable[..., Any]) -> None:
    put_back: list[bool] = []

    def attack(_: int) -> Refused:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            put_back.append(True)
        return Refused("nobody ended it")

    before = signal.getsignal(signal.SIGTERM)
    assert attacked([("flip", attack)]).exit_code == 128 + signal.SIGTERM
    assert put_back == [True]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_surprise_is_counted_shown_and_makes_the_drill_fail_while_the_others_go_on(
    attacked: Callable[..., Any], tmp_path: Path
) -> None:
    def sometimes(number: int) -> Refused:
        if number == 1:
            raise Surprise("nobody refused it")
        return Refused("no", 3)

    report = tmp_path / "report.md"
    classes = [("forge", sometimes), ("kill", lambda _: Refused("no"))]
    result = attacked(classes, "--kills", "3", "--report", str(report))
    assert result.exit_code == 1
    assert "✗ forge: nobody refused it" in result.output
    assert "    3 times, 1 surprises" in result.output
    assert "6 attacks, 1 surprises" in result.output
    assert "| forge | 3 | 1 | see the surprises |" in report.read_text("utf-8")
    assert "| kill | 3 | 0 | unknown: too few |" in report.read_text("utf-8")


def test_a_wrong_answer_makes_the_drill_fail(attacked: Callable[..., Any]) -> None:
    result = attacked([("kill", lambda _: Refused("no"))], answers=["guide: status 500"])
    assert result.exit_code == 1
    assert "✗ guide: status 500" in result.output
    assert "1 wrong answers. 1 attacks, 0 surprises" in result.output


def test_promotions_are_killed_at_every_point_before_any_point_comes_again() -> None:
    def points(seed: int, kills: int) -> list[tuple[str, str]]:
        nothing: Any = None
        faults = Faults(nothing, nothing, nothing, nothing, "run", random.Random(seed))
        return [faults._point(number) for number in range(kills)]

    every = {(step, phase) for step in ("alias", "tags", "ledger") for phase in ("began", "done")}
    found = points(7, 12)
    assert set(found[:6]) == set(found[6:]) == every
    assert points(7, 12) == found
    assert len({tuple(points(seed, 6)) for seed in range(20)}) > 10


def test_a_drill_goes_back_only_to_a_release_of_the_code_that_runs(
    environment: Environment, approved: Callable[..., ApprovalRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_drill, "ASSISTANT", "guide")
    assert not Drill._has_base(environment), "nothing is in production"
    promote(environment, approved(), Actor("anna", "Airflow login"))
    assert Drill._has_base(environment)
    monkeypatch.setattr(_drill, "code_digest", lambda: "0" * 64)
    assert not Drill._has_base(environment)
