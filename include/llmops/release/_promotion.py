"""Moving an alias: stage, promote, confirm, roll back."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from llmops.database import advisory_lock, connect
from llmops.errors import MissingInput, NotApproved, StaleRelease, TransientError
from llmops.index import generations, mark
from llmops.manifest import Manifest, canonical_json
from llmops.registry import Registry
from llmops.release._approval import ApprovalRequest, require_approval, require_pass
from llmops.release._assemble import registry_of
from llmops.release._code import code_digest
from llmops.release._store import (
    Action,
    LedgerEntry,
    append_entry,
    current_release,
    ledger,
    read_manifest,
    read_report,
)
from llmops.settings import Environment

_LIVE = timedelta(seconds=20)
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Move:
    """One move of ``production``: to which release, by whom, why, and on what evidence."""

    release_id: str
    actor: str
    reason: str
    action: Action
    request: ApprovalRequest | None = None


def stage(environment: Environment, release_id: str, report_hash: str, actor: str) -> int:
    """Register a release that passed its gate and move ``staging`` to it; return its model version.

    Doing it again changes nothing.
    """
    url = environment.database_url.get_secret_value()
    manifest, report = read_manifest(url, release_id), read_report(url, report_hash)
    if report.release_id != release_id or report.verdict != "PASS":
        raise NotApproved(
            f"release {release_id[:12]} cannot be staged on report {report_hash[:12]}, which is {report.verdict} "
            f"for release {report.release_id[:12]}"
        )
    registry = registry_of(environment, manifest.assistant)
    with advisory_lock(url, f"alias:{environment.catalog}:{manifest.assistant}"):
        version = registry.log_release(
            release_id,
            {
                "manifest.json": canonical_json(manifest.model_dump(mode="json")),
                "report.json": report.report,
                "report.md": report.markdown,
            },
            {
                "gate_verdict": report.verdict,
                "report_hash": report_hash,
                "dirty": str(manifest.dirty).lower(),
            },
        )
        registry.set_alias("staging", version)
        with connect(url) as connection:
            before = current_release(connection, manifest.assistant, "staging")
            if before != release_id:
                append_entry(
                    connection, "staging", "stage", (manifest.assistant, before, release_id),
                    (actor, "passed the gate"), (report_hash, None),
                )  # fmt: skip
    return version


def promote(environment: Environment, request: ApprovalRequest, actor: str) -> str:
    """Move ``production`` to the release that was approved; return the release that it replaces, or "".

    Raises NotApproved without a valid approval of exactly this release, StaleRelease when production is no
    longer the one that the gate compared with. Doing it again after an interruption completes it.
    """
    url = environment.database_url.get_secret_value()
    with advisory_lock(url, f"alias:{environment.catalog}:{request.assistant}"):
        approval = require_approval(environment, request)
        manifest = read_manifest(url, request.release_id)
        if manifest.dirty and environment.name != "dev":
            raise NotApproved(
                f"release {request.release_id[:12]} was made from uncommitted code: commit, release again"
            )
        _require_code(url, manifest)
        report = read_report(url, request.report_hash)
        require_pass(request, manifest, report)
        compared = report.baseline
        with connect(url) as connection:
            before = current_release(connection, request.assistant, "production")
            done = [
                e for e in ledger(url, request.assistant, "production") if e.approval_nonce == request.nonce
            ]
        if done:
            _mark_generations(url, manifest)
            return done[-1].from_release or ""
        if before != compared:
            raise StaleRelease(
                f"production is release {(before or 'none')[:12]}, the gate compared with "
                f"{(compared or 'none')[:12]}: run release_assistant again"
            )
        reason = f"approved by {approval.approver} ({approval.channel})"
        _move(environment, Move(request.release_id, actor, reason, "promote", request))
    return before or ""


def confirm(environment: Environment, release_id: str, wait: timedelta) -> int:
    """Wait until every live replica of the service answers with a release; return how many do.

    A replica is live when it was heard of in the last 20 s. Raises TransientError when one still serves
    something else after ``wait``.
    """
    url = environment.database_url.get_secret_value()
    assistant = read_manifest(url, release_id).assistant
    give_up = time.monotonic() + wait.total_seconds()
    known: set[str] = set()
    while True:
        serving = _replicas(url, assistant)
        known |= set(serving)
        behind = sorted(name for name, (release, _) in serving.items() if release != release_id)
        if serving and not behind:
            return len(serving)
        if time.monotonic() >= give_up:
            if not known:
                return 0
            behind = behind or sorted(known)
            raise TransientError(
                f"after {wait.total_seconds():.0f} s these replicas do not serve release {release_id[:12]}: "
                f"{', '.join(behind)}; see their /readyz"
            )
        time.sleep(_POLL_SECONDS)


def roll_back(environment: Environment, assistant: str, to: str | None, actor: str, reason: str) -> str:
    """Move ``production`` back to an earlier production release, whole; return that release id.

    ``to`` may be a prefix; None takes the release that the present one replaced when it was promoted. Where the
    alias went astray from the ledger (moved by hand, or by a move that did not finish) nobody but a person knows
    what was meant, so ``to`` must be named, and may be the present release. Naming the present release otherwise
    changes nothing.
    Raises NotApproved without a name or a reason, MissingInput when that release never was in production.
    """
    if not actor.strip() or not reason.strip():
        raise NotApproved("a rollback needs the name of the person and a reason")
    url = environment.database_url.get_secret_value()
    with advisory_lock(url, f"alias:{environment.catalog}:{assistant}"):
        entries = ledger(url, assistant, "production")
        if not entries:
            raise MissingInput(f"assistant {assistant!r} has no production release to roll back from")
        present = entries[-1].to_release
        pointed = registry_of(environment, assistant).alias("production")
        astray = pointed is None or pointed[0] != present
        target = _rollback_target(assistant, entries, to, astray=astray)
        if target != present or astray:
            _move(environment, Move(target, actor, reason, "roll back"))
    return target


def _rollback_target(assistant: str, entries: Sequence[LedgerEntry], to: str | None, *, astray: bool) -> str:
    """Return the release to go back to; raise MissingInput when there is none, or more than one fits."""
    known = list(dict.fromkeys(entry.to_release for entry in reversed(entries)))
    choices = f"choose one of {[release[:12] for release in known]}"
    if to is None:
        if astray:
            raise MissingInput(
                f"the alias 'production' of {assistant!r} is not at the ledger's release {known[0][:12]}, "
                f"so a rollback must name its release: {choices}"
            )
        replaced = next(
            (e.from_release for e in reversed(entries) if e.to_release == known[0] and e.action == "promote"),
            None,
        )
        if replaced is None:
            raise MissingInput(f"release {known[0][:12]} of {assistant!r} replaced none that could come back")
        return replaced
    matching = [release for release in known if release.startswith(to)]
    if len(matching) != 1:
        found = "fits several releases" if matching else "was never in production"
        raise MissingInput(f"{to!r} {found} of {assistant!r}: {choices}")
    return matching[0]


def _move(environment: Environment, move: Move) -> None:
    """Alias first, ledger second: the service follows only where both agree, so it swaps at the second step."""
    url = environment.database_url.get_secret_value()
    manifest = read_manifest(url, move.release_id)
    registry = registry_of(environment, manifest.assistant)
    registry.set_alias("production", _version(registry, move.release_id))
    request = move.request
    with connect(url) as connection:
        before = current_release(connection, manifest.assistant, "production")
        append_entry(
            connection, "production", move.action, (manifest.assistant, before, move.release_id),
            (move.actor, move.reason), (request.report_hash, request.nonce) if request else (None, None),
        )  # fmt: skip
    _mark_generations(url, manifest)


def _mark_generations(url: str, manifest: Manifest) -> None:
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


def _require_code(url: str, manifest: Manifest) -> None:
    """Refuse before the alias moves when a live replica, or this process, runs other code than was judged."""
    others = {
        name for name, (_, code) in _replicas(url, manifest.assistant).items() if code != manifest.code_digest
    }
    if code_digest() != manifest.code_digest:
        others.add("this worker")
    if others:
        raise NotApproved(
            f"release {manifest.release_id[:12]} was judged with code {manifest.code_digest[:12]}, but "
            f"{', '.join(sorted(others))} run(s) other code: roll out the image first, then promote"
        )


def _replicas(url: str, assistant: str) -> dict[str, tuple[str, str]]:
    with connect(url) as connection:
        rows = connection.execute(
            "SELECT replica_id, release_id, code_digest FROM replicas WHERE assistant = %s AND seen_at > now() - %s",
            (assistant, _LIVE),
        ).fetchall()
    return {str(name): (str(release), str(code)) for name, release, code in rows}
