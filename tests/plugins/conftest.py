"""A board over a database of its own, full of texts that mean harm."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient

from llmops.evaluation import Case, Evaluation, GateRules, Observation, decide, evaluate
from llmops.manifest import Manifest, PromptPin, canonical_json
from llmops.release import StoredReport
from llmops.release._ledger import LedgerEntry, NewEntry, append_entry, sign_head
from llmops.release._statement import Statement, sign_statement
from llmops.release._store import save_manifest, save_report
from llmops.settings import Environment
from llmops.signing import SigningKey
from release_board.app import create_board
from release_board.pages import environment as board_environment
from release_board.policy import may_read
from support.services import FreshDatabase

HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=alert(1)>\"'><svg onload=alert(1)> {{ 7*7 }} "
    "\x1b[31mred \u202egnp.exe\u202c =cmd()|'/c calc'!A1 javascript:alert(1)"
)
QUIET = "plain"


@pytest.fixture
def key() -> SigningKey:
    return SigningKey.generate()


@pytest.fixture
def environment(database: FreshDatabase, tmp_path: Path, key: SigningKey) -> Environment:
    keys = tmp_path / "keys"
    keys.write_text(f'notary namespaces="llmops-approval,llmops-ledger" {key.public_line}\n')
    return Environment(
        name="dev",
        catalog="dev",
        storage_root=str(tmp_path),
        database_url=database.url("llmops_worker"),
        mlflow_url="http://127.0.0.1:9",
        airflow_url="http://127.0.0.1:9",
        serving_url="http://127.0.0.1:9",
        notary_url="http://127.0.0.1:9",
        notary_keys=keys,
    )


@dataclass
class Story:
    """Releases of the assistant ``guide`` and what happened to them, written as the real processes write."""

    database: FreshDatabase
    key: SigningKey
    text: str = QUIET

    def release(self, prompt: str = "a", **changes: Any) -> str:
        values: dict[str, Any] = {
            "assistant": "guide",
            "environment": "dev",
            "code_digest": "c" * 64,
            "commit": "1" * 40,
            "dirty": False,
            "prompt": PromptPin(
                uri=f"prompts:/{self.text}/1", text_hash=hashlib.sha256(prompt.encode()).hexdigest()
            ),
            "generator": {"kind": "chat", "url": "https://llm.example/v1", "model": self.text},
            "embedder": None,
            "index": None,
            "retrieval": {"kind": "none"},
            "guardrails": {},
            "evaluation_digest": "e" * 64,
            "prices_digest": "p" * 64,
            "gate_digest": "9" * 64,
            "committers": (self.text,),
            "authors": ("author", self.text),
        }
        return save_manifest(self.database.url("llmops_worker"), Manifest(**{**values, **changes}))

    def report(self, release_id: str, baseline: str | None = None, *, keep: bool = True) -> StoredReport:
        """Store a report that the gate itself decided on two sets of answers."""
        cases = [
            Case(id=f"q{n:02}", question=f"Question {n}? {self.text}", slice=slice_name, **_known(slice_name))
            for n, slice_name in enumerate(["how-to", "concept", "limits", "unanswerable"] * 4)
        ]
        rules = GateRules(
            rules=[
                {"metric": "quality", "slice": "each", "largest_loss": 0.2},
                {"metric": "facts_covered", "minimum": 0.1, "largest_loss": 0.5},
                {"metric": "correct_refusal", "slice": "unanswerable", "minimum": 0.6},
                {"metric": "latency_p95_seconds", "maximum": 5, "largest_loss": 2},
                {"metric": "groundedness", "minimum": 0.9},
            ],
            underpowered="allow",
            resamples=1000,
        )
        before = self._evaluation(cases, f"production {(baseline or '')[:12]}", offset=1)
        after = self._evaluation(cases, release_id, offset=0)
        decided = decide(rules, after, before, context={"release_id": release_id})
        if keep:
            with psycopg.connect(self.database.url("llmops_worker")) as connection:
                connection.cursor().executemany(
                    "INSERT INTO gate_texts (digest, content) VALUES (%s, %s) ON CONFLICT DO NOTHING",
                    list(decided.texts.items()),
                )
        stored = StoredReport(
            decided.report_hash, release_id, baseline, decided.verdict, decided.json(), decided.markdown()
        )
        save_report(self.database.url("llmops_worker"), stored)
        return stored

    def other_report(self, release_id: str, content: str, verdict: str = "PASS") -> StoredReport:
        """Store a report with any text under its right hash, as whoever holds the worker's password can."""
        digest = hashlib.sha256(content.encode()).hexdigest()
        stored = StoredReport(digest, release_id, None, verdict, content, self.text)
        save_report(self.database.url("llmops_worker"), stored)
        return stored

    def _evaluation(self, cases: list[Case], label: str, offset: int) -> Evaluation:
        def answer(question: str) -> Observation:
            number = int(question.split()[1].rstrip("?"))
            good = (number + offset) % 3 != 0
            refuses = number % 4 == 3
            text = "It works." if good else "Nobody knows."
            return Observation(
                text=f"{text} {self.text}",
                refused=refuses if good else not refuses,
                retrieved=None,
                latency_seconds=0.2 + number / 40,
            )

        return evaluate(cases, answer, label=label)

    def ask(self, release_id: str, report_hash: str, hours: float = 1) -> Any:
        run = f"manual__{self.text}"
        with psycopg.connect(self.database.url("llmops_worker")) as connection:
            row = connection.execute(
                "INSERT INTO approval_requests (release_id, report_hash, assistant, environment, deadline, dag_id, "
                "run_id, task_id) VALUES (%s, %s, %s, 'dev', now() + %s, 'release_assistant', %s, 'ask_reviewer') "
                "RETURNING nonce, opened_at",
                (
                    release_id,
                    report_hash,
                    "guide",
                    timedelta(hours=hours),
                    f"{run} {release_id[:6]}{report_hash[:6]}",
                ),
            ).fetchone()
        assert row is not None
        return row

    def answer(
        self, release_id: str, report_hash: str, decision: str = "approved", *, signed_by: Any = None
    ) -> Any:
        """Record what the notary records of an answer; another key makes a record that proves nothing."""
        nonce, opened_at = self.ask(release_id, report_hash)
        now = datetime.now(UTC)
        statement = Statement(
            nonce=nonce,
            assistant="guide",
            environment="dev",
            release_id=release_id,
            report_hash=report_hash,
            body_hash=None,
            decision=decision,
            approver=f"reviewer {self.text}",
            authors=("author", self.text),
            trigger="manual",
            reason=f"decided {self.text}",
            channel="airflow",
            opened_at=opened_at,
            answered_at=now,
            expires_at=now + timedelta(hours=1),
            signed_at=now,
        )
        row = {
            **statement.model_dump(),
            "statement": statement.text(),
            "signature": sign_statement(statement, signed_by or self.key),
        }
        with psycopg.connect(self.database.url("llmops_notary")) as connection:
            connection.execute(
                "INSERT INTO approvals (nonce, release_id, report_hash, decision, approver, reason, channel, "
                "environment, answered_at, expires_at, statement, signature) VALUES (%(nonce)s, %(release_id)s, "
                "%(report_hash)s, %(decision)s, %(approver)s, %(reason)s, %(channel)s, %(environment)s, "
                "%(answered_at)s, %(expires_at)s, %(statement)s, %(signature)s)",
                {k: v for k, v in row.items() if k != "personal"},
            )
        return nonce

    def enter(self, action: Any, to: str | None, role: str = "llmops_worker", **changes: Any) -> LedgerEntry:
        values = {
            "actor": f"actor {self.text}",
            "reason": f"because {self.text}",
            "authentication": self.text,
        }
        values |= changes
        with psycopg.connect(self.database.url(role)) as connection:
            if action == "stage" and "report_hash" not in values:
                values["report_hash"] = self._pass_of(connection, str(to))
            return append_entry(connection, NewEntry("guide", action, to_release=to, **values))

    def _pass_of(self, connection: psycopg.Connection, release_id: str) -> str:
        """Return the hash of a PASS of a release, stored now: the database stages nothing without one."""
        text = canonical_json({"verdict": "PASS", "release": release_id})
        report_hash = hashlib.sha256(text.encode()).hexdigest()
        connection.execute(
            "INSERT INTO gate_reports (report_hash, release_id, verdict, report, markdown, created_at) "
            "VALUES (%s, %s, 'PASS', %s, '', '2000-01-01') ON CONFLICT DO NOTHING",
            (report_hash, release_id, text),
        )
        return report_hash

    def sign(self, entry: LedgerEntry) -> None:
        head = sign_head("dev", entry, self.key)
        with psycopg.connect(self.database.url("llmops_notary")) as connection:
            connection.execute(
                "INSERT INTO ledger_heads (entry, statement, signature) VALUES (%s, %s, %s)",
                (head.entry, head.statement, head.signature),
            )

    def attempt(self, release_id: str, status: int, person: str | None = None) -> None:
        with psycopg.connect(self.database.url("llmops_worker")) as connection:
            connection.execute(
                "INSERT INTO approval_attempts (dag_id, run_id, task_id, person, chosen, status) "
                "SELECT dag_id, run_id, task_id, %s, %s, %s FROM approval_requests WHERE release_id = %s",
                (person or self.text, f"Approve {self.text}", status, release_id),
            )

    def whole(self) -> tuple[str, str]:
        """Put one release into production, and a second before its approvers; return both ids."""
        first = self.release("a")
        report = self.report(first)
        nonce = self.answer(first, report.report_hash)
        self.enter("stage", first, alias="staging")
        self.enter("approve", first, "llmops_notary", report_hash=report.report_hash)
        moved = self.enter(
            "promote", first, alias="production", report_hash=report.report_hash, approval_nonce=nonce
        )
        self.sign(moved)
        second = self.release("b", dirty=True)
        other = self.report(second, first)
        self.ask(second, other.report_hash)
        self.attempt(second, 403)
        self.enter("stage", second, alias="staging", from_release=first)
        self.enter("refuse", second, "llmops_notary")
        return first, second


def _known(slice_name: str) -> dict[str, Any]:
    if slice_name == "unanswerable":
        return {}
    return {"expected_documents": ("guide:one",), "facts": ("It works.",)}


@pytest.fixture
def story(database: FreshDatabase, key: SigningKey) -> Story:
    return Story(database, key)


@pytest.fixture
def hostile(database: FreshDatabase, key: SigningKey) -> Story:
    return Story(database, key, HOSTILE)


@pytest.fixture
def board(environment: Environment) -> Any:
    app = create_board()
    app.dependency_overrides[board_environment] = lambda: environment
    app.dependency_overrides[may_read] = lambda: None
    return app


@pytest.fixture
def client(board: Any) -> TestClient:
    return TestClient(board)


@pytest.fixture
def page(client: TestClient) -> Callable[..., str]:
    """Return the text of a page that is there."""

    def get(path: str) -> str:
        response = client.get(path)
        assert response.status_code == 200, response.text
        return response.text

    return get


def as_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
