"""``llmops ledger verify`` and ``llmops receipt`` say by their exit code whether the evidence holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.test_release_command import ANNA, Run
from llmops.answers import AnswerOutcome, close_answer, open_answer
from llmops.cli import ledger as ledger_module
from llmops.cli import receipt as receipt_module
from llmops.errors import MissingInput
from llmops.release import ApprovalRequest, promote
from llmops.settings import Environment
from support.configured import configured
from support.services import FreshDatabase


@pytest.fixture
def run(environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run one of the two commands; an error of ours is raised."""
    configured(environment, tmp_path, monkeypatch)
    commands = {"ledger": ledger_module.command, "receipt": receipt_module.command}

    def invoke(name: str, *arguments: str) -> Result:
        return CliRunner().invoke(commands[name], arguments, catch_exceptions=False)

    return invoke


@pytest.fixture
def answer_id(
    database: FreshDatabase, environment: Environment, approved: Callable[..., ApprovalRequest],
    signed: Callable[[], None],
) -> str:  # fmt: skip
    """An answer without passages, of a release in production, with the whole ledger signed."""
    request = approved()
    promote(environment, request, ANNA)
    signed()
    serving = database.url("llmops_serving")
    made = open_answer(serving, assistant="guide", release_id=request.release_id, question="Why?\x1b[31m")
    close_answer(serving, made, AnswerOutcome("I do not know.", chunks=(), status="complete"))
    return made


EDIT = "UPDATE release_ledger SET actor = 'nobody' WHERE entry = 1"


def test_an_intact_ledger_exits_with_0_and_an_edited_one_with_1_and_the_place(
    run: Run, answer_id: str, owner: Callable[[str], None]
) -> None:
    good = run("ledger", "verify")
    said = "2 entries, 1 signed heads, signed up to entry 2\n✓ the ledger is what was written\n"
    assert (good.exit_code, good.output) == (0, said)
    intact = run("ledger", "verify", "--json")
    assert (intact.exit_code, json.loads(intact.output)) == (
        0, {"entries": 2, "signed": 2, "heads": 1, "faults": []},
    )  # fmt: skip
    owner(EDIT)
    bad = run("ledger", "verify")
    assert bad.exit_code == 1
    assert "✗ entry 1: was edited: its content does not give its hash\n" in bad.output
    assert "✓" not in bad.output
    found = run("ledger", "verify", "--json")
    problem = "was edited: its content does not give its hash"
    assert found.exit_code == 1
    assert json.loads(found.output)["faults"] == [{"entry": 1, "problem": problem}]


def test_a_receipt_exits_with_1_only_where_it_was_asked_to_verify_and_a_line_names_a_fault(
    run: Run, answer_id: str, owner: Callable[[str], None]
) -> None:
    good = run("receipt", answer_id, "--verify")
    assert good.exit_code == 0
    assert f"Receipt of answer {answer_id}" in good.output
    assert "✗" not in good.output
    owner(EDIT)
    assert [run("receipt", answer_id, *flag).exit_code for flag in ((), ("--verify",), ("--json",))] == [
        0,
        1,
        0,
    ]
    bad = run("receipt", answer_id, "--verify").output.splitlines()
    assert [line.split()[1] for line in bad if "✗" in line] == ["ledger"]
    both = run("receipt", answer_id, "--verify", "--json")
    assert both.exit_code == 1
    checks = json.loads(both.output)["checks"]
    assert [check["name"] for check in checks if check["fault"]] == ["ledger"]


def test_a_receipt_prints_every_line_whatever_is_wrong_with_the_others(
    run: Run, answer_id: str, owner: Callable[[str], None]
) -> None:
    owner("UPDATE releases SET manifest = '{}'")
    shown = run("receipt", answer_id).output
    marked = [line.split() for line in shown.splitlines() if line.lstrip().startswith(("✓", "✗"))]
    assert [(mark, name) for mark, name, *_ in marked] == [
        ("✓", "answer"), ("✓", "chunks"), ("✗", "release"), ("✗", "gate"), ("✗", "approval"), ("✓", "production"),
        ("✓", "ledger"),
    ]  # fmt: skip
    assert "not checked: it rests on the line 'release'" in shown
    assert "not checked: it rests on the line 'gate report'" in shown


def test_a_receipt_shows_a_question_without_what_steers_a_terminal(run: Run, answer_id: str) -> None:
    shown = CliRunner().invoke(receipt_module.command, [answer_id], catch_exceptions=False, color=True)
    assert "Why?" in shown.output
    assert "\x1b" not in shown.output


def test_an_answer_that_is_not_there_has_no_receipt(run: Run, answer_id: str) -> None:
    with pytest.raises(MissingInput, match="no answer"):
        run("receipt", "none", "--verify")
