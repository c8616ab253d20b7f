"""What the repository's own texts say is so."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def _files() -> list[Path]:
    """Return the files that are, or would be, under version control."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a Git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_a_place_on_one_machine() -> None:
    found = []
    # What attacks name, /etc, is on every machine.
    home = re.compile(rb"/(?:root|home|Users)/(?!airflow|astro|somebody)[a-z]+/|file:///(?!etc)")
    for path in _files():
        if path.suffix in {".png", ".svg", ".ico"} or path == Path(__file__):
            continue
        found += [f"{path.relative_to(ROOT)}: {m[0].decode()}" for m in home.finditer(path.read_bytes())]
    assert found == []


def test_no_secret_and_no_environment_is_under_version_control() -> None:
    names = {path.name for path in _files()}
    assert ".env.example" in names
    assert ".env" not in names
    assert not {"secrets.json", "passwords.json", ".llmops-stamp"} & names


def test_the_licence_is_apache_2_0_word_for_word() -> None:
    text = (ROOT / "LICENSE").read_bytes()
    assert (
        hashlib.sha256(text).hexdigest() == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
    )


def test_the_reference_architecture_names_files_that_exist() -> None:
    text = (ROOT / "docs" / "reference-architecture.md").read_text()
    paths = [p for p in re.findall(r"`([^`\s]+)`", text) if "/" in p and p.split("/")[0] in os.listdir(ROOT)]
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_decisions_are_numbered_and_have_the_same_parts() -> None:
    records = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert [int(record.name[:4]) for record in records] == list(range(1, len(records) + 1))
    for number, record in enumerate(records, 1):
        text = record.read_text()
        assert text.startswith(f"# {number}. "), record.name
        for part in ("**Status:**", "**Context.**", "**Decision.**", "**Consequences.**"):
            assert part in text, f"{record.name} has no {part}"


def test_ci_runs_the_same_command_as_a_person() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yaml").read_text())
    steps = workflow["jobs"]["check"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert re.search(r"(?m)^make test$", (ROOT / ".ci" / "run").read_text())


def test_make_lists_every_target_with_its_help() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    targets = re.findall(r"(?m)^\.PHONY: (\S+)", (ROOT / "Makefile").read_text())
    assert len(targets) > 10
    for target in targets:
        assert re.search(rf"(?m)^  make {target} +\S", done.stdout), target


def test_make_demo_passes_on_what_it_was_given(tmp_path: Path) -> None:
    """Also a folder whose name has spaces and quotes."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "bootstrap.py").write_text("")
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    command = tmp_path / ".venv" / "bin" / "llmops"
    command.parent.mkdir(parents=True)
    command.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    command.chmod(0o755)

    def demo(*variables: str) -> list[str]:
        run = ["make", "--no-print-directory", "demo", *variables]
        return subprocess.run(
            run, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.splitlines()

    assert demo() == ["demo"]
    assert demo("DEMO_EXIT=0") == ["demo"]
    assert demo("DEMO_EXIT=1", "DOCS=my 'own' docs") == ["demo", "--docs", "my 'own' docs", "--exit"]
    assert demo("LLM=http://127.0.0.1:1/v1", "MODEL=m", "LLM_KEY_FILE=k") == [
        *("demo", "--llm", "http://127.0.0.1:1/v1"),
        *("--model", "m", "--llm-key-file", "k"),
    ]
