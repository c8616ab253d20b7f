"""A small environment with real stores: no documents, no models."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from llmops.evaluation import (
    Case,
    GateRules,
    Observation,
    Rule,
    cases_digest,
    decide,
    evaluate,
    save_cases,
)
from llmops.manifest import Manifest
from llmops.release import (
    Actor,
    ApprovalRequest,
    RunReference,
    StoredReport,
    code_digest,
    ledger,
    open_approval,
    registry_of,
    request_of_run,
    stage,
)
from llmops.release._gate_texts import save_gate_texts, with_texts
from llmops.release._ledger import sign_head
from llmops.release._statement import Statement, sign_statement
from llmops.release._store import save_manifest, save_report
from llmops.settings import Environment
from llmops.signing import SigningKey
from support.services import FreshDatabase


@pytest.fixture(scope="session")
def notary_key() -> SigningKey:
    return SigningKey.generate()


@pytest.fixture
def environment(
    database: FreshDatabase,
    mlflow_url: str,
    tmp_path: Path,
    notary_key: SigningKey,
    monkeypatch: pytest.MonkeyPatch,
) -> Environment:
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path))
    keys = tmp_path / "keys"
    keys.write_text(f'notary namespaces="llmops-approval,llmops-ledger" {notary_key.public_line}\n')
    return Environment(
        name="dev",
        catalog=f"test{secrets.token_hex(4)}",
        storage_root=str(tmp_path / "lakehouse"),
        database_url=database.url("llmops_worker"),
        mlflow_url=mlflow_url,
        airflow_url="http://127.0.0.1:9",
        serving_url="http://127.0.0.1:9",
        notary_url="http://127.0.0.1:9",
        notary_keys=keys,
        reviewer_keys=tmp_path / "reviewers",
    )


@pytest.fixture
def url(environment: Environment) -> str:
    return environment.database_url.get_secret_value()


@pytest.fixture
def serving(environment: Environment, database: FreshDatabase) -> Environment:
    """The environment as the service has it: with its own role in the database."""
    return environment.model_copy(update={"database_url": SecretStr(database.url("llmops_serving"))})


@pytest.fixture
def owner(database: FreshDatabase) -> Callable[[str], None]:
    """Return what a database administrator can do: any statement, past every grant."""

    def execute(statement: str) -> None:
        with psycopg.connect(database.url("llmops_owner")) as connection:
            connection.execute(statement)  # type: ignore[call-overload]

    return execute


@pytest.fixture
def signed(database: FreshDatabase, notary_key: SigningKey) -> Callable[[], None]:
    """Sign the ledger's head, as the notary does."""

    def sign() -> None:
        with psycopg.connect(database.url("llmops_notary")) as connection:
            head = sign_head("dev", ledger(database.url("llmops_notary"))[-1], notary_key)
            connection.execute(
                "INSERT INTO ledger_heads VALUES (%s, %s, %s)", (head.entry, head.statement, head.signature)
            )

    return sign


CASES = [Case(id="one", question="Why?", slice="unanswerable")]
GATE = GateRules(rules=(Rule(metric="quality", minimum=0.5),), resamples=1_000)
PERSONAL = GATE.model_copy(update={"approval": "personal"})
"""The rules of a gate that also asks for the approver's own signature."""


@pytest.fixture
def release(environment: Environment, url: str) -> Callable[..., str]:
    """Store a manifest that answers without retrieval; ``prompt`` makes it differ."""
    digest = cases_digest(CASES)
    save_cases(CASES, Path(environment.table_root("guide")) / "_cases" / f"{digest}.jsonl")

    def make(prompt: str = "a", gate: GateRules = GATE, **changes: Any) -> str:
        values: dict[str, Any] = {
            "assistant": "guide",
            "environment": "dev",
            "code_digest": code_digest(),
            "commit": None,
            "dirty": False,
            "prompt": registry_of(environment, "guide").register_prompt(f"{prompt} {{question}}"),
            "generator": {"kind": "chat", "url": "http://127.0.0.1:9/v1", "model": "m"},
            "embedder": None,
            "index": None,
            "retrieval": {"kind": "none"},
            "guardrails": {},
            "evaluation_digest": digest,
            "gate_digest": gate.digest,
            "committers": (),
            "prices_digest": "p",
            "authors": ("author",),
        }
        return save_manifest(url, Manifest(**{**values, **changes}))

    return make


@pytest.fixture
def report(url: str) -> Callable[..., str]:
    """Evaluate an assistant that refuses rightly (PASS), wrongly does not (FAIL) or breaks (INCOMPLETE), and decide."""

    def make(
        release_id: str, verdict: str = "PASS", baseline: str | None = None, gate: GateRules = GATE
    ) -> str:
        def answer(question: str) -> Observation:
            if verdict == "INCOMPLETE":
                raise RuntimeError("broken")
            return Observation("No.", verdict == "PASS", None, 0.1)

        evaluation = evaluate(CASES, answer, label="candidate")
        save_gate_texts(url, evaluation.texts)
        made = decide(
            gate, evaluation, None, context={"release_id": release_id, "nonce": secrets.token_hex(8)}
        )
        assert made.verdict == verdict
        page = with_texts(url, made).markdown()
        save_report(url, StoredReport(made.report_hash, release_id, baseline, verdict, made.json(), page))
        return made.report_hash

    return make


@pytest.fixture
def ask(environment: Environment) -> Callable[..., ApprovalRequest]:
    """Open an approval request of a release and its report."""

    def make(release_id: str, report_hash: str) -> ApprovalRequest:
        run = RunReference("release_assistant", f"manual {secrets.token_hex(4)}", "ask_reviewer")
        return open_approval(
            environment, release_id, report_hash, datetime.now(UTC) + timedelta(hours=1), run
        )

    return make


@pytest.fixture
def forged(url: str) -> Callable[..., ApprovalRequest]:
    """Write an approval request as the worker can, past ``open_approval`` and its checks."""

    def make(release_id: str, report_hash: str, environment: str = "dev") -> ApprovalRequest:
        run = RunReference("release_assistant", f"forged {secrets.token_hex(4)}", "ask_reviewer")
        with psycopg.connect(url) as connection:
            connection.execute(
                "INSERT INTO approval_requests "
                "(release_id, report_hash, assistant, environment, deadline, dag_id, run_id, task_id) "
                "VALUES (%s, %s, 'guide', %s, now() + interval '1 hour', %s, %s, %s)",
                (release_id, report_hash, environment, run.dag_id, run.run_id, run.task_id),
            )
        return request_of_run(url, run)

    return make


@pytest.fixture
def record(database: FreshDatabase, notary_key: SigningKey) -> Callable[..., None]:
    """Write the notary's row for a request, as the notary; ``row`` changes it after it was signed."""

    def write(
        request: ApprovalRequest,
        decision: str = "approved",
        *,
        key: SigningKey = notary_key,
        row: dict[str, Any] | None = None,
        **changes: Any,
    ) -> None:
        now = datetime.now(UTC)
        values: dict[str, Any] = {
            "nonce": request.nonce,
            "assistant": request.assistant,
            "environment": "dev",
            "release_id": request.release_id,
            "report_hash": request.report_hash,
            "body_hash": None,
            "decision": decision,
            "approver": "reviewer",
            "authors": ("author",),
            "trigger": "rest_api by author",
            "reason": f"reviewer {decision}",
            "channel": "airflow",
            "opened_at": request.opened_at,
            "answered_at": now,
            "expires_at": now + timedelta(hours=1),
            "signed_at": now,
        }
        statement = Statement(**{**values, **changes})
        signed = {
            **statement.model_dump(exclude={"personal"}),
            "statement": statement.text(),
            "signature": sign_statement(statement, key),
            **(row or {}),
        }
        with psycopg.connect(database.url("llmops_notary")) as connection:
            connection.execute(
                "INSERT INTO approvals (nonce, release_id, report_hash, decision, approver, reason, channel, "
                "environment, answered_at, expires_at, statement, signature) VALUES (%(nonce)s, %(release_id)s, "
                "%(report_hash)s, %(decision)s, %(approver)s, %(reason)s, %(channel)s, %(environment)s, "
                "%(answered_at)s, %(expires_at)s, %(statement)s, %(signature)s)",
                signed,
            )

    return write


@pytest.fixture
def approved(
    environment: Environment,
    release: Callable[..., str],
    report: Callable[..., str],
    ask: Callable[..., ApprovalRequest],
    record: Callable[..., None],
) -> Callable[..., ApprovalRequest]:
    """Return a request of a staged release that the notary approved."""

    def make(prompt: str = "a", baseline: str | None = None) -> ApprovalRequest:
        release_id = release(prompt)
        report_hash = report(release_id, baseline=baseline)
        stage(environment, release_id, report_hash, Actor("author", "Airflow login"))
        request = ask(release_id, report_hash)
        record(request)
        return request

    return make
