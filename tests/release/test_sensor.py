"""The sensor in front of ``promote`` lets pass what the notary approved, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException, TaskDeferred

from llmops.orchestration import approval
from llmops.orchestration.approval import ApprovalSensor, ApprovalTrigger
from llmops.release import ApprovalRequest
from llmops.settings import Environment

Record = Callable[..., None]


@pytest.fixture
def asked(
    environment: Environment, release: Callable[..., str], report: Callable[..., str],
    ask: Callable[..., ApprovalRequest], monkeypatch: pytest.MonkeyPatch,
) -> ApprovalRequest:  # fmt: skip
    monkeypatch.setattr("llmops.settings.load_environment", lambda: environment)
    release_id = release()
    return ask(release_id, report(release_id))


def sensor(asked: ApprovalRequest, deadline: datetime | None = None) -> ApprovalSensor:
    return ApprovalSensor(
        task_id="await_approval",
        nonce=str(asked.nonce),
        deadline=(deadline or asked.deadline).isoformat(),
    )


def test_it_passes_at_once_on_an_approval(asked: ApprovalRequest, record: Record) -> None:
    record(asked)
    assert sensor(asked).execute({}) == {
        "approver": "reviewer", "channel": "airflow", "nonce": str(asked.nonce),
    }  # fmt: skip


def test_a_rejection_skips_what_follows_and_says_why(asked: ApprovalRequest, record: Record) -> None:
    record(asked, "rejected", reason="reviewer chose Reject")
    with pytest.raises(AirflowSkipException, match="Not approved: reviewer chose Reject"):
        sensor(asked).execute({})


def test_without_a_record_it_waits_without_a_worker_until_after_the_deadline(asked: ApprovalRequest) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        sensor(asked).execute({})
    assert isinstance(deferred.value.trigger, ApprovalTrigger)
    assert deferred.value.trigger.nonce == str(asked.nonce)
    assert deferred.value.method_name == "execute_complete"
    waits = deferred.value.timeout
    assert timedelta(hours=1) < waits < timedelta(hours=2)
    with pytest.raises(TaskDeferred) as late:
        sensor(asked, datetime.now(UTC) - timedelta(days=1)).execute({})
    assert timedelta() < late.value.timeout < timedelta(hours=1)


def test_what_a_trigger_says_is_no_evidence(asked: ApprovalRequest, record: Record) -> None:
    with pytest.raises(RuntimeError, match="recorded nothing"):
        sensor(asked).execute_complete({}, {"decision": "approved"})
    record(asked, "rejected")
    with pytest.raises(AirflowSkipException):
        sensor(asked).execute_complete({}, {"decision": "approved"})


def test_the_trigger_fires_when_the_notary_has_recorded_and_carries_no_address(
    asked: ApprovalRequest, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approval, "_FIRST_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(approval, "_POLL_SECONDS", 0.05)
    name, arguments = ApprovalTrigger(str(asked.nonce)).serialize()
    assert (name, arguments) == (
        "llmops.orchestration.approval.ApprovalTrigger",
        {"nonce": str(asked.nonce)},
    )

    async def first(seconds: float) -> Any:
        return await asyncio.wait_for(anext(ApprovalTrigger(**arguments).run()), seconds)

    with pytest.raises(TimeoutError):
        asyncio.run(first(0.5))
    record(asked)
    assert asyncio.run(first(10)).payload == {"decision": "approved"}
