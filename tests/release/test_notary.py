"""The notary signs only what a person on the list, who is no author, approved in time, on the text of the release."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import yaml
from pydantic import SecretStr

from llmops.assistant import Approval
from llmops.errors import IntegrityError, ServiceUnavailable
from llmops.evaluation import GateRules
from llmops.manifest import Manifest, PromptPin, canonical_json
from llmops.release import (
    ApprovalRequest,
    Notary,
    StoredReport,
    approval_of,
    ledger,
    list_releases,
    notary_keys,
    read_manifest,
    read_report,
    request_text,
    sign_release,
)
from llmops.release._judge import Finding, Hearing, judge
from llmops.release._ledger import SignedHead, open_head, signed_heads
from llmops.release._statement import PersonalSignature, open_statement
from llmops.release._store import save_report
from llmops.settings import Environment
from llmops.signing import SigningKey
from release.conftest import GATE, PERSONAL
from support.services import FreshDatabase

Make = Callable[..., str]
Ask = Callable[..., ApprovalRequest]
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LATE = NOW + timedelta(hours=2)
RULES = Approval(approvers=("reviewer", "author", "second"), deadline_hours=24)
QUESTION = ("To production?", f"release {'a' * 64}, report {'b' * 64}")
RUN = {"state": "running", "triggered_by": "rest_api", "triggering_user_name": "author"}
MANIFEST = Manifest(
    assistant="guide", environment="dev", code_digest="c", commit=None, dirty=False,
    prompt=PromptPin(uri="prompts:/p/1", text_hash="t"), generator={}, embedder=None, index=None,
    retrieval={"kind": "none"}, guardrails={}, evaluation_digest="e", prices_digest="p", gate_digest="g",
    committers=("dev@example.org",), authors=("author", "dev@example.org", "Trainer"),
)  # fmt: skip


def request(**changes: Any) -> ApprovalRequest:
    values: dict[str, Any] = {
        "nonce": uuid4(),
        "release_id": "a" * 64,
        "report_hash": "b" * 64,
        "assistant": "guide",
        "environment": "dev",
        "deadline": NOW + timedelta(hours=1),
        "dag_id": "release_assistant",
        "run_id": "manual",
        "task_id": "ask_reviewer",
        "opened_at": NOW - timedelta(hours=1),
    }
    return ApprovalRequest(**{**values, **changes})


def answer(**changes: Any) -> dict[str, Any]:
    record = {
        "response_received": True,
        "responded_by_user": {"id": "reviewer", "name": "reviewer"},
        "chosen_options": ["Approve"],
        "params_input": {},
        "created_at": (NOW - timedelta(hours=1)).isoformat(),
        "responded_at": NOW.isoformat().replace("+00:00", "Z"),
        "subject": QUESTION[0],
        "body": QUESTION[1],
    }
    return {**record, **changes}


def decide(record: dict[str, Any] | None, now: datetime = NOW, **changes: Any) -> Finding | None:
    values: dict[str, Any] = {
        "request": request(),
        "manifest": MANIFEST,
        "rules": RULES,
        "question": QUESTION,
        "answer": record,
        "run": RUN,
    }
    return judge(Hearing(**{**values, **changes}), now)


def decided(record: dict[str, Any] | None, now: datetime = NOW, **changes: Any) -> tuple[str, str]:
    finding = decide(record, now, **changes)
    assert finding is not None
    return finding.decision, finding.reason


def signed(*names: str) -> tuple[PersonalSignature, ...]:
    return tuple(PersonalSignature(principal=name, fingerprint="f", signature="s") for name in names)


def test_an_approval_by_a_listed_person_in_time_is_recorded() -> None:
    finding = decide(answer())
    assert finding is not None
    assert (finding.decision, finding.approver, finding.channel) == ("approved", "reviewer", "airflow")


def test_a_request_without_an_answer_stays_open_until_the_deadline_and_is_then_rejected() -> None:
    for open_record in (None, answer(response_received=False)):
        assert decide(open_record) is None
        assert decided(open_record, NOW + timedelta(hours=2))[0] == "rejected"


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (None, "the run was deleted before anybody answered"),
        ({**RUN, "state": "failed"}, "the run failed before anybody answered"),
        ({**RUN, "state": "success"}, None),
    ],
    ids=["deleted", "failed", "going on"],
)
def test_a_request_whose_run_ended_is_rejected_at_once(run: Any, reason: str | None) -> None:
    finding = decide(None, run=run)
    assert (finding.reason if finding else None) == reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"responded_by_user": None, "chosen_options": ["Reject"], "responded_at": LATE.isoformat()},
            "nobody answered before the deadline",
        ),
        ({"responded_by_user": None}, "no person answered: a program"),
        ({"responded_by_user": None, "responded_at": None}, "no person answered: a program"),
        ({"chosen_options": ["Reject"]}, "chose Reject"),
        ({"chosen_options": ["Approve", "Reject"]}, "chose Approve, Reject"),
        ({"chosen_options": []}, "chose nothing"),
        ({"responded_by_user": {"id": "x", "name": "stranger"}}, "not on the list"),
        ({"responded_by_user": {"id": "author", "name": "author"}}, "author of this release"),
        ({"body": QUESTION[1] + " "}, "not the one"),
        ({"body": f"release {'c' * 64}, report {'b' * 64}"}, "not the one"),
        ({"body": None}, "not the one"),
        ({"subject": "Lunch?"}, "not the one"),
        ({"responded_at": LATE.isoformat()}, "deadline"),
        ({"responded_at": (NOW - timedelta(hours=2)).isoformat()}, "deadline"),
        ({"responded_at": None}, "deadline"),
    ],
)
def test_everything_else_is_a_rejection_with_its_reason(changes: dict[str, Any], reason: str) -> None:
    decision, said = decided(answer(**changes))
    assert decision == "rejected"
    assert reason in said


@pytest.mark.parametrize("asked", [{"dag_id": "lunch"}, {"task_id": "ask_somebody"}])
def test_only_the_release_dag_may_ask(asked: dict[str, str]) -> None:
    assert decided(answer(), request=request(**asked)) == (
        "rejected",
        f"it was asked by {asked.get('dag_id', 'release_assistant')}.{asked.get('task_id', 'ask_reviewer')}, "
        "not by release_assistant.ask_reviewer",
    )


def test_the_demos_answer_counts_in_dev_only() -> None:
    record = answer(params_input={"channel": "demo"})
    in_dev = decide(record)
    elsewhere = decide(record, request=request(environment="prod"))
    assert in_dev is not None
    assert elsewhere is not None
    assert (in_dev.decision, in_dev.channel) == ("approved", "demo")
    assert (elsewhere.decision, elsewhere.channel) == ("rejected", "airflow")
    assert "dev" in elsewhere.reason


@pytest.mark.parametrize("name", ["dev", "DEV@example.org", "Author", "trainer"])
def test_an_author_is_known_by_name_or_by_the_address_of_their_commits(name: str) -> None:
    rules = Approval(approvers=(name,))
    record = answer(responded_by_user={"name": name})
    assert decided(record, rules=rules)[0] == "rejected"
    assert "author" in decided(record, rules=rules)[1]


def test_an_author_is_known_by_the_other_names_that_the_configuration_gives_them() -> None:
    assert decided(answer(), people={"reviewer": ("dev@example.org",)})[0] == "rejected"
    assert (
        decided(answer(), people={"reviewer": ("else@example.org",), "second": ("dev@example.org",)})[0]
        == "approved"
    )


def test_who_started_the_run_must_be_among_the_authors_of_the_manifest() -> None:
    """A task that writes a manifest with other authors cannot change whom Airflow saw starting the run."""
    run = {**RUN, "triggering_user_name": "reviewer"}
    decision, reason = decided(answer(), run=run)
    assert decision == "rejected"
    assert "reviewer started the run, but the manifest does not name them" in reason


@pytest.mark.parametrize("start", ["asset", "timetable", "cli", "backfill", "operator", None])
def test_a_run_that_nobody_known_started_and_nobody_made_needs_two_approvers(start: str | None) -> None:
    run = {**RUN, "triggered_by": start, "triggering_user_name": "root" if start == "cli" else None}
    nobody = MANIFEST.model_copy(update={"authors": ()})
    assert decided(answer(), run=run)[0] == "approved"  # the trainer and the committer are known
    assert decide(answer(), run=run, manifest=nobody) is None
    assert decide(answer(), run=run, manifest=nobody, personal=signed("reviewer", "stranger")) is None
    assert decided(answer(), run=run, manifest=nobody, personal=signed("second"))[0] == "approved"
    late = decided(answer(), NOW + timedelta(hours=2), run=run, manifest=nobody)
    assert late == (
        "rejected",
        "nobody knows who made this release, so a second approver must sign it too, and nobody has, and the deadline "
        "has passed",
    )


def test_outside_dev_code_of_unknown_authors_needs_two_approvers() -> None:
    unknown = MANIFEST.model_copy(update={"committers": None})
    assert decided(answer(), manifest=unknown)[0] == "approved"
    prod = request(environment="prod")
    assert decide(answer(), manifest=unknown, request=prod) is None
    assert decide(answer(), manifest=unknown, request=prod, personal=signed("author")) is None
    assert decided(answer(), manifest=unknown, request=prod, personal=signed("second"))[0] == "approved"


def test_a_gate_that_asks_for_the_approvers_own_signature_waits_for_it() -> None:
    assert decide(answer(), needs_signature=True) is None
    assert decide(answer(), needs_signature=True, personal=signed("second")) is None
    finding = decide(answer(), needs_signature=True, personal=signed("reviewer", "stranger"))
    assert finding is not None
    assert finding.decision == "approved"
    assert [each.principal for each in finding.personal] == ["reviewer"]
    assert decided(answer(), NOW + timedelta(hours=2), needs_signature=True)[0] == "rejected"


class Reader:
    """Plays Airflow: answers and runs per run id, or an error."""

    def __init__(self, answers: dict[str, Any], runs: dict[str, Any] | None = None) -> None:
        self.answers, self.runs = answers, runs or {}

    def answer(self, asked: ApprovalRequest) -> dict[str, Any] | None:
        found = self.answers.get(asked.run_id)
        if isinstance(found, Exception):
            raise found
        return found

    def run(self, asked: ApprovalRequest) -> dict[str, Any] | None:
        return self.runs.get(asked.run_id, RUN)


Watch = Callable[..., Notary]
Approving = Callable[[ApprovalRequest], dict[str, Any]]


@pytest.fixture
def guide(tmp_path: Path, environment: Environment) -> Callable[[GateRules], None]:
    """Write the assistant's file as the notary has it: its approver is the reviewer, its gate the given one."""
    (tmp_path / "assistants").mkdir()

    def write(gate: GateRules) -> None:
        values = {
            "description": "d",
            "prompt": "{question}",
            "retrieval": {"kind": "none"},
            "generator": {"kind": "chat", "url": "http://127.0.0.1:9/v1", "model": "m"},
            "gate": gate.model_dump(mode="json"),
            "approval": {"approvers": ["reviewer"], "valid_hours": 3},
        }
        (tmp_path / "assistants" / "guide.yaml").write_text(yaml.safe_dump(values))

    write(GATE)
    return write


@pytest.fixture
def notary(guide: Any, environment: Environment, database: FreshDatabase, notary_key: SigningKey) -> Watch:
    """Return a notary that reads the given answers, connected with its own role."""
    own = environment.model_copy(update={"database_url": SecretStr(database.url("llmops_notary"))})
    return lambda reader, **more: Notary(own, reader, notary_key, **more)


@pytest.fixture
def approving(url: str) -> Approving:
    """Return Airflow's record of a reviewer who approved a request now, on its own text."""

    def make(asked: ApprovalRequest) -> dict[str, Any]:
        texts = request_text(asked, read_manifest(url, asked.release_id), read_report(url, asked.report_hash))
        return answer(
            subject=texts[0],
            body=texts[1],
            created_at=asked.opened_at.isoformat(),
            responded_at=datetime.now(UTC).isoformat(),
        )

    return make


def test_one_request_that_cannot_be_read_is_said_once_and_does_not_keep_the_others_waiting(
    notary: Watch,
    release: Make,
    report: Make,
    ask: Ask,
    approving: Approving,
    url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    release_id = release()
    report_hash = report(release_id)
    broken, failed, answered = (ask(release_id, report_hash) for _ in range(3))
    reader = Reader(
        {broken.run_id: ServiceUnavailable("no"), answered.run_id: approving(answered)},
        {failed.run_id: {**RUN, "state": "failed"}},
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
    assert caplog.text.count("cannot be settled now: no") == 1
    reader.answers[broken.run_id] = ServiceUnavailable("still no")
    assert watching.turn() == watching.turn() == 0
    assert caplog.text.count("cannot be settled now: still no") == 1


def test_what_the_notary_decides_is_signed_and_in_the_ledger(
    notary: Watch,
    release: Make,
    report: Make,
    ask: Ask,
    approving: Approving,
    environment: Environment,
    url: str,
) -> None:
    release_id = release()
    asked = ask(release_id, report(release_id))
    notary(Reader({asked.run_id: approving(asked)})).turn()
    recorded = approval_of(url, asked.nonce)
    assert recorded is not None
    statement = open_statement(recorded, notary_keys(environment))
    shown = approving(asked)["body"]
    assert statement.body_hash == hashlib.sha256(shown.encode()).hexdigest()
    assert (statement.authors, statement.trigger) == (("author",), "rest_api by author")
    (entry,) = ledger(url, "guide")
    assert (entry.action, entry.actor, entry.to_release, entry.approval_nonce) == (
        "approve", "reviewer", release_id, asked.nonce,
    )  # fmt: skip
    assert entry.authentication == "Airflow login, airflow"


@pytest.mark.parametrize(
    ("verdict", "where", "decision"),
    [("PASS", "dev", "approved"), ("FAIL", "dev", "rejected"), ("PASS", "prod", None)],
    ids=["as it should be", "no PASS", "another environment"],
)
def test_the_notary_records_an_approval_only_of_a_pass_in_its_own_environment(
    notary: Watch, release: Make, report: Make, forged: Ask, approving: Approving, url: str,
    verdict: str, where: str, decision: str | None,
) -> None:  # fmt: skip
    """The worker may write any request it likes; the notary checks what it rests on."""
    release_id = release(environment=where)
    asked = forged(release_id, report(release_id, verdict), where)
    notary(Reader({asked.run_id: approving(asked)})).turn()
    recorded = approval_of(url, asked.nonce)
    assert (recorded and recorded.decision) == decision
    if recorded and decision == "rejected":
        assert (recorded.approver, "is FAIL" in recorded.reason) == (None, True)


def rejection(watching: Notary, url: str, asked: ApprovalRequest) -> str:
    """Let the notary look once, and return why it rejected a request."""
    assert watching.turn() == 1
    recorded = approval_of(url, asked.nonce)
    assert recorded is not None
    assert recorded.decision == "rejected"
    return recorded.reason


def test_the_notary_rejects_a_release_of_other_rules_than_its_own_file_has(
    guide: Callable[[GateRules], None], notary: Watch, release: Make, report: Make, ask: Ask,
    approving: Approving, url: str,
) -> None:  # fmt: skip
    """A task can pin any rules it likes: a gate that asks for a person's own signature cannot be dropped so."""
    guide(PERSONAL)
    release_id = release(gate=GATE)
    asked = ask(release_id, report(release_id, gate=GATE))
    watching = notary(Reader({asked.run_id: approving(asked)}))
    assert "other gate rules than the notary's own file" in rejection(watching, url, asked)


def test_the_notary_decides_again_and_rejects_a_report_that_does_not_come_out_the_same(
    notary: Watch, release: Make, report: Make, forged: Ask, approving: Approving, url: str
) -> None:
    """A task can store any report; its verdict has to follow from its scores."""
    release_id = release()
    content = json.loads(read_report(url, report(release_id, "FAIL")).report)
    content["verdict"] = "PASS"
    text = canonical_json(content)
    lied = hashlib.sha256(text.encode()).hexdigest()
    save_report(url, StoredReport(lied, release_id, None, "PASS", text, "All is well."))
    asked = forged(release_id, lied)
    watching = notary(Reader({asked.run_id: approving(asked)}))
    assert "decided again" in rejection(watching, url, asked)


def test_the_notary_rejects_a_page_that_is_not_the_reports_own(
    notary: Watch, release: Make, report: Make, ask: Ask, approving: Approving, url: str
) -> None:
    """The page that approvers read is no part of the report's hash; it has to be what the report gives."""
    release_id = release()
    asked = ask(release_id, report(release_id))
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE gate_reports SET markdown = 'All is well.'")
    watching = notary(Reader({asked.run_id: approving(asked)}))
    assert "page" in rejection(watching, url, asked)


def test_the_notary_rejects_a_report_of_other_rules_than_the_release_pins(
    notary: Watch, release: Make, report: Make, forged: Ask, approving: Approving, url: str
) -> None:
    release_id = release(gate=GATE)
    asked = forged(release_id, report(release_id, gate=PERSONAL))
    watching = notary(Reader({asked.run_id: answer()}))
    assert "other rules" in rejection(watching, url, asked)


@pytest.mark.parametrize(
    "change",
    [
        """releases SET manifest = replace(manifest, '"author"', '"nobody"')""",
        "gate_reports SET report = report || ' '",
    ],
)
def test_the_notary_rejects_what_was_changed_after_it_was_decided(
    notary: Watch, database: FreshDatabase, release: Make, report: Make, ask: Ask, approving: Approving, url: str,
    change: str,
) -> None:  # fmt: skip
    release_id = release()
    asked = ask(release_id, report(release_id))
    record = approving(asked)
    with psycopg.connect(database.url("llmops_owner")) as connection:
        connection.execute(f"UPDATE {change}")
    watching = notary(Reader({asked.run_id: record}))
    assert "changed after it was" in rejection(watching, url, asked)


def test_a_personal_gate_is_settled_only_with_the_approvers_own_signature(
    guide: Callable[[GateRules], None],
    notary: Watch,
    release: Make,
    report: Make,
    ask: Ask,
    approving: Approving,
    environment: Environment,
    url: str,
) -> None:
    guide(PERSONAL)
    release_id = release(gate=PERSONAL)
    asked = ask(release_id, report(release_id, gate=PERSONAL))
    watching = notary(Reader({asked.run_id: approving(asked)}))
    assert watching.turn() == 0  # no file of reviewers' keys: it waits, and says so in its log
    mine, other = SigningKey.generate(), SigningKey.generate()
    assert environment.reviewer_keys is not None
    environment.reviewer_keys.write_text(f"reviewer {mine.public_line}\nanna {other.public_line}\n")
    assert watching.turn() == 0
    sign_release(environment, release_id, other)
    assert watching.turn() == 0
    sign_release(environment, release_id, mine)
    assert watching.turn() == 1
    recorded = approval_of(url, asked.nonce)
    assert recorded is not None
    statement = open_statement(recorded, notary_keys(environment))
    assert [each.principal for each in statement.personal] == ["reviewer"]


def test_the_list_of_releases_names_who_approved_and_nobody_for_a_rejection(
    notary: Watch, release: Make, report: Make, ask: Ask, approving: Approving, url: str
) -> None:
    one, other = release("a"), release("b", authors=("reviewer", "author"))
    requests = [ask(release_id, report(release_id)) for release_id in (one, other)]
    reader = Reader({asked.run_id: approving(asked) for asked in requests})
    assert notary(reader).turn() == 2
    listed = list_releases(url, "guide")
    assert {r.release_id: r.approval for r in listed} == {one: "approved by reviewer", other: "rejected"}


def test_refused_answers_that_reached_airflow_come_into_the_ledger_once(
    notary: Watch, release: Make, report: Make, ask: Ask, url: str
) -> None:
    release_id = release()
    asked = ask(release_id, report(release_id))
    with psycopg.connect(url) as connection:
        for person, status in (("author", 403), ("reviewer", 200), (None, 401), ("viewer", 409)):
            connection.execute(
                "INSERT INTO approval_attempts (dag_id, run_id, task_id, person, chosen, status) "
                "VALUES (%s, %s, %s, %s, 'Approve', %s)",
                (asked.dag_id, asked.run_id, asked.task_id, person, status),
            )
    watching = notary(Reader({}))
    watching.turn()
    watching.turn()
    entries = ledger(url, "guide")
    assert [(e.action, e.actor, e.to_release) for e in entries] == [
        ("refuse", "author", release_id),
        ("refuse", "viewer", release_id),
    ]
    assert "status 403" in entries[0].reason


def test_one_person_cannot_fill_the_ledger_with_refusals(
    notary: Watch, release: Make, report: Make, ask: Ask, url: str
) -> None:
    release_id = release()
    asked = ask(release_id, report(release_id))
    with psycopg.connect(url) as connection:
        for person in ("author",) * 30 + ("viewer",):
            connection.execute(
                "INSERT INTO approval_attempts (dag_id, run_id, task_id, person, chosen, status) "
                "VALUES (%s, %s, %s, %s, 'Approve', 403)",
                (asked.dag_id, asked.run_id, asked.task_id, person),
            )
    watching = notary(Reader({}))
    for _ in range(3):
        watching.turn()
    assert Counter(entry.actor for entry in ledger(url, "guide")) == {"author": 10, "viewer": 1}


class Kept:
    """Keeps heads in a list; fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.heads: list[SignedHead] = []
        self.failures = failures

    def keep(self, head: SignedHead) -> None:
        if self.failures:
            self.failures -= 1
            raise ServiceUnavailable("MLflow is away")
        self.heads.append(head)

    def kept(self) -> list[SignedHead]:
        return self.heads


def test_the_notary_signs_how_the_ledger_ends_and_hands_the_head_on_until_it_is_kept(
    notary: Watch,
    release: Make,
    report: Make,
    ask: Ask,
    approving: Approving,
    environment: Environment,
    url: str,
) -> None:
    copies = Kept(failures=1)
    release_id = release()
    asked = ask(release_id, report(release_id))
    watching = notary(Reader({asked.run_id: approving(asked)}), copies=copies)
    with pytest.raises(ServiceUnavailable):
        watching.turn()
    for _ in range(2):
        watching.turn()
    (stored,) = signed_heads(url)
    assert copies.heads == [stored]
    head = open_head(stored, "dev", notary_keys(environment))
    assert (head.entry, head.hash) == (1, ledger(url)[-1].hash)


@pytest.mark.parametrize("same_process", [True, False])
def test_the_notary_does_not_sign_anew_a_ledger_whose_end_was_cut_off_with_its_heads(
    notary: Watch, release: Make, report: Make, ask: Ask, approving: Approving, database: FreshDatabase, url: str,
    same_process: bool,
) -> None:  # fmt: skip
    copies = Kept()
    release_id = release()
    requests = [ask(release_id, report(release_id)) for _ in range(3)]
    answers: dict[str, Any] = {}
    watching = notary(Reader(answers), copies=None if same_process else copies)
    for asked in requests[:2]:
        answers[asked.run_id] = approving(asked)
        watching.turn()
    with psycopg.connect(database.url("llmops_owner")) as connection:
        connection.execute("DELETE FROM release_ledger WHERE entry = 2")
        connection.execute("DELETE FROM ledger_heads")
    if not same_process:
        watching = notary(Reader(answers), copies=copies)
    with pytest.raises(IntegrityError, match="damaged at entry 2: the ledger ends at 1"):
        watching.turn()
    assert signed_heads(url) == []


def test_the_notary_does_not_sign_a_ledger_that_somebody_edited(
    notary: Watch,
    release: Make,
    report: Make,
    ask: Ask,
    approving: Approving,
    database: FreshDatabase,
    url: str,
) -> None:
    release_id = release()
    requests = [ask(release_id, report(release_id)) for _ in range(2)]
    answers: dict[str, Any] = {requests[0].run_id: approving(requests[0])}
    watching = notary(Reader(answers))
    watching.turn()
    with psycopg.connect(database.url("llmops_owner")) as connection:
        connection.execute("UPDATE release_ledger SET actor = 'nobody' WHERE entry = 1")
    answers[requests[1].run_id] = approving(requests[1])
    with pytest.raises(IntegrityError, match="damaged at entry 1"):
        watching.turn()
    assert [head.entry for head in signed_heads(url)] == [1]
