"""A small assistant that is really assembled, evaluated and decided, against a fake language model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from llmops.assistant import load_assistant
from llmops.cli.gate import command
from llmops.database import connect
from llmops.llm import FakeLanguageModel
from llmops.release import ApprovalRequest, StoredReport, assemble, decide_release, evaluate_release
from llmops.release._ledger import NewEntry, append_entry
from llmops.settings import Environment
from support.services import FreshDatabase

PRICES = {
    "currency": "EUR",
    "as_of": "2026-05-01",
    "models": {"small": {"input_per_million": 100, "output_per_million": 300}},
}
QUESTIONS = 40


def reply(messages: list[dict[str, str]]) -> str:
    """Answer every question with its own number; a judge's question with a score."""
    text = messages[-1]["content"]
    if "<answer>" in text:
        return json.dumps({"score": 4, "reason": "It names the number."})
    return f"The answer is number {text.split('number ')[-1].rstrip('?')} of the canary list."


@pytest.fixture
def fake() -> Iterator[FakeLanguageModel]:
    with FakeLanguageModel(respond=reply) as model:
        yield model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of configuration with a price table; the folder of local state is empty."""
    (tmp_path / "include" / "assistants").mkdir(parents=True)
    (tmp_path / "include" / "prices.yaml").write_text(yaml.safe_dump(PRICES))
    monkeypatch.setenv("LLMOPS_INCLUDE", str(tmp_path / "include"))
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path / "home"))
    cases = [
        {
            "id": f"q{n:02}",
            "question": f"What is number {n}?",
            "expected_documents": ["guide:one"],
            "facts": [f"The answer is number {n}."],
            "slice": "concept",
        }
        for n in range(QUESTIONS)
    ]
    text = "".join(json.dumps(case) + "\n" for case in cases)
    (tmp_path / "include" / "assistants" / "guide.cases.jsonl").write_text(text)
    return tmp_path / "include"


@pytest.fixture
def configure(folder: Path, fake: FakeLanguageModel) -> Callable[..., None]:
    """Write the assistant's file."""

    def write(*rules: dict[str, Any], prompt: str = "Answer briefly.", **gate: Any) -> None:
        values = {
            "description": "Counts.",
            "prompt": prompt + "\n\nQuestion: {question}\n",
            "retrieval": {"kind": "none"},
            "generator": {"kind": "chat", "url": fake.url, "model": "small"},
            "evaluation_cases": "guide.cases.jsonl",
            "gate": {
                "resamples": 1_000,
                "rules": list(rules) or [{"metric": "quality", "minimum": 0.5}],
                **gate,
            },
            "approval": {"approvers": ["reviewer"]},
        }
        (folder / "assistants" / "guide.yaml").write_text(yaml.safe_dump(values))

    write()
    return write


@pytest.fixture
def candidate(environment: Environment, configure: Callable[..., None]) -> Callable[[], str]:
    """Assemble a release of the assistant as it is configured now."""

    def make() -> str:
        return assemble(environment, load_assistant("guide", environment), None, ["author"]).release_id

    return make


@pytest.fixture
def decided(environment: Environment, candidate: Callable[[], str]) -> Callable[[], StoredReport]:
    """Assemble, evaluate and decide."""

    def make() -> StoredReport:
        return decide_release(environment, evaluate_release(environment, candidate()))

    return make


@pytest.fixture
def promoted(
    url: str,
    decided: Callable[[], StoredReport],
    ask: Callable[..., ApprovalRequest],
    record: Callable[..., None],
) -> StoredReport:
    """A release whose report is a PASS, in production as far as the ledger knows."""
    report = decided()
    request = ask(report.release_id, report.report_hash)
    record(request)
    entry = NewEntry(
        assistant="guide",
        alias="production",
        action="promote",
        to_release=report.release_id,
        actor="author",
        reason="test",
        report_hash=report.report_hash,
        approval_nonce=request.nonce,
    )
    with connect(url) as connection:
        append_entry(connection, entry)
    return report


@pytest.fixture
def gate(
    environment: Environment, folder: Path, database: FreshDatabase, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Run ``llmops gate`` with nothing but Postgres: every other address leads nowhere."""
    (folder / "environments").mkdir()
    values = environment.model_dump(mode="json", exclude={"name"})
    nowhere = ("mlflow_url", "airflow_url", "serving_url", "notary_url")
    values |= dict.fromkeys(nowhere, "http://127.0.0.1:9") | {"storage_root": "/nowhere"}
    values["database_url"] = "${LLMOPS_DATABASE_URL}"
    (folder / "environments" / "dev.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setenv("LLMOPS_DATABASE_URL", database.url("llmops_worker"))
    monkeypatch.setenv("LLMOPS_ENV", "dev")
    return lambda *arguments, **options: CliRunner().invoke(command, list(arguments), **options)


def content_of(report: StoredReport) -> dict[str, Any]:
    """Return the report's content."""
    found: dict[str, Any] = json.loads(report.report)
    return found
