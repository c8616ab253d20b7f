"""Whether the code that answers was committed."""

import subprocess
from pathlib import Path

import pytest

from llmops.release import _code
from llmops.release._code import is_dirty


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one committed file."""
    folder = tmp_path / "checkout"
    (folder / "include").mkdir(parents=True)
    (folder / "include" / "a.py").write_text("a = 1\n")
    monkeypatch.setenv("LLMOPS_INCLUDE", str(folder / "include"))
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "a"]):
        subprocess.run(["git", "-C", str(folder), *command], check=True)
    return folder


def test_a_checkout_is_dirty_from_the_first_change_of_its_code(checkout: Path) -> None:
    (checkout / "notes.txt").write_text("not code")
    assert not is_dirty()
    (checkout / "include" / "b.py").write_text("b = 1\n")
    assert is_dirty()


def test_code_without_a_checkout_is_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOPS_INCLUDE", str(tmp_path / "include"))
    assert not is_dirty()


def test_a_checkout_without_git_counts_as_dirty(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    assert is_dirty()


def test_a_checkout_counts_as_dirty_when_git_takes_too_long(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    git = checkout / "git"
    git.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    git.chmod(0o755)
    monkeypatch.setenv("PATH", str(checkout))
    monkeypatch.setattr(_code, "_GIT_SECONDS", 0.3)
    assert is_dirty()
    assert "counts as dirty" in caplog.text
