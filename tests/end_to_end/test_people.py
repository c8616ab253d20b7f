"""A person's part in a release: in a real browser, after a restart, and when nobody does anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from end_to_end.conftest import PROMPT, Loop
from end_to_end.test_attacks import entered, production, served, url_of, waiting_runs
from end_to_end.test_loop import change, in_production, release
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
        "prompted": {"prompt": "Be brief and warm. " + PROMPT},
        "direct": {"prompt": "Three words.\n\n{question}", "approval": in_a_moment},
    }
    return waiting_runs(loop, changes)


@needs_chromium
def test_a_reviewer_reads_the_evidence_answers_in_airflow_and_sees_the_new_release(
    loop: Loop, waiting: dict[str, str], tmp_path: Path
) -> None:
    """The notary dies before the answer: its restart loses none."""
    run_id, before = waiting["prompted"], production(loop, "prompted")
    asked = request_of_run(url_of(loop), RunReference(DAG, run_id, TASK))
    airflow = loop.stack.addresses["airflow"]
    assert httpx.get(f"{airflow}/release-board/approvals").status_code == 401
    with browser(tmp_path / "profile") as page:
        sign_in(loop, page, "reviewer")
        board = open_board(page)
        board.get_by_role("link", name="Approvals", exact=True).click()
        request = board.get_by_role("article").filter(has_text=asked.release_id[:12])
        picture(board, "waiting-approvals")
        request.get_by_role("link", name="Look at the release").click()
        read_the_evidence(board, asked.release_id, str(before[-1]))
        board.go_back()
        request.get_by_role("link", name="Answer in Airflow").click()
        board.get_by_text(asked.report_hash).first.wait_for()
        picture(board, "required-action")
        process_of(loop.stack, "notary").kill()
        with board.expect_response(lambda r: r.request.method == "PATCH" and "hitlDetails" in r.url) as sent:
            board.get_by_role("button", name="Approve").click()
        assert sent.value.status == 200
        assert loop.client().wait_for_run(DAG, run_id, timeout_seconds=300) == "success"
        board.goto(f"{airflow}/release-board/?assistant=prompted")
        picture(board, "releases")
        now = board.get_by_role("region", name="In production")
        assert asked.release_id[:12] in now.inner_text()
        assert "approved by reviewer" in now.inner_text()
    assert production(loop, "prompted") == [*before, asked.release_id]
    assert served(loop, "prompted") == asked.release_id


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


def sign_in(loop: Loop, page: Any, user: str) -> None:
    """Sign in on Airflow's own page."""
    page.goto(loop.stack.addresses["airflow"])
    page.locator("input[name=username]").fill(user)
    page.locator("input[name=password]").fill(loop.stack.password(user))
    page.get_by_role("button", name="Sign in").click()


def open_board(page: Any) -> Any:
    """Return the tab that Airflow's navigation opens for the board."""
    page.get_by_role("button", name="Browse").click()
    with page.context.expect_page() as opened:
        page.get_by_role("menuitem", name="Releases").click()
    assert opened.value.title().endswith("Release board")
    return opened.value


def read_the_evidence(board: Any, release_id: str, replaced: str) -> None:
    """See what a reviewer decides by: verdict, differences, plots, and questions with both answers."""
    assert board.get_by_role("heading", level=1).inner_text() == f"Release {release_id[:12]}"
    assert "PASS" in board.get_by_role("region", name="Gate").inner_text()
    differences = board.get_by_role("region", name="Differences from production")
    assert replaced[:12] in differences.inner_text()
    assert "prompt.text_hash" in differences.inner_text()
    assert board.get_by_role("img").count() > 0
    assert board.get_by_text("Production").first.is_visible()
    picture(board, "waiting-release")
