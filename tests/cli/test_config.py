"""``llmops config``, and what the command line makes of errors."""

import os
import shutil
import sys
from pathlib import Path

import psycopg
import pytest
import yaml
from click.testing import CliRunner, Result

from llmops import cli
from llmops.cli.config import command
from llmops.settings import include_root

PASSWORD = "geheim-7"
ASSISTANT = """\
description: A guide.
sources:
  - {kind: directory, name: docs, path: docs}
prompt: "{context}\\n\\n{question}"
gate: {rules: [{metric: recall_at_10, minimum: 0.5}]}
approval: {approvers: [someone]}
"""


@pytest.fixture
def assistants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of assistants of an include folder that has the real environments."""
    for name in [name for name in os.environ if name.startswith("LLMOPS_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "include"
    shutil.copytree(include_root() / "environments", folder / "environments")
    (folder / "assistants").mkdir()
    monkeypatch.setenv("LLMOPS_INCLUDE", str(folder))
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path / "home"))
    return folder / "assistants"


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def test_the_assistants_of_this_repository_are_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path))
    result = _run("check")
    assert (result.exit_code, result.output) == (0, "library_guide: ok (environment dev)\n")


def test_every_assistant_has_a_line_and_a_wrong_one_hides_no_other(assistants: Path) -> None:
    (assistants / "a_wrong.yaml").write_text(ASSISTANT + "promt: x\n")
    (assistants / "b_right.yaml").write_text(ASSISTANT)
    (assistants / "c_broken.yaml").write_text("a: [1\n")
    (assistants / "D.yaml").write_text(ASSISTANT)
    result = _run("check")
    assert result.exit_code == 1
    lines = dict(line.split(": ", 1) for line in result.output.splitlines())
    assert list(lines) == ["D", "a_wrong", "b_right", "c_broken"]
    assert lines["b_right"] == "ok (environment dev)"
    assert lines["D"].startswith("error: assistant name 'D' is not valid")
    assert "a_wrong.yaml: promt: Extra inputs are not permitted" in lines["a_wrong"]
    assert "c_broken.yaml is not valid YAML" in lines["c_broken"]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ('"{contxt} {context} {question}"', "unknown placeholders ['contxt']"),
        ('"{context}"', "no placeholder {question}"),
        ('"{question}"', "no placeholder {context}"),
    ],
)
def test_a_prompt_with_wrong_placeholders_is_found(assistants: Path, prompt: str, message: str) -> None:
    (assistants / "guide.yaml").write_text(ASSISTANT.replace('"{context}\\n\\n{question}"', prompt))
    result = _run("check")
    assert result.exit_code == 1
    assert result.output.startswith("guide: error: the prompt has ")
    assert message in result.output


def test_evaluation_cases_are_opened(assistants: Path) -> None:
    (assistants / "guide.yaml").write_text(ASSISTANT + "evaluation_cases: guide.cases.jsonl\n")
    missing = _run("check")
    assert missing.exit_code == 1
    assert missing.output.startswith("guide: error: assistant 'guide': evaluation_cases names")
    cases = assistants / "guide.cases.jsonl"
    cases.write_text('{"id": "a", "question": "Why?", "colour": "red"}\n')
    wrong = _run("check")
    assert wrong.exit_code == 1
    assert f"guide: error: {cases}:1: " in wrong.output
    assert "colour: Extra inputs" in wrong.output


def test_show_prints_what_is_in_force_without_credentials(
    assistants: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (assistants / "guide.yaml").write_text(ASSISTANT)
    monkeypatch.setenv("LLMOPS_DATABASE_URL", f"postgresql://worker:{PASSWORD}@db/llmops")
    monkeypatch.setenv("LLMOPS_MLFLOW_URL", f"http://user:{PASSWORD}@mlflow.example:5000")
    result = _run("show", "--assistant", "guide")
    assert result.exit_code == 0
    assert PASSWORD not in result.output
    shown = yaml.safe_load(result.output)
    assert shown["environment"]["mlflow_url"] == "http://***@mlflow.example:5000"
    assert shown["environment"]["airflow_url"] == "http://127.0.0.1:8080"
    assert shown["assistant"]["sources"][0]["path"] == "docs"
    assert shown["assistant"]["prompt"] == "{context}\n\n{question}"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(13, "Permission denied", "a.txt"), "error: [Errno 13] Permission denied: 'a.txt'"),
        (psycopg.errors.UndefinedTable('relation "a"\nLINE 1'), 'error: relation "a" LINE 1'),
        (psycopg.OperationalError(f"at postgresql://u:{PASSWORD}@h/d"), "error: at postgresql://***@h/d"),
        (psycopg.OperationalError(), "error: OperationalError"),
    ],
)
def test_an_error_of_a_file_or_of_postgres_is_one_line(
    error: Exception,
    line: str,
    assistants: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _failing(monkeypatch, error)
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 1
    assert capsys.readouterr().err == line + "\n"


def test_an_error_of_ours_is_one_line(
    assistants: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["llmops", "config", "show", "--assistant", "nobody"])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 1
    assert capsys.readouterr().err.startswith("error: no assistant 'nobody'")


def test_a_mistake_of_the_program_is_not_hidden(assistants: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _failing(monkeypatch, ZeroDivisionError("a mistake"))
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_verbose_shows_where_an_error_came_from_without_credentials(
    assistants: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _failing(monkeypatch, psycopg.OperationalError(f"at postgresql://u:{PASSWORD}@h/d"))
    with caplog.at_level("INFO", logger="llmops.cli"), pytest.raises(SystemExit):
        cli.main()
    assert "Traceback (most recent call last)" in caplog.text
    assert "in fail" in caplog.text
    assert PASSWORD not in caplog.text


def _failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr("llmops.cli.config.load_environment", fail)
    monkeypatch.setattr(sys, "argv", ["llmops", "config", "check"])
