"""A person's part in a release: in a real browser, after a restart, and when nobody does anything."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from end_to_end.conftest import PROMPT, Loop
from end_to_end.test_attacks import entered, production, served, url_of, waiting_runs
from end_to_end.test_loop import awaits_a_person, change, in_production, release
from llmops.release import RunReference, ledger, request_of_run
from support.browser import browser, needs_chromium, picture
from support.stacks import process_of, wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

DAG, TASK = "release_assistant", "ask_reviewer"


@pytest.fixture(scope="module")
def waiting(loop: Loop) -> dict[str, str]:
    """Two runs that ask for approval, by assistant: one will be answered, the other has half a minute to be."""
    in_a_moment = {"approvers": ["reviewer"], "deadline_hours": 30 / 3600}
    changes = {
        "prompted": {
            "prompt": "Be brief and warm. " + PROMPT,
            "generator": {"kind": "extractive", "threshold": 0.3},
        },
        "direct": {"prompt": "Three words.\n\n{question}", "approval": in_a_moment},
    }
    return waiting_runs(loop, changes)


@needs_chromium
def test_a_reviewer_reads_the_evidence_answers_in_airflow_and_sees_the_new_release(
    loop: Loop, waiting: dict[str, str], tmp_path: Path
) -> None:
    """The author tries before; the notary dies just before the reviewer's answer, and its restart loses nothing."""
    run_id, before = waiting["prompted"], production(loop, "prompted")
    asked = request_of_run(url_of(loop), RunReference(DAG, run_id, TASK))
    name = asked.release_id[:12]
    with browser(tmp_path / "author") as page:
        open_request(open_board(loop, page, "author"), name)
        assert choose(page.context.pages[-1], "Approve") == 403
    with browser(tmp_path / "reviewer") as page:
        board = open_board(loop, page, "reviewer")
        board.get_by_role("link", name="prompted", exact=True).click()
        assert "? waiting" in board.get_by_role("row").filter(has_text=name).inner_text()
        picture(board, "releases")
        open_request(board, name, evidence=str(before[-1]))
        board.get_by_text(f"Release {name} of prompted to production?").wait_for()
        picture(board, "required-action")
        process_of(loop.stack, "notary").kill()
        assert choose(board, "Approve") == 200
        assert loop.client().wait_for_run(DAG, run_id, timeout_seconds=300) == "success"
        board.goto(f"{loop.stack.addresses['airflow']}/release-board/?assistant=prompted")
        now = board.get_by_role("region", name="In production")
        assert name in now.inner_text()
        assert "approved by reviewer" in now.inner_text()
    assert production(loop, "prompted") == [*before, asked.release_id]
    assert served(loop, "prompted") == asked.release_id


def test_without_a_login_no_page_of_the_board_is_shown(loop: Loop) -> None:
    in_production(loop, "prompted")
    board = f"{loop.stack.addresses['airflow']}/release-board"
    paths = ("/", "/approvals", "/ledger", "/receipts", f"/releases/{production(loop, 'prompted')[-1]}")
    answers = {path: httpx.get(board + path) for path in paths}
    assert {path: answer.status_code for path, answer in answers.items()} == dict.fromkeys(paths, 401)
    assert not any("prompted" in answer.text for answer in answers.values())


def test_nobodys_answer_is_a_rejection_at_the_deadline(loop: Loop, waiting: dict[str, str]) -> None:
    run_id, before = waiting["direct"], production(loop, "direct")
    assert loop.client().wait_for_run(DAG, run_id, timeout_seconds=300) == "success"
    states = {task["task_id"]: task["state"] for task in loop.client().tasks(DAG, run_id)}
    assert (states["await_approval"], states["promote"], states["confirm"]) == ("skipped",) * 3
    assert production(loop, "direct") == before
    wait_until(
        lambda: ("notary", "nobody answered before the deadline") in entered(loop, "direct", "reject"), 60
    )


def test_a_rollback_goes_to_the_release_before_and_is_recorded(loop: Loop) -> None:
    in_production(loop, "prompted")
    if len(production(loop, "prompted")) < 2:
        change(loop, "prompted", prompt="Be kind and brief. " + PROMPT)
        release(loop, "prompted")
    before = production(loop, "prompted")
    run_id, state = loop.run(
        "rollback_release", {"assistant": "prompted", "reason": "answers got worse"}, "reviewer"
    )
    assert state == "success", loop.client().tasks("rollback_release", run_id)
    moved = ledger(url_of(loop), "prompted", "production")[-1]
    assert (moved.action, moved.actor, moved.reason) == ("roll back", "reviewer", "answers got worse")
    assert moved.to_release == before[-2]
    assert served(loop, "prompted") == before[-2]


def test_an_approval_against_what_was_production_before_is_stale(loop: Loop) -> None:
    """Two candidates wait at once: when the first is in production, the approval of the second is worth nothing."""
    if not production(loop, "direct"):
        release(loop, "direct")
    before, runs = production(loop, "direct"), []
    for prompt in ("Four words.\n\n{question}", "Five words.\n\n{question}"):
        change(loop, "direct", prompt=prompt, approval={"approvers": ["reviewer"]})
        runs.append(loop.client("author").trigger(DAG, {"assistant": "direct"}))
        wait_until(lambda: awaits_a_person(loop.client().tasks(DAG, runs[-1])), 300)
    states = []
    for run_id in runs:
        loop.client("reviewer").answer(DAG, run_id, TASK, "Approve")
        states.append(loop.client().wait_for_run(DAG, run_id, timeout_seconds=300))
    assert states == ["success", "failed"]
    first, second = (request_of_run(url_of(loop), RunReference(DAG, run_id, TASK)) for run_id in runs)
    assert production(loop, "direct") == [*before, first.release_id]
    assert served(loop, "direct") == first.release_id
    refused = [
        e
        for e in ledger(url_of(loop), "direct")
        if e.action == "refuse" and e.to_release == second.release_id
    ]
    assert refused
    assert "the gate compared with" in refused[-1].reason


def open_board(loop: Loop, page: Any, user: str) -> Any:
    """Sign in on Airflow's own page; return the tab that its menu opens for the board."""
    page.goto(loop.stack.addresses["airflow"])
    page.locator("input[name=username]").fill(user)
    page.locator("input[name=password]").fill(loop.stack.password(user))
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Browse").click()
    with page.context.expect_page() as opened:
        page.get_by_role("menuitem", name="Releases").click()
    assert opened.value.title().endswith("Release board")
    return opened.value


def open_request(board: Any, release: str, evidence: str | None = None) -> None:
    """Go from the board to the page where Airflow asks, past the evidence against the release ``evidence`` if given."""
    board.get_by_role("link", name="Approvals", exact=True).click()
    card = board.get_by_role("article").filter(has_text=release)
    assert "Answer before" in card.inner_text()
    if evidence is not None:
        picture(board, "waiting-approvals")
        card.get_by_role("link", name="Look at the release").click()
        read_the_evidence(board, release, evidence)
        picture(board, "waiting-release")
        board.go_back()
    card.get_by_role("link", name="Answer in Airflow").click()


def read_the_evidence(board: Any, release: str, replaced: str) -> None:
    """See what a reviewer decides by: verdict, plots, questions with both answers, differences, refused attempts."""
    assert board.get_by_role("heading", level=1).inner_text() == f"Release {release}"
    approval = board.get_by_role("region", name="Approval")
    assert "waiting" in approval.inner_text()
    attempt = approval.get_by_role("row").filter(has_text="author")
    assert re.search(r"Approve\s*✗ refused \(403\)", attempt.inner_text())
    gate = board.get_by_role("region", name="Gate report")
    assert gate.locator(".lead").inner_text() == "✓ PASS"
    assert gate.get_by_role("img", name="recall_at_10: pass").is_visible()
    assert gate.get_by_role("img", name="quality, all questions").is_visible()
    example = gate.get_by_role("article").first
    assert example.get_by_role("heading", level=4).inner_text().endswith("?")
    sides = [quote.inner_text() for quote in example.locator("blockquote").all()]
    assert len(set(sides)) == 2
    differences = board.get_by_role("region", name="Differences from production")
    assert differences.get_by_role("link", name=replaced[:12]).is_visible()
    threshold = differences.get_by_role("row").filter(has_text="generator.threshold")
    assert threshold.inner_text().split() == ["generator.threshold", "0.54", "0.3"]


def choose(page: Any, option: str) -> int:
    """Choose an option of a required action; return the status of Airflow's answer."""
    with page.expect_response(lambda r: r.request.method == "PATCH" and "hitlDetails" in r.url) as sent:
        page.get_by_role("button", name=option, exact=True).click()
    return int(sent.value.status)
