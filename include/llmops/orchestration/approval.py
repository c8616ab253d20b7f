"""Asking a person, and waiting for the notary's record of the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import BaseSensorOperator, Context, Param
from airflow.sdk.exceptions import AirflowSkipException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from llmops.orchestration.context import run_of
from llmops.orchestration.release import question_of

__all__ = ["ApprovalSensor", "ApprovalTrigger", "ReleaseApproval"]

_FIRST_LOOK_SECONDS = 5.0
_POLL_SECONDS = 2.0
_NOTARY_GRACE = timedelta(minutes=15)


class ReleaseApproval(ApprovalOperator):
    """Asks the assistant's approvers about one release; no answer before the deadline is a rejection.

    Text, approvers and deadline are known only in the run, so they are read there, from what ``open_approval``
    wrote down. It never retries: a retry would ask again and forget the answer.
    """

    template_fields = ("deadline",)

    def __init__(self, *, deadline: Any, **kwargs: Any) -> None:
        channel = Param(
            "airflow",
            enum=["airflow", "demo"],
            title="Channel",
            description="Leave as it is; the demo sets it when it answers by itself.",
        )
        kwargs |= {
            "retries": 0,
            "retry_policy": None,
            "params": {"channel": channel},
            "defaults": self.REJECT,
        }
        super().__init__(subject="A release waits for approval", **kwargs)
        self.deadline = deadline

    def execute(self, context: Context) -> Any:
        """Ask, and free the worker until a person answers or the deadline passes."""
        self.subject, self.body, approvers = question_of(run_of(context))
        self.assigned_users = [{"id": name, "name": name} for name in approvers]
        remaining = datetime.fromisoformat(self.deadline) - datetime.now(UTC)
        self.response_timeout = max(remaining, timedelta(seconds=1))
        return super().execute(context)


class ApprovalSensor(BaseSensorOperator):
    """Waits, without a worker, for the notary's record; skips what follows when it is a rejection."""

    template_fields = ("nonce", "deadline")

    def __init__(self, *, nonce: Any, deadline: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.nonce = nonce
        self.deadline = deadline

    def execute(self, context: Context) -> Any:
        """Look once, then wait in the triggerer."""
        recorded = self._recorded()
        if recorded is not None:
            return recorded
        remaining = datetime.fromisoformat(self.deadline) - datetime.now(UTC)
        self.defer(
            trigger=ApprovalTrigger(self.nonce),
            method_name="execute_complete",
            timeout=max(remaining, timedelta()) + _NOTARY_GRACE,
        )

    def execute_complete(self, context: Context, event: Any) -> dict[str, Any]:
        """Read the record itself: what a trigger says is a hint, not evidence."""
        recorded = self._recorded()
        if recorded is None:
            raise RuntimeError(f"the trigger fired for request {self.nonce}, but the notary recorded nothing")
        return recorded

    def _recorded(self) -> dict[str, Any] | None:
        from llmops.release import approval_of
        from llmops.settings import load_environment

        approval = approval_of(load_environment().database_url.get_secret_value(), UUID(self.nonce))
        if approval is None:
            return None
        if approval.decision != "approved":
            raise AirflowSkipException(f"Not approved: {approval.reason}")
        return {"approver": approval.approver, "channel": approval.channel, "nonce": self.nonce}


class ApprovalTrigger(BaseTrigger):
    """Fires when the notary has recorded how a request ended."""

    def __init__(self, nonce: str) -> None:
        super().__init__()
        self.nonce = nonce

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what the triggerer needs to build it again; no address and no secret."""
        return (f"{type(self).__module__}.{type(self).__qualname__}", {"nonce": self.nonce})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look every two seconds; the first look waits until the task is surely parked."""
        import psycopg

        from llmops.settings import load_environment

        url = load_environment().database_url.get_secret_value()
        await asyncio.sleep(_FIRST_LOOK_SECONDS)
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(url, connect_timeout=10) as connection:
                    cursor = await connection.execute(
                        "SELECT decision FROM approvals WHERE nonce = %s", (self.nonce,)
                    )
                    row = await cursor.fetchone()
            except psycopg.OperationalError as error:
                self.log.warning("Postgres does not answer, trying again: %s", error)
                row = None
            if row is not None:
                yield TriggerEvent({"decision": row[0]})
                return
            await asyncio.sleep(_POLL_SECONDS)
