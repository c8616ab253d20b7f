"""Moving an alias: stage, promote, roll back; and revoking what must never come back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from llmops.database import advisory_lock, connect
from llmops.errors import MissingInput, NotApproved, StaleRelease, TerminalError
from llmops.manifest import canonical_json
from llmops.release._approval import ApprovalRequest, require_approval, require_pass
from llmops.release._assemble import registry_of, release_cases
from llmops.release._confirm import alias_lock
from llmops.release._ledger import LedgerEntry, NewEntry, append_entry, current_release, is_revoked, ledger
from llmops.release._moves import (
    OnStep,
    Planned,
    Promotion,
    find_move,
    make_move,
    settle_unfinished,
    start_move,
)
from llmops.release._statement import Actor
from llmops.release._store import find_release, read_manifest, read_report
from llmops.release._verify import (
    evidence_for,
    require_artifacts,
    require_clean,
    require_code,
    require_not_revoked,
    require_own_signature,
)
from llmops.settings import Environment


def stage(environment: Environment, release_id: str, report_hash: str, actor: Actor) -> int:
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
    with advisory_lock(url, alias_lock(environment, manifest.assistant)):
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
                    connection,
                    NewEntry(
                        assistant=manifest.assistant,
                        alias="staging",
                        action="stage",
                        from_release=before,
                        to_release=release_id,
                        actor=actor.name,
                        authentication=actor.authentication,
                        reason="passed the gate",
                        report_hash=report_hash,
                    ),
                )
    return version


def promote(
    environment: Environment, request: ApprovalRequest, actor: Actor, on_step: OnStep | None = None
) -> str:
    """Move ``production`` to the release that was approved; return the release that it replaces, or "".

    Everything is verified first: approval and signatures, report, code of every replica, artifacts, index, and that
    production is still what the gate compared with (else StaleRelease). Then the steps are recorded before and
    after; doing it again after an interruption completes them. ``confirm`` ends the promotion.
    """
    url = environment.database_url.get_secret_value()
    with advisory_lock(url, alias_lock(environment, request.assistant)):
        move = find_move(url, {"assistant": request.assistant, "approval_nonce": request.nonce})
        if move is not None and move.to_release == request.release_id and move.state != "running":
            if move.state == "gone back":
                raise NotApproved(
                    f"release {request.release_id[:12]} was promoted on this approval and taken back, since not every "
                    "replica answered with it: mend that, then run release_assistant again"
                )
            return move.from_release or ""
        with _refusals_entered(url, (request.assistant, request.release_id), actor, "promote"):
            planned = _plan_promotion(environment, request, actor, resumed=move is not None)
        make_move(environment, move or start_move(url, planned), on_step)
    return planned.from_release or ""


def _plan_promotion(
    environment: Environment, request: ApprovalRequest, actor: Actor, *, resumed: bool
) -> Planned:
    """Return the move that a request allows, after verifying everything that it rests on.

    One that is ``resumed`` was allowed before; what production was then is no longer asked.
    """
    url = environment.database_url.get_secret_value()
    statement = require_approval(environment, request)
    manifest, report = read_manifest(url, request.release_id), read_report(url, request.report_hash)
    require_pass(request, manifest, report)
    require_own_signature(environment, manifest, statement, report)
    require_clean(environment, manifest)
    require_code(url, manifest)
    require_artifacts(environment, manifest)
    release_cases(environment, manifest)
    require_not_revoked(url, request.release_id)
    if not resumed:
        settle_unfinished(environment, request.assistant)
        _require_compared(url, request.assistant, report.baseline)
    return Planned(
        assistant=request.assistant,
        action="promote",
        from_release=report.baseline,
        to_release=request.release_id,
        actor=actor,
        reason=f"approved by {statement.approver} ({statement.channel})",
        report_hash=request.report_hash,
        approval_nonce=request.nonce,
    )


@contextmanager
def _refusals_entered(url: str, subject: tuple[str, str], actor: Actor, action: str) -> Iterator[None]:
    """Enter into the ledger that a move was refused, and why, when the block raises one of our terminal errors."""
    try:
        yield
    except TerminalError as refusal:
        with connect(url) as connection:
            append_entry(
                connection,
                NewEntry(
                    assistant=subject[0],
                    action="refuse",
                    actor=actor.name,
                    authentication=actor.authentication,
                    reason=f"refused to {action}: {refusal}"[:1000],
                    to_release=subject[1],
                ),
            )
        raise


def roll_back(
    environment: Environment,
    assistant: str,
    to: str | None,
    actor: Actor,
    reason: str,
    on_step: OnStep | None = None,
) -> str:
    """Move ``production`` back to an earlier production release, whole; return that release id.

    ``to`` may be a prefix; None takes the release that the present one replaced when it was promoted. Where the
    alias went astray from the ledger (moved by hand, or by a move that did not finish) nobody but a person knows
    what was meant, so ``to`` must be named, and may be the present release. Naming the present release otherwise
    changes nothing. Its approval, artifacts, index and code are verified again before anything moves.
    Raises NotApproved without a name or a reason, or for a revoked release, and MissingInput for one that never was
    in production.
    """
    if not actor.name.strip() or not reason.strip():
        raise NotApproved("a rollback needs the name of the person and a reason")
    url = environment.database_url.get_secret_value()
    with advisory_lock(url, alias_lock(environment, assistant)):
        settle_unfinished(environment, assistant)
        entries = ledger(url, assistant, "production")
        if not entries or entries[-1].to_release is None:
            raise MissingInput(f"assistant {assistant!r} has no production release to roll back from")
        present = entries[-1].to_release
        pointed = registry_of(environment, assistant).alias("production")
        astray = pointed is None or pointed[0] != present
        target = _rollback_target(assistant, entries, to, astray=astray)
        if target == present and not astray:
            return target
        with _refusals_entered(url, (assistant, target), actor, "roll back"):
            _require_may_return(environment, entries, target)
        make_move(environment, _start_rollback(url, (assistant, present, target), actor, reason), on_step)
    return target


def revoke(environment: Environment, beginning: str, actor: Actor, reason: str) -> str:
    """Enter that a release must never be in production (again); return its id. It cannot be taken back.

    Raises NotApproved without a name or a reason, or while the release is in production.
    """
    if not actor.name.strip() or not reason.strip():
        raise NotApproved("revoking a release needs the name of the person and a reason")
    url = environment.database_url.get_secret_value()
    release_id = find_release(url, beginning)
    assistant = read_manifest(url, release_id).assistant
    with advisory_lock(url, alias_lock(environment, assistant)), connect(url) as connection:
        if current_release(connection, assistant, "production") == release_id:
            raise NotApproved(
                f"release {release_id[:12]} is in production: `llmops release rollback` first, then revoke it"
            )
        if not is_revoked(connection, release_id):
            append_entry(
                connection,
                NewEntry(
                    assistant=assistant,
                    action="revoke",
                    actor=actor.name,
                    authentication=actor.authentication,
                    reason=reason,
                    to_release=release_id,
                ),
            )
    return release_id


def _start_rollback(url: str, releases: tuple[str, str, str], actor: Actor, reason: str) -> Promotion:
    assistant, present, target = releases
    return start_move(
        url,
        Planned(
            assistant=assistant,
            action="roll back",
            from_release=present,
            to_release=target,
            actor=actor,
            reason=reason,
        ),
    )


def _require_may_return(environment: Environment, entries: Sequence[LedgerEntry], target: str) -> None:
    """Raise unless a release that was in production may be there again: approved, not revoked, whole, and judged
    with the code that runs.
    """
    url = environment.database_url.get_secret_value()
    manifest = read_manifest(url, target)
    entered = next(entry for entry in reversed(entries) if entry.to_release == target)
    require_not_revoked(url, target)
    evidence_for(environment, manifest, entered)
    require_clean(environment, manifest)
    require_code(url, manifest)
    require_artifacts(environment, manifest)


def _require_compared(url: str, assistant: str, compared: str | None) -> None:
    """Raise StaleRelease unless production is still the release that the gate compared with."""
    with connect(url) as connection:
        before = current_release(connection, assistant, "production")
    if before != compared:
        raise StaleRelease(
            f"production is release {(before or 'none')[:12]}, the gate compared with {(compared or 'none')[:12]}: "
            "run release_assistant again"
        )


def _rollback_target(assistant: str, entries: Sequence[LedgerEntry], to: str | None, *, astray: bool) -> str:
    """Return the release to go back to; raise MissingInput when there is none, or more than one fits."""
    known = list(dict.fromkeys(entry.to_release for entry in reversed(entries) if entry.to_release))
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
