"""The notary signs only what a person on the list, who is no author, approved in time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from pydantic import SecretStr

from llmops.assistant import Approval
from llmops.errors import ServiceUnavailable
from llmops.release import (
    ApprovalRequest,
    Notary,
    approval_of,
    list_releases,
)
from llmops.release._notary import Finding, judge
from llmops.settings import Environment
from support.services import FreshDatabase

Make = Callable[..., str]
Ask = Callable[..., ApprovalRequest]
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
RULES = Approval(approvers=("reviewer", "author"), deadline_hours=24)


def request(environment: str = "dev") -> ApprovalRequest:
    return ApprovalRequest(
        nonce=uuid4(),
        release_id="a" * 64,
        report_hash="b" * 64,
        assistant="guide",
        environment=environment,
        deadline=NOW + timedelta(hours=1),
        dag_id="release_assistant",
        run_id="manual",
        task_id="ask_reviewer",
        opened_at=NOW - timedelta(hours=1),
    )


def answer(**changes: Any) -> dict[str, Any]:
    record = {
        "response_received": True,
        "responded_by_user": {"id": "reviewer", "name": "reviewer"},
        "chosen_options": ["Approve"],
        "params_input": {},
        "created_at": (NOW - timedelta(hours=1)).isoformat(),
        "responded_at": NOW.isoformat().replace("+00:00", "Z"),
        "body": f"release {'a' * 64}, report {'b' * 64}",
    }
    return {**record, **changes}


def decide(record: dict[str, Any] | None, environment: str = "dev", now: datetime = NOW) -> Finding | None:
    return judge(request(environment), ("author",), RULES, record, now)


def test_an_approval_by_a_listed_person_in_time_is_recorded() -> None:
    finding = decide(answer())
    assert finding is not None
    assert (finding.decision, finding.approver, finding.channel) == ("approved", "reviewer", "airflow")


def test_a_request_without_an_answer_stays_open_until_the_deadline_and_is_then_rejected() -> None:
    assert decide(None) is None
    assert decide(answer(response_received=False)) is None
    late = decide(answer(response_received=False), now=NOW + timedelta(hours=2))
    assert late is not None
    assert late.decision == "rejected"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"responded_by_user": None, "chosen_options": ["Reject"]}, "nobody answered"),
        ({"responded_by_user": None}, "nobody answered"),
        ({"chosen_options": ["Reject"]}, "chose Reject"),
        ({"chosen_options": ["Approve", "Reject"]}, "chose Approve, Reject"),
        ({"chosen_options": []}, "chose nothing"),
        ({"responded_by_user": {"id": "x", "name": "stranger"}}, "not on the list"),
        ({"responded_by_user": {"id": "author", "name": "author"}}, "author of this release"),
        ({"body": f"release {'c' * 64}, report {'b' * 64}"}, "hashes"),
        ({"body": f"release {'a' * 64}, report {'c' * 64}"}, "hashes"),
        ({"body": None}, "hashes"),
        ({"responded_at": (NOW + timedelta(hours=2)).isoformat()}, "deadline"),
        ({"responded_at": (NOW - timedelta(hours=2)).isoformat()}, "deadline"),
        ({"responded_at": None}, "deadline"),
    ],
)
def test_everything_else_is_a_rejection_with_its_reason(changes: dict[str, Any], reason: str) -> None:
    finding = decide(answer(**changes))
    assert finding is not None
    assert finding.decision == "rejected"
    assert reason in finding.reason


def test_the_demos_answer_counts_in_dev_only() -> None:
    record = answer(params_input={"channel": "demo"})
    in_dev, elsewhere = decide(record), decide(record, environment="prod")
    assert in_dev is not None
    assert elsewhere is not None
    assert (in_dev.decision, in_dev.channel) == ("approved", "demo")
    assert elsewhere.decision == "rejected"
    assert "dev" in elsewhere.reason


class Reader:
    """Plays Airflow: answers per run id, an error, or a run that ended."""

    def __init__(self, answers: dict[str, Any], endings: dict[str, str]) -> None:
        self.answers, self.endings = answers, endings

    def answer(self, asked: ApprovalRequest) -> dict[str, Any] | None:
        found = self.answers.get(asked.run_id)
        if isinstance(found, Exception):
            raise found
        return found

    def ended(self, asked: ApprovalRequest) -> str | None:
        return self.endings.get(asked.run_id)


Watch = Callable[[Reader], Notary]


@pytest.fixture
def guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An assistant whose approver is the reviewer."""
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path))
    (tmp_path / "assistants").mkdir()
    (tmp_path / "assistants" / "guide.yaml").write_text(
        "description: d\nprompt: '{question}'\nretrieval: {kind: none}\n"
        "generator: {kind: chat, url: 'http://127.0.0.1:9/v1', model: m}\n"
        "gate: {rules: [{metric: latency_p95_seconds, maximum: 5}]}\n"
        "approval: {approvers: [reviewer], valid_hours: 3}\n"
    )


@pytest.fixture
def notary(guide: None, environment: Environment, database: FreshDatabase) -> Watch:
    """Return a notary that reads the given answers, connected with its own role."""
    own = environment.model_copy(update={"database_url": SecretStr(database.url("llmops_notary"))})
    return lambda reader: Notary(own, reader)  # type: ignore[arg-type]


def approving(asked: ApprovalRequest) -> dict[str, Any]:
    return answer(
        body=f"{asked.release_id} {asked.report_hash}",
        created_at=asked.opened_at.isoformat(),
        responded_at=datetime.now(UTC).isoformat(),
    )


def test_one_request_that_cannot_be_read_does_not_keep_the_others_waiting(
    notary: Watch, release: Make, report: Make, ask: Ask, url: str
) -> None:
    release_id = release()
    report_hash = report(release_id)
    broken, failed, answered = (ask(release_id, report_hash) for _ in range(3))
    reader = Reader(
        {broken.run_id: ServiceUnavailable("no"), answered.run_id: approving(answered)},
        {failed.run_id: "the run failed"},
    )
    watching = notary(reader)
    assert watching.turn() == 2
    assert approval_of(url, broken.nonce) is None
    ended, approved = approval_of(url, failed.nonce), approval_of(url, answered.nonce)
    assert ended is not None
    assert approved is not None
    assert (ended.decision, ended.reason) == ("rejected", "the run failed before anybody answered")
    assert (approved.decision, approved.approver) == ("approved", "reviewer")
    assert approved.answered_at is not None
    assert approved.expires_at - approved.answered_at == timedelta(hours=3)
    assert watching.turn() == 0


@pytest.mark.parametrize(
    ("verdict", "where", "decision"),
    [("PASS", "dev", "approved"), ("FAIL", "dev", "rejected"), ("PASS", "prod", None)],
    ids=["as it should be", "no PASS", "another environment"],
)
def test_the_notary_records_an_approval_only_of_a_pass_in_its_own_environment(
    notary: Watch, release: Make, report: Make, forged: Ask, url: str,
    verdict: str, where: str, decision: str | None,
) -> None:  # fmt: skip
    """The worker may write any request it likes; the notary checks what it rests on."""
    release_id = release(environment=where)
    asked = forged(release_id, report(release_id, verdict), where)
    notary(Reader({asked.run_id: approving(asked)}, {})).turn()
    recorded = approval_of(url, asked.nonce)
    assert (recorded and recorded.decision) == decision
    if recorded and decision == "rejected":
        assert (recorded.approver, "which is FAIL" in recorded.reason) == (None, True)


@pytest.mark.parametrize(
    "change",
    [
        """releases SET manifest = replace(manifest, '"author"', '"nobody"')""",
        "gate_reports SET report = report || ' '",
    ],
)
def test_the_notary_rejects_what_was_changed_after_it_was_decided(
    notary: Watch, database: FreshDatabase, release: Make, report: Make, ask: Ask, url: str, change: str
) -> None:
    release_id = release()
    asked = ask(release_id, report(release_id))
    with psycopg.connect(database.url("llmops_owner")) as connection:
        connection.execute(f"UPDATE {change}")
    watching = notary(Reader({asked.run_id: approving(asked)}, {}))
    assert watching.turn() == 1
    recorded = approval_of(url, asked.nonce)
    assert recorded is not None
    assert recorded.decision == "rejected"
    assert "changed after it was" in recorded.reason


def test_the_list_of_releases_names_who_approved_and_nobody_for_a_rejection(
    notary: Watch, release: Make, report: Make, ask: Ask, url: str
) -> None:
    one, other = release("a"), release("b", authors=("reviewer",))
    requests = [ask(release_id, report(release_id)) for release_id in (one, other)]
    reader = Reader({asked.run_id: approving(asked) for asked in requests}, {})
    assert notary(reader).turn() == 2
    listed = list_releases(url, "guide")
    assert {r.release_id: r.approval for r in listed} == {one: "approved by reviewer", other: "rejected"}
