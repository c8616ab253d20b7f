"""A small environment with real stores: no documents, no models."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from llmops.manifest import Manifest, PromptPin, canonical_json
from llmops.release import (
    ApprovalRequest,
    RunReference,
    StoredReport,
    code_digest,
    open_approval,
    request_of_run,
)
from llmops.release._store import save_manifest, save_report
from llmops.settings import Environment
from support.services import FreshDatabase


@pytest.fixture
def environment(database: FreshDatabase, mlflow_url: str, tmp_path: Path) -> Environment:
    return Environment(
        name="dev",
        catalog=f"test{secrets.token_hex(4)}",
        storage_root=str(tmp_path / "lakehouse"),
        database_url=database.url("llmops_worker"),
        mlflow_url=mlflow_url,
        airflow_url="http://127.0.0.1:9",
        serving_url="http://127.0.0.1:9",
        notary_url="http://127.0.0.1:9",
    )


@pytest.fixture
def url(environment: Environment) -> str:
    return environment.database_url.get_secret_value()


@pytest.fixture
def release(url: str) -> Callable[..., str]:
    """Store a manifest that answers without retrieval; ``prompt`` makes it differ."""

    def make(prompt: str = "a", **changes: Any) -> str:
        values: dict[str, Any] = {
            "assistant": "guide",
            "environment": "dev",
            "code_digest": code_digest(),
            "dirty": False,
            "prompt": PromptPin(uri="prompts:/p/1", text_hash=prompt * 64),
            "generator": {"kind": "chat", "url": "http://127.0.0.1:9/v1", "model": "m"},
            "embedder": None,
            "index": None,
            "retrieval": {"kind": "none"},
            "evaluation_digest": "e",
            "gate_digest": "g",
            "authors": ("author",),
        }
        return save_manifest(url, Manifest(**{**values, **changes}))

    return make


@pytest.fixture
def report(url: str) -> Callable[..., str]:
    """Store a gate report of a release."""

    def make(release_id: str, verdict: str = "PASS", baseline: str | None = None) -> str:
        text = canonical_json({"verdict": verdict, "nonce": secrets.token_hex(8)})
        report_hash = hashlib.sha256(text.encode()).hexdigest()
        save_report(
            url, StoredReport(report_hash, release_id, baseline, verdict, text, f"Verdict: {verdict}")
        )
        return report_hash

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
def record(database: FreshDatabase) -> Callable[..., None]:
    """Write the notary's row for a request, as the notary."""

    def write(request: ApprovalRequest, decision: str = "approved", **changes: Any) -> None:
        row = {
            "nonce": request.nonce,
            "release_id": request.release_id,
            "report_hash": request.report_hash,
            "decision": decision,
            "approver": "reviewer",
            "reason": f"reviewer {decision}",
            "channel": "airflow",
            "environment": "dev",
            "answered_at": datetime.now(UTC),
            "expires_at": datetime.now(UTC) + timedelta(hours=1),
            **changes,
        }
        with psycopg.connect(database.url("llmops_notary")) as connection:
            connection.execute(
                "INSERT INTO approvals (nonce, release_id, report_hash, decision, approver, reason, channel, "
                "environment, answered_at, expires_at) VALUES (%(nonce)s, %(release_id)s, %(report_hash)s, "
                "%(decision)s, %(approver)s, %(reason)s, %(channel)s, %(environment)s, %(answered_at)s, "
                "%(expires_at)s)",
                row,
            )

    return write
