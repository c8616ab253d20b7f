"""When an answer in Airflow is an approval: pure rules over what the notary read for itself."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from llmops.assistant import Approval as ApprovalRules
from llmops.errors import NotApproved
from llmops.manifest import Manifest
from llmops.release._approval import ApprovalRequest
from llmops.release._statement import PersonalSignature

GRACE = timedelta(seconds=60)
"""How long after the deadline an answer may still be on its way."""

ASKING = ("release_assistant", "ask_reviewer")
"""The DAG and task whose answers count; any other could show its approvers something else."""

_AUTHENTICATED = ("rest_api", "ui")


@dataclass(frozen=True)
class Finding:
    """What the notary concluded about one request."""

    decision: Literal["approved", "rejected"]
    approver: str | None
    reason: str
    channel: Literal["airflow", "demo"]
    answered_at: datetime | None
    personal: tuple[PersonalSignature, ...] = ()


@dataclass(frozen=True)
class Hearing:
    """Everything that a decision on one request rests on.

    ``answer`` and ``run`` are Airflow's records, None while (or since) there is none. ``question`` is the subject
    and text that the request must have shown. ``personal`` are the verified signatures of people over the release;
    ``needs_signature`` is whether the gate asks for the approver's own. ``people`` maps a name in Airflow to other
    names of the same person.
    """

    request: ApprovalRequest
    manifest: Manifest
    rules: ApprovalRules
    question: tuple[str, str]
    answer: Mapping[str, Any] | None
    run: Mapping[str, Any] | None
    personal: Sequence[PersonalSignature] = ()
    needs_signature: bool = False
    people: Mapping[str, Collection[str]] | None = None

    @property
    def trigger(self) -> str:
        """Return who or what started the run, as Airflow knows it."""
        run = self.run or {}
        name = run.get("triggering_user_name")
        return f"{run.get('triggered_by') or 'unknown'}{f' by {name}' if name else ''}"

    @property
    def authenticated_trigger(self) -> str | None:
        """Return the user who started the run over Airflow's API or pages; None for any other start."""
        run = self.run or {}
        return run.get("triggering_user_name") if run.get("triggered_by") in _AUTHENTICATED else None

    @property
    def needs_two(self) -> str | None:
        """Return why one approver is not enough, or None.

        Where nobody knows who made a release, nobody can say that the approver did not.
        """
        if self.authenticated_trigger is None and not self.manifest.authors:
            return "nobody knows who made this release"
        if self.manifest.committers is None and self.request.environment != "dev":
            return "nobody knows who wrote the code of this release"
        return None


def judge(hearing: Hearing, now: datetime) -> Finding | None:
    """Return how a request ended, or None while it is open.

    An approval counts only when a person on the approvers' list, who is not an author, chose Approve between asking
    and deadline, on exactly the text that this release and report give, in a run of the release DAG. Everything
    else that ends a request is a rejection with its reason.
    """
    answer, request = hearing.answer, hearing.request
    if answer is None or not answer.get("response_received"):
        return _unanswered(hearing, now)
    person = (answer.get("responded_by_user") or {}).get("name")
    channel: Literal["airflow", "demo"] = (
        "demo" if (answer.get("params_input") or {}).get("channel") == "demo" else "airflow"
    )
    answered_at = time_of(answer.get("responded_at"))
    try:
        _require_answer(hearing, answer, person, now)
        _require_person(hearing, str(person))
        if channel == "demo" and request.environment != "dev":
            channel = "airflow"
            raise NotApproved(
                f"an answer of the demo counts in environment 'dev' only, not in {request.environment!r}"
            )
    except NotApproved as objection:
        return Finding("rejected", person, str(objection), channel, answered_at)
    if missing := _missing_signature(hearing, str(person)):
        if now > request.deadline + GRACE:
            return Finding(
                "rejected", person, f"{missing}, and the deadline has passed", channel, answered_at
            )
        return None
    personal = tuple(p for p in hearing.personal if p.principal in hearing.rules.approvers)
    return Finding("approved", person, f"{person} approved", channel, answered_at, personal)


def _unanswered(hearing: Hearing, now: datetime) -> Finding | None:
    if now > hearing.request.deadline + GRACE:
        return Finding("rejected", None, "nobody answered before the deadline", "airflow", None)
    if hearing.run is None:
        return Finding("rejected", None, "the run was deleted before anybody answered", "airflow", None)
    if hearing.run.get("state") == "failed":
        return Finding("rejected", None, "the run failed before anybody answered", "airflow", None)
    return None


def _require_answer(hearing: Hearing, answer: Mapping[str, Any], person: str | None, now: datetime) -> None:
    """Raise NotApproved unless a person chose Approve, in time, on exactly the text of this request."""
    request, chosen = hearing.request, answer.get("chosen_options")
    if person is None:
        at = time_of(answer.get("responded_at"))  # Airflow answers by itself at the deadline
        if at is not None and at >= request.deadline:
            raise NotApproved("nobody answered before the deadline")
        raise NotApproved("no person answered: a program without a login did")
    if chosen != ["Approve"]:
        raise NotApproved(f"{person} chose {', '.join(chosen or []) or 'nothing'}")
    if (request.dag_id, request.task_id) != ASKING:
        raise NotApproved(f"it was asked by {request.dag_id}.{request.task_id}, not by {'.'.join(ASKING)}")
    if (answer.get("subject"), answer.get("body")) != hearing.question:
        raise NotApproved(
            "the text that was approved is not the one that this release and its report give (they carry "
            f"the hashes {request.release_id[:12]} and {request.report_hash[:12]})"
        )
    answered_at, asked_at = time_of(answer.get("responded_at")), time_of(answer.get("created_at")) or now
    if answered_at is None or not asked_at <= answered_at <= request.deadline:
        raise NotApproved(
            f"the answer of {answered_at} is not between asking and the deadline {request.deadline}"
        )


def _require_person(hearing: Hearing, person: str) -> None:
    """Raise NotApproved unless the person may approve this release."""
    approvers, authors = hearing.rules.approvers, hearing.manifest.authors
    if person not in approvers:
        raise NotApproved(f"{person} is not on the list of approvers ({', '.join(approvers)})")
    trigger = hearing.authenticated_trigger
    if trigger is not None and trigger not in authors:
        raise NotApproved(
            f"{trigger} started the run, but the manifest does not name them among its authors "
            f"({', '.join(authors) or 'nobody'}): run release_assistant again"
        )
    if is_author(person, authors, hearing.people or {}):
        raise NotApproved(f"{person} is an author of this release; somebody else must approve it")


def _missing_signature(hearing: Hearing, person: str) -> str | None:
    """Return which signature the request still waits for, or None."""
    people, authors = hearing.people or {}, hearing.manifest.authors
    signed = {p.principal for p in hearing.personal if p.principal in hearing.rules.approvers}
    if hearing.needs_signature and person not in signed:
        return f"{person} approved in Airflow but has not signed the release with their own key"
    seconds = [name for name in signed - {person} if not is_author(name, authors, people)]
    if (why := hearing.needs_two) and not seconds:
        return f"{why}, so a second approver must sign it too, and nobody has"
    return None


def is_author(person: str, authors: Collection[str], people: Mapping[str, Collection[str]]) -> bool:
    """Return whether a person is one of the authors.

    Names compare without case; a person is also known by the other names that ``people`` gives them, and by the
    part of an e-mail address before the @, since a commit knows addresses where Airflow knows names.
    """
    names = {person.casefold(), *(name.casefold() for name in people.get(person, ()))}
    return any(
        author.casefold() in names or ("@" in author and author.casefold().partition("@")[0] in names)
        for author in authors
    )


def body_hash(body: str) -> str:
    """Return the sha-256 of a request's text."""
    return hashlib.sha256(body.encode()).hexdigest()


def time_of(value: Any) -> datetime | None:
    """Return an ISO timestamp of Airflow's as a datetime with zone, None when there is none."""
    return datetime.fromisoformat(str(value).replace("Z", "+00:00")) if value else None
