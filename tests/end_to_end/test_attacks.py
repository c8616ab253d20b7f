"""Nobody gets a release into production without a person's approval of it: tried on the running stack."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from end_to_end.conftest import PROMPT, Loop
from end_to_end.test_loop import change, in_production, release
from llmops.errors import LlmopsError
from llmops.release import Actor, RunReference, approval_of, ledger, request_of_run, roll_back
from support.stacks import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]


def waiting_runs(loop: Loop, changes: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Change assistants that are in production, and return the runs that ask for approval of it.

    Each run has a parameter that says it is approved, which nobody reads.
    """
    for name in changes:
        if name != "direct":
            in_production(loop, name)
        elif not production(loop, name):
            release(loop, name)  # it has no documents to ingest
    for name, values in changes.items():
        change(loop, name, **values)
    author = loop.client("author")
    runs = {
        name: author.trigger("release_assistant", {"assistant": name, "approved": True}) for name in changes
    }
    for run_id in runs.values():
        wait_until(lambda run_id=run_id: has_asked(author.tasks("release_assistant", run_id)), 300)
    return runs


def has_asked(tasks: list[dict[str, Any]]) -> bool:
    """Tell whether a person was asked; with a short deadline that may be over when somebody looks."""
    return any(t["task_id"] == "ask_reviewer" and t["state"] in ("awaiting_input", "success") for t in tasks)


@pytest.fixture(scope="module")
def waiting(loop: Loop) -> dict[str, str]:
    """Two runs that ask for approval, by assistant."""
    prompts = {"fresh": "Be bold. " + PROMPT, "direct": "Two words.\n\n{question}"}
    asked = {"approvers": ["reviewer"]}
    return waiting_runs(
        loop, {name: {"prompt": prompt, "approval": asked} for name, prompt in prompts.items()}
    )


def url_of(loop: Loop) -> str:
    return loop.environment.database_url.get_secret_value()


def production(loop: Loop, assistant: str) -> list[str | None]:
    """Return every release that was in production."""
    return [entry.to_release for entry in ledger(url_of(loop), assistant, "production")]


def served(loop: Loop, assistant: str) -> str:
    body = {"model": assistant, "messages": [{"role": "user", "content": "What does a red flag mean?"}]}
    answer = httpx.post(f"{loop.stack.addresses['serving']}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["release"])


def entered(loop: Loop, assistant: str, action: str) -> list[tuple[str, str]]:
    return [(e.actor, e.reason) for e in ledger(url_of(loop), assistant) if e.action == action]


def test_a_malicious_task_promotes_nothing_and_what_it_tried_is_shown(
    loop: Loop, waiting: dict[str, str]
) -> None:
    run_id = waiting["fresh"]
    tasks = loop.client().tasks("release_assistant", run_id)
    (asking,) = (task for task in tasks if task["task_id"] == "ask_reviewer")
    before = production(loop, "fresh")
    attack, state = loop.run("attack_release", {"run_id": run_id, "task_instance": asking["id"]})
    said = loop.client().result("attack_release", attack, "attack")
    assert state == "success", said
    assert said["read the connection"].startswith("done"), "connections are no secret to a task"
    assert said["set a variable"].startswith("done")
    for forbidden in ("insert an approval", "update the ledger", "enter a decision"):
        assert said[forbidden].startswith("InsufficientPrivilege"), said[forbidden]
    assert said["promote directly"].startswith("NotApproved"), said
    assert said["move the alias"].startswith("done"), "MLflow's aliases have no lock"
    assert said["answer the request"].startswith("done"), said["answer the request"]

    def skipped() -> bool:
        states = {t["task_id"]: t["state"] for t in loop.client().tasks("release_assistant", run_id)}
        return (states["await_approval"], states["promote"]) == ("skipped", "skipped")

    wait_until(skipped, 120)  # the task that asks stays parked: Airflow wakes it for people's answers only
    assert production(loop, "fresh") == before
    assert served(loop, "fresh") == before[-1]
    refused = entered(loop, "fresh", "refuse")
    assert ("reviewer", True) in [(actor, "recorded no answer" in reason) for actor, reason in refused]
    assert any("no person answered" in reason for _, reason in entered(loop, "fresh", "reject"))
    ready = f"{loop.stack.addresses['serving']}/readyz"
    wait_until(lambda: httpx.get(ready).json()["assistants"]["fresh"]["error"], 30)
    assert "without a promotion" in httpx.get(ready).json()["assistants"]["fresh"]["error"]
    roll_back(loop.environment, "fresh", before[-1], Actor("admin", "Airflow login"), "the alias was moved")
    wait_until(lambda: httpx.get(ready).json()["assistants"]["fresh"]["error"] is None, 30)


def test_who_may_not_answer_is_refused_by_airflow_and_entered_and_a_task_marked_done_promotes_nothing(
    loop: Loop, waiting: dict[str, str]
) -> None:
    run_id = waiting["direct"]
    before = production(loop, "direct")
    for user in ("service", "author", "admin"):
        with pytest.raises(LlmopsError, match="403"):
            loop.client(user).answer("release_assistant", run_id, "ask_reviewer", "Approve")
    wait_until(
        lambda: {"service", "author", "admin"} <= {a for a, _ in entered(loop, "direct", "refuse")}, 60
    )
    admin = loop.client("admin")
    for task_id in ("ask_reviewer", "await_approval"):
        admin.request(
            "PATCH",
            f"/dags/release_assistant/dagRuns/{run_id}/taskInstances/{task_id}",
            {"new_state": "success"},
        )
    assert admin.wait_for_run("release_assistant", run_id, timeout_seconds=300) == "failed"
    assert "recorded no answer" in admin.log("release_assistant", run_id, "promote")
    assert production(loop, "direct") == before
    request = request_of_run(url_of(loop), RunReference("release_assistant", run_id, "ask_reviewer"))
    wait_until(lambda: approval_of(url_of(loop), request.nonce) is not None, 60)
    recorded = approval_of(url_of(loop), request.nonce)
    assert recorded is not None
    assert recorded.decision == "rejected"
