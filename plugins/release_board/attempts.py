"""Record every answer to an approval request: Airflow's own log shows refused and accepted ones alike.

A person answers through the core API. A task can answer any request through the execution API with its own token:
that is recorded without a person.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any
from uuid import UUID

import anyio
from fastapi import HTTPException, Request
from fastapi.security import HTTPBearer
from starlette.routing import compile_path

from llmops.release import Attempt, RunReference, chosen_options, record_attempt
from llmops.settings import load_environment

__all__ = ["LARGEST_BODY", "AttemptRecorder"]

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

LARGEST_BODY = 64 * 1024
"""Bytes of a body that are looked at; all of it is passed on."""

# Airflow's own way to read paths, so that none is answered that is not recorded.
_BY_PERSON = compile_path(
    "/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/{map_index}/hitlDetails"
)[0]
_BY_TASK = compile_path("/execution/hitlDetails/{task_instance_id}")[0]


class AttemptRecorder:
    """ASGI middleware that passes everything on unchanged and records answers when they are given."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._threads: anyio.CapacityLimiter | None = None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request; whatever fails here leaves the answer as it is and is logged."""
        by_person, by_task = _matches(scope)
        if not by_person and not by_task:
            await self._app(scope, receive, send)
            return
        person = await _person(scope) if by_person else None
        seen = _Seen(receive, send)
        try:
            await self._app(scope, seen.receive, seen.send)
        finally:
            with anyio.CancelScope(shield=True):
                await self._keep(scope["path"], partial(_find_run, by_person, by_task), person, seen)

    async def _keep(
        self, path: str, find: Callable[[], RunReference | None], person: str | None, seen: _Seen
    ) -> None:
        """Record one answer, unless it was refused and nobody gave it: anybody could fill the table."""
        if person is None and seen.status >= 400:
            log.warning("Nobody who is logged in answered %r: status %s, not recorded", path, seen.status)
            return
        self._threads = self._threads or anyio.CapacityLimiter(4)
        try:
            await anyio.to_thread.run_sync(
                _write, find, person, seen.chosen, seen.status, limiter=self._threads
            )
        except Exception:  # the edge of this process: the answer is already given
            log.exception(
                "NOT RECORDED: %r answered %r to %r, status %s. The ledger will not show it",
                *(person, seen.chosen, path, seen.status),
            )


class _Seen:
    """What passed by: the beginning of the body, and the status of the response."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._body = bytearray()
        self.status = 500  # what a client gets when there is no response

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._body += message.get("body", b"")[: LARGEST_BODY - len(self._body)]
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)

    @property
    def chosen(self) -> str:
        """Return the chosen options as one line; a body that was cut is unreadable."""
        return chosen_options(bytes(self._body))


def _matches(scope: MutableMapping[str, Any]) -> tuple[dict[str, str] | None, dict[str, str] | None]:
    """Return the names in the path of an answer by a person, and in that of one by a task; None for neither."""
    if scope["type"] != "http" or scope["method"] != "PATCH":
        return None, None
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    found = (pattern.match(path) for pattern in (_BY_PERSON, _BY_TASK))
    by_person, by_task = (match.groupdict() if match else None for match in found)
    return by_person, by_task


async def _person(scope: MutableMapping[str, Any]) -> str | None:
    """Return the name of the user that Airflow's own authentication finds in a request, None if it finds nobody."""
    from airflow.api_fastapi.core_api.security import get_user

    request = Request(scope)
    try:
        credentials = await HTTPBearer(auto_error=False)(request)
        return str((await get_user(request, None, credentials)).get_name())
    except HTTPException:
        return None
    except Exception:  # the edge of this process: Airflow itself answers this request as it can
        log.exception("Airflow could not tell who answers a request")
        return None


def _find_run(by_person: dict[str, str] | None, by_task: dict[str, str] | None) -> RunReference | None:
    """Return what was answered: by its names, or for a task's answer what Airflow's database says of its id."""
    if by_person:
        return RunReference(by_person["dag_id"], by_person["run_id"], by_person["task_id"])
    assert by_task is not None
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    with create_session() as session:
        found = session.get(TaskInstance, UUID(by_task["task_instance_id"]))
        return RunReference(found.dag_id, found.run_id, found.task_id) if found else None


def _write(find: Callable[[], RunReference | None], person: str | None, chosen: str, status: int) -> None:
    run = find()
    if run is None:
        return
    url = load_environment().database_url.get_secret_value()
    if record_attempt(url, Attempt(run, person, chosen, status)):
        log.info("Recorded that %r answered %r in run %r: status %s", person, chosen, run.run_id, status)
