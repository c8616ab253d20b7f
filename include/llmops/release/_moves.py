"""A move of ``production`` as recorded steps, so that whoever finds it half done can finish it or take it back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from llmops.database import connect
from llmops.errors import MissingInput
from llmops.index import generations, mark
from llmops.manifest import Manifest
from llmops.registry import Registry
from llmops.release._assemble import registry_of
from llmops.release._ledger import NewEntry, append_entry, current_release
from llmops.release._statement import Actor
from llmops.release._store import read_manifest
from llmops.settings import Environment

Step = Literal["alias", "tags", "ledger", "replicas", "take back alias", "take back ledger"]
Phase = Literal["began", "done"]
OnStep = Callable[[Step, Phase], None]
"""Is told of every step after its beginning, and after its end, was recorded."""

_SYSTEM = "llmops"


@dataclass(frozen=True)
class Promotion:
    """One move of ``production``: what, by whom, why, on what evidence, and how far it has come."""

    promotion_id: UUID
    assistant: str
    action: Literal["promote", "roll back"]
    from_release: str | None
    to_release: str
    actor: str
    authentication: str
    reason: str
    report_hash: str | None
    approval_nonce: UUID | None
    state: Literal["running", "complete", "gone back", "superseded"]
    steps: list[dict[str, Any]]
    started_at: datetime
    ended_at: datetime | None

    def is_done(self, step: Step) -> bool:
        """Return whether a step was finished."""
        return any(each["step"] == step and each["done"] for each in self.steps)


@dataclass(frozen=True)
class Planned:
    """A move that has been allowed and is about to be recorded."""

    assistant: str
    action: Literal["promote", "roll back"]
    from_release: str | None
    to_release: str
    actor: Actor
    reason: str
    report_hash: str | None = None
    approval_nonce: UUID | None = None


def start_move(url: str, planned: Planned) -> Promotion:
    """Record that a move begins."""
    with connect(url) as connection, connection.cursor(row_factory=class_row(Promotion)) as cursor:
        cursor.execute(
            "INSERT INTO promotions (assistant, action, from_release, to_release, actor, authentication, reason, "
            "report_hash, approval_nonce) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING *",
            (
                *(planned.assistant, planned.action, planned.from_release, planned.to_release),
                *(planned.actor.name, planned.actor.authentication, planned.reason),
                *(planned.report_hash, planned.approval_nonce),
            ),
        )
        made = cursor.fetchone()
    assert made is not None
    return made


def find_move(url: str, where: Mapping[str, Any]) -> Promotion | None:
    """Return the newest move with these values of ``assistant``, ``approval_nonce`` and ``state``, or None."""
    with connect(url) as connection, connection.cursor(row_factory=class_row(Promotion)) as cursor:
        cursor.execute(
            "SELECT * FROM promotions WHERE (%(assistant)s::text IS NULL OR assistant = %(assistant)s) "
            "AND (%(nonce)s::uuid IS NULL OR approval_nonce = %(nonce)s) "
            "AND (%(state)s::text IS NULL OR state = %(state)s) ORDER BY started_at DESC LIMIT 1",
            {
                "assistant": where.get("assistant"),
                "nonce": where.get("approval_nonce"),
                "state": where.get("state"),
            },
        )
        return cursor.fetchone()


def make_move(environment: Environment, move: Promotion, on_step: OnStep | None = None) -> None:
    """Take the steps that are not done yet: alias, tags, ledger. Each may be repeated.

    The service follows the ledger, so it swaps at that step, which is one transaction; the alias and the tags
    before it are MLflow's picture of it.
    """
    url = environment.database_url.get_secret_value()
    manifest = read_manifest(url, move.to_release)
    registry = registry_of(environment, move.assistant)
    version = _version(registry, move.to_release)
    recorder = _Recorder(url, move, on_step)
    recorder.take("alias", lambda: registry.set_alias("production", version))
    tags = {"promoted_by": move.actor, "approval": str(move.approval_nonce or "")}
    recorder.take("tags", lambda: registry.tag_release(version, tags))
    recorder.enter(
        "ledger",
        NewEntry(
            assistant=move.assistant,
            alias="production",
            action=move.action,
            from_release=move.from_release,
            to_release=move.to_release,
            actor=move.actor,
            authentication=move.authentication,
            reason=move.reason,
            report_hash=move.report_hash,
            approval_nonce=move.approval_nonce,
        ),
    )
    _mark_generation(url, manifest)


def take_back(environment: Environment, move: Promotion, reason: str, on_step: OnStep | None = None) -> None:
    """Bring alias and ledger back to where they were before a move, and end it."""
    url = environment.database_url.get_secret_value()
    registry = registry_of(environment, move.assistant)
    recorder = _Recorder(url, move, on_step)
    if move.from_release is None:
        recorder.take("take back alias", lambda: registry.remove_alias("production"))
    else:
        version = _version(registry, move.from_release)
        recorder.take("take back alias", lambda: registry.set_alias("production", version))
    with connect(url) as connection:
        moved = current_release(connection, move.assistant, "production") == move.to_release
    if moved and move.from_release != move.to_release:
        recorder.enter(
            "take back ledger",
            NewEntry(
                assistant=move.assistant,
                alias="production",
                action="go back",
                from_release=move.to_release,
                to_release=move.from_release,
                actor=_SYSTEM,
                authentication=f"promotion {move.promotion_id}",
                reason=reason,
                report_hash=move.report_hash,
                approval_nonce=move.approval_nonce,
            ),
        )
    end_move(url, move, "gone back")


def end_move(url: str, move: Promotion, state: Literal["complete", "gone back", "superseded"]) -> None:
    """Record how a move ended; one that has ended stays as it is."""
    with connect(url) as connection:
        connection.execute(
            "UPDATE promotions SET state = %s, ended_at = clock_timestamp() "
            "WHERE promotion_id = %s AND state = 'running'",
            (state, move.promotion_id),
        )


def settle_unfinished(environment: Environment, assistant: str) -> None:
    """End a move that another process left half done, before a new one begins.

    One that reached the ledger is what is in production, and the new move leaves it behind; one that did not is
    taken back, since nobody was ever answered from it.
    """
    url = environment.database_url.get_secret_value()
    left = find_move(url, {"assistant": assistant, "state": "running"})
    if left is None:
        return
    if left.is_done("ledger"):
        end_move(url, left, "superseded")
    else:
        take_back(environment, left, "the promotion was interrupted and another one follows")


class _Recorder:
    """Takes steps and writes down, before and after each, that it did."""

    def __init__(self, url: str, move: Promotion, on_step: OnStep | None) -> None:
        self._url = url
        self._move = move
        self._tell = on_step or (lambda step, phase: None)

    def take(self, step: Step, action: Callable[[], None]) -> None:
        """Take one step unless it is done."""
        if self._move.is_done(step):
            return
        self._begin(step)
        action()
        with connect(self._url) as connection:
            self._finish(connection, step)
        self._tell(step, "done")

    def enter(self, step: Step, new: NewEntry) -> None:
        """Append to the ledger and record the step, in one transaction."""
        if self._move.is_done(step):
            return
        self._begin(step)
        with connect(self._url) as connection:
            append_entry(connection, new)
            self._finish(connection, step)
        self._tell(step, "done")

    def _begin(self, step: Step) -> None:
        with connect(self._url) as connection:
            connection.execute(
                "UPDATE promotions SET steps = steps || jsonb_build_array(jsonb_build_object("
                "'step', %s::text, 'began', clock_timestamp(), 'done', null)) WHERE promotion_id = %s",
                (step, self._move.promotion_id),
            )
        self._tell(step, "began")

    def _finish(self, connection: psycopg.Connection, step: Step) -> None:
        connection.execute(
            "UPDATE promotions SET steps = (SELECT jsonb_agg(CASE WHEN s ->> 'step' = %s AND s ->> 'done' IS NULL "
            "THEN jsonb_set(s, '{done}', to_jsonb(clock_timestamp())) ELSE s END ORDER BY place) "
            "FROM jsonb_array_elements(steps) WITH ORDINALITY AS each(s, place)) WHERE promotion_id = %s",
            (step, self._move.promotion_id),
        )


def _mark_generation(url: str, manifest: Manifest) -> None:
    """The promoted release's generation is live; generations of earlier releases go on following until retired."""
    if manifest.index is None:
        return
    states: Mapping[str, str] = {g.id: g.state for g in generations(url, manifest.assistant)}
    if states.get(manifest.index.generation) not in (None, "live"):
        mark(url, manifest.index.generation, "live")


def _version(registry: Registry, release_id: str) -> int:
    version = registry.release_version(release_id)
    if version is None:
        raise MissingInput(f"release {release_id[:12]} is not registered as a model version: stage it first")
    return version
