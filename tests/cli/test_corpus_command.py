"""``llmops corpus``: ingest from a terminal, and look at documents, quarantine and histories."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from pydantic import SecretStr

from llmops.cli.corpus import command
from llmops.errors import LlmopsError, MissingInput, QualityGateFailed, SourceFailed
from llmops.settings import Environment
from support.configured import configured
from support.services import FreshDatabase


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, [*arguments, "--assistant", "handbook"], catch_exceptions=False)


@pytest.fixture
def drops(database: FreshDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dated folder that the assistant ``handbook`` reads; it needs no index."""
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path / "home"))
    environment = Environment(
        name="dev",
        catalog="dev",
        storage_root=str(tmp_path / "lake"),
        database_url=SecretStr(database.url("llmops_worker")),
        mlflow_url="http://127.0.0.1:9",
        airflow_url="http://127.0.0.1:9",
        serving_url="http://127.0.0.1:9",
        notary_url="http://127.0.0.1:9",
        notary_keys=tmp_path / "keys",
    )
    configured(environment, tmp_path, monkeypatch)
    folder = tmp_path / "drops"
    for day, files in {
        "2024-05-30": {"leave.md": "# Leave\n\nTwenty days.\n", "photo.png": "x"},
        "2024-05-31": {"leave.md": "# Leave\n\nThirty days.\n", "travel.md": "# Travel\n\nBy train.\n"},
    }.items():
        (folder / day).mkdir(parents=True)
        for name, text in files.items():
            (folder / day / name).write_text(text)
    assistant = {
        "description": "The handbook.",
        "sources": [{"kind": "directory", "name": "hr", "path": str(folder), "layout": "dated"}],
        "prompt": "{question}",
        "generator": {"kind": "chat", "url": "http://127.0.0.1:9/v1", "model": "m"},
        "retrieval": {"kind": "none"},
        "gate": {"rules": [{"metric": "quality", "minimum": 0.1}]},
        "approval": {"approvers": ["reviewer"]},
    }
    file = tmp_path / "include" / "assistants" / "handbook.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(yaml.safe_dump(assistant))
    return folder


def test_a_date_is_its_end_and_a_time_is_itself(drops: Path) -> None:
    assert "1 inserted" in run("ingest", "--as-of", "2024-05-30").output
    assert "nothing" not in run("list").output
    assert run("list").output.startswith("hr:leave.md  ")
    assert "travel.md" not in run("list").output
    output = run("ingest", "--as-of", "2024-05-31T23:00").output
    assert "1 inserted, 1 updated" in output
    lines = run("list", "--source", "hr").output.splitlines()
    assert [line.split()[0] for line in lines] == ["hr:leave.md", "hr:travel.md"]
    assert run("list", "--source", "other").output == ""


def test_days_in_any_order_end_in_the_same_dump(drops: Path) -> None:
    for day in ("2024-05-31", "2024-05-30"):
        run("ingest", "--as-of", day)
    rows = [json.loads(line) for line in run("dump", "--canonical").output.splitlines()]
    assert {row["path"]: row["text"].split()[-2] for row in rows} == {"leave.md": "Thirty", "travel.md": "By"}


def test_the_history_of_a_document_is_a_line_per_event(drops: Path) -> None:
    run("ingest", "--as-of", "2024-05-30")
    run("ingest", "--as-of", "2024-05-31")
    lines = run("history", "hr:leave.md").output.splitlines()
    assert [line.split()[1] for line in lines] == ["created", "changed"]
    assert lines[1].endswith("as of 2024-06-01T00:00:00+00:00")
    assert lines[0].startswith(f"{datetime.now(UTC):%Y-%m-}")
    with pytest.raises(MissingInput, match=r"no document 'nowhere\.md' was ever here"):
        run("history", "nowhere.md")


def test_quarantine_says_why(drops: Path) -> None:
    run("ingest", "--as-of", "2024-05-30")
    (line,) = run("quarantine").output.splitlines()
    assert line.startswith("hr:photo.png  unsupported: ")
    assert run("quarantine", "--source", "other").output == ""


def test_what_goes_wrong_is_one_error_and_nothing_is_merged(drops: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="has no documents yet: run `llmops corpus ingest`"):
        run("list")
    assert "neither a date like" in run("ingest", "--as-of", "yesterday").output
    with pytest.raises(LlmopsError, match="hr"):
        run("ingest", "--as-of", "2024-01-01")
    for number in range(20):
        (drops / "2024-05-31" / f"{number}.md").write_text(f"# {number}\n\nText {number}.\n")
    run("ingest", "--as-of", "2024-05-31")
    (drops / "2024-06-02").mkdir()
    (drops / "2024-06-02" / "leave.md").write_text("# Leave\n\nAll gone.\n")
    before = run("dump", "--canonical").output
    with pytest.raises(QualityGateFailed, match="21 of 22 documents would go"):
        run("ingest", "--as-of", "2024-06-02")
    assert run("dump", "--canonical").output == before


def test_a_source_that_cannot_be_read_is_said_at_the_end_and_the_others_are_merged(
    drops: Path, tmp_path: Path
) -> None:
    file = tmp_path / "include" / "assistants" / "handbook.yaml"
    assistant = yaml.safe_load(file.read_text())
    assistant["sources"].append({"kind": "directory", "name": "lost", "path": str(tmp_path / "nowhere")})
    file.write_text(yaml.safe_dump(assistant))
    with pytest.raises(SourceFailed, match=r"1 of 2 sources.*lost: "):
        run("ingest", "--as-of", "2024-05-31")
    assert len(run("list").output.splitlines()) == 2
