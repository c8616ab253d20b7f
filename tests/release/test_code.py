"""The digest of the code that answers, whether it was committed, and by whom."""

import subprocess
from pathlib import Path

import pytest

from llmops.release import _code
from llmops.release._code import code_digest, commit, committers, is_dirty
from llmops.settings import inherited

IDENTITY = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one committed file."""
    folder = tmp_path / "checkout"
    (folder / "include").mkdir(parents=True)
    (folder / "include" / "a.py").write_text("a = 1\n")
    monkeypatch.setenv("LLMOPS_INCLUDE", str(folder / "include"))
    for command in (["init", "-q"], ["add", "."], [*IDENTITY, "commit", "-q", "-m", "a"]):
        _git(folder, *command)
    return folder


def _git(checkout: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(checkout), *arguments], check=True)


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
    assert "Git cannot tell" in caplog.text


def test_a_checkout_whose_history_is_broken_counts_as_dirty(checkout: Path) -> None:
    (checkout / ".git" / "HEAD").unlink()
    assert is_dirty()


def _commit(checkout: Path, path: str, author: str, committer: str = "a", message: str = "b") -> str:
    """Change one file, commit it and return the commit."""
    file = checkout / path
    file.parent.mkdir(exist_ok=True)
    with file.open("a") as stream:
        stream.write("b = 1\n")
    variables = {
        f"GIT_{role}_{field}": name if field == "NAME" else f"{name}@example.org"
        for role, name in (("AUTHOR", author), ("COMMITTER", committer))
        for field in ("NAME", "EMAIL")
    }
    git = ["git", "-C", str(checkout), "-c", "commit.gpgsign=false"]
    for command in (["add", "."], ["commit", "-q", "-m", message]):
        subprocess.run([*git, *command], check=True, env={**inherited(), **variables})
    return _head(checkout)


def _head(checkout: Path) -> str:
    done = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("path", ["include/b.yaml", "dags/a.py", "plugins/a.py", "requirements.txt"])
def test_the_commit_is_the_last_one_that_changed_what_answers(checkout: Path, path: str) -> None:
    first = commit()
    assert first == _head(checkout)
    _commit(checkout, "docs/a.md", "writer")
    assert commit() == first
    assert commit() != _commit(checkout, "tests/test_a.py", "tester")
    changed = _commit(checkout, path, "bert")
    assert commit() == changed


def test_authors_committers_and_co_authors_since_a_commit_count_once_and_in_small_letters(
    checkout: Path,
) -> None:
    since = _commit(checkout, "include/a.py", "earlier", "earlier")
    _commit(checkout, "include/a.py", "Bert", "merger")
    trailers = "b\n\nCo-authored-by: Carl <Carl@Example.org>\nCo-authored-by: Dora <dora@example.org>\n"
    _commit(checkout, "dags/a.py", "bert", message=trailers)
    _commit(checkout, "docs/a.md", "writer", "writer", message="c\n\nCo-authored-by: W <w@example.org>")
    assert committers(since) == (
        "a@example.org", "bert@example.org", "carl@example.org", "dora@example.org", "merger@example.org",
    )  # fmt: skip


def test_nobody_changed_anything_since_the_newest_commit(checkout: Path) -> None:
    assert committers(_commit(checkout, "include/a.py", "bert")) == ()


def test_going_back_to_older_code_is_a_change_by_all_who_wrote_what_it_takes_away(checkout: Path) -> None:
    older = _commit(checkout, "include/a.py", "earlier", "earlier")
    _commit(checkout, "include/a.py", "bert", "merger")
    since = _commit(checkout, "dags/a.py", "carl", "merger")
    _git(checkout, "checkout", "-q", older)
    assert committers(since) == ("bert@example.org", "carl@example.org", "merger@example.org")


def test_code_of_another_branch_is_a_change_by_all_who_wrote_on_one_of_the_two(checkout: Path) -> None:
    fork = _commit(checkout, "include/a.py", "earlier", "earlier")
    since = _commit(checkout, "include/b.py", "bert", "bert")
    _git(checkout, "checkout", "-q", fork)
    _commit(checkout, "include/c.py", "carl", "carl")
    assert committers(since) == ("bert@example.org", "carl@example.org")


def test_a_merge_that_drops_what_one_side_wrote_hides_neither_that_side_nor_who_merged(
    checkout: Path,
) -> None:
    fork = _commit(checkout, "include/a.py", "earlier", "earlier")
    since = _commit(checkout, "include/b.py", "bert", "bert")
    dropped = _commit(checkout, "include/b.py", "carl", "carl")
    _git(checkout, "checkout", "-q", fork)
    _commit(checkout, "include/c.py", "dora", "dora")
    _git(checkout, *IDENTITY, "merge", "-q", "-s", "ours", "-m", "m", dropped)
    assert committers(since) == ("a@example.org", "carl@example.org", "dora@example.org")


def test_a_clone_that_does_not_have_the_commit_can_tell_of_nobody(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    since = _commit(checkout, "include/a.py", "bert")
    _commit(checkout, "include/a.py", "carl")
    shallow = tmp_path / "shallow"
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{checkout}", str(shallow)], check=True)
    monkeypatch.setenv("LLMOPS_INCLUDE", str(shallow / "include"))
    assert committers(since) is None


def test_before_the_first_release_only_the_last_commit_of_what_answers_counts(checkout: Path) -> None:
    _commit(checkout, "include/a.py", "earlier", "earlier")
    _commit(checkout, "plugins/a.py", "bert", "carl")
    _commit(checkout, "docs/a.md", "writer", "writer")
    assert committers(None) == ("bert@example.org", "carl@example.org")


def test_nobody_can_tell_who_committed_since_a_commit_that_is_not_there(
    checkout: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert committers("0" * 40) is None
    assert "Git cannot tell" in caplog.text


def test_nobody_can_tell_in_a_checkout_without_git_whatever_the_environment_says(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPS_COMMIT", "1" * 40)
    monkeypatch.setenv("LLMOPS_COMMITTERS", "nobody@example.org")
    monkeypatch.setenv("PATH", str(checkout))
    assert (commit(), committers(None)) == (None, None)


def test_without_a_checkout_the_environment_says_commit_and_committers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPS_INCLUDE", str(tmp_path / "include"))
    for name in ("LLMOPS_COMMIT", "LLMOPS_COMMITTERS"):
        monkeypatch.delenv(name, raising=False)
    assert (commit(), committers(None), committers("1" * 40)) == (None, None, None)
    monkeypatch.setenv("LLMOPS_COMMIT", "2" * 40)
    monkeypatch.setenv("LLMOPS_COMMITTERS", " Bert@example.org,anna@example.org,, bert@example.org ")
    assert commit() == "2" * 40
    assert committers("1" * 40) == ("anna@example.org", "bert@example.org")
    for empty in ("", " , "):
        monkeypatch.setenv("LLMOPS_COMMITTERS", empty)
        assert committers(None) is None


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
        _code._digest.cache_clear()
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
        _code._digest.cache_clear()
