from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from llmops.settings import include_root
from llmops.stack import Stack
from llmops.stack.doctor import Finding, Verdict, diagnose


def _findings(stack: Stack) -> dict[str, Finding]:
    return {finding.check: finding for finding in diagnose(stack)}


def _finding(stack: Stack, check: str) -> Finding:
    return next(finding for finding in diagnose(stack) if finding.check == check)


def test_a_healthy_machine_has_no_problem_but_a_taken_port_is_told(scratch: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        found = _findings(Stack(scratch / "doctor", ports={"mlflow": taken}))
    ill = {
        name: f.message for name, f in found.items() if f.verdict is Verdict.PROBLEM and name != "packages"
    }
    assert ill == {}
    assert found["ports"].verdict is Verdict.WARNING
    assert f"{taken} (mlflow, LLMOPS_MLFLOW_PORT)" in found["ports"].message
    assert found["postgres"].message.startswith("Postgres 18")


def test_a_broken_configuration_file_is_named(
    scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(include_root() / "environments", tmp_path / "include" / "environments")
    (tmp_path / "include" / "environments" / "dev.yaml").write_text("catalog: [dev\n")
    monkeypatch.setenv("LLMOPS_INCLUDE", str(tmp_path / "include"))
    found = _finding(Stack(scratch / "doctor"), "configuration")
    assert found.verdict is Verdict.PROBLEM
    assert "dev.yaml is not valid YAML" in found.message


def test_an_old_package_is_named(scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "requirements.txt").write_text("click==0.1\nnumpy==0.1 ; python_version < '3'\n")
    monkeypatch.setenv("LLMOPS_INCLUDE", str(tmp_path / "include"))
    found = _finding(Stack(scratch / "doctor"), "packages")
    assert found.verdict is Verdict.PROBLEM
    assert "click is" in found.message
    assert "numpy" not in found.message
