"""The digest of the code that answers, and whether it was committed."""

import subprocess
from pathlib import Path

import pytest

from llmops.release import _code
from llmops.release._code import code_digest, is_dirty


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


def test_a_checkout_whose_history_is_broken_counts_as_dirty(checkout: Path) -> None:
    (checkout / ".git" / "HEAD").unlink()
    assert is_dirty()


def test_the_digest_depends_on_names_and_contents_of_the_code_and_on_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "include" / "llmops"
    package.mkdir(parents=True)
    module, lock = package / "__init__.py", tmp_path / "requirements.txt"
    module.write_text("a = 1\n")
    monkeypatch.setattr("llmops.__file__", str(module))
    monkeypatch.setenv("LLMOPS_INCLUDE", str(tmp_path / "include"))

    def digest() -> str:
        code_digest.cache_clear()
        return code_digest()

    try:
        seen = [digest()]
        (package / "notes.txt").write_text("no code")
        assert digest() == seen[0]
        module.write_text("a = 2\n")
        seen.append(digest())
        (package / "b.py").write_text("")
        seen.append(digest())
        (package / "b.py").rename(package / "c.py")
        seen.append(digest())
        lock.write_text("mlflow==1\n")
        seen.append(digest())
        assert len(set(seen)) == len(seen)
    finally:
        code_digest.cache_clear()
