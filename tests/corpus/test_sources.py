"""Folders and Git repositories as sources, and what they must not reach."""

from __future__ import annotations

import inspect
import os
from datetime import timedelta
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from corpus.conftest import Repository, day
from llmops.corpus import DirectorySource, GitSource
from llmops.corpus._files import SourceSettings, matches
from llmops.corpus._sources import AnySource
from llmops.errors import ConfigurationError, MissingInput, ServiceUnavailable


def listed(source: DirectorySource | GitSource, number: int = 9) -> dict[str, str | None]:
    """Return each path with its text, or its problem."""
    return {f.path: f.problem or f.read().decode() for f in source.discover(day(number))}


def directory(
    folder: Path, include: tuple[str, ...] = ("**/*",), exclude: tuple[str, ...] = ()
) -> DirectorySource:
    return DirectorySource(
        kind="directory", name="s", path=str(folder), include=list(include), exclude=list(exclude)
    )


def git(repository: Repository | str, branch: str = "main") -> GitSource:
    where = repository if isinstance(repository, str) else str(repository.folder)
    return GitSource(kind="git", name="s", repository=where, branch=branch)


@pytest.mark.parametrize(
    ("glob", "yes", "no"),
    [
        ("**/*", ["a.md", "x/y/a.md"], []),
        ("*.md", ["a.md"], ["x/a.md", "a.mdx"]),
        ("**/*.md", ["a.md", "x/y/a.md"], ["a.txt"]),
        ("x/**", ["x/a", "x/y/b"], ["a", "xx/a"]),
        ("x/*/a.?d", ["x/y/a.md"], ["x/a.md", "x/y/z/a.md"]),
        ("[a].md", ["[a].md"], ["a.md"]),
    ],
)
def test_globs_stay_in_one_folder_unless_they_are_double(glob: str, yes: list[str], no: list[str]) -> None:
    assert all(matches(path, [glob], []) for path in yes)
    assert not any(matches(path, [glob], []) for path in no)
    assert not any(matches(path, ["**/*"], [glob]) for path in yes)


def test_a_folder_is_read_recursively_in_order_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b.md", "a/z.md", "a/b/c.txt", ".git/config", "a/.hidden", "skip/x.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert list(listed(directory(tmp_path, exclude=("skip/**",)))) == ["b.md", "a/z.md", "a/b/c.txt"]
    assert list(listed(directory(tmp_path, include=("**/*.txt",)))) == ["a/b/c.txt"]


def test_a_link_that_leaves_the_folder_is_refused_and_one_within_is_read(tmp_path: Path) -> None:
    folder, outside = tmp_path / "docs", tmp_path / "secret"
    folder.mkdir()
    outside.mkdir()
    (outside / "key.md").write_text("secret")
    (folder / "real.md").write_text("real")
    (folder / "inside.md").symlink_to("real.md")
    (folder / "leak.md").symlink_to(outside / "key.md")
    (folder / "folder").symlink_to(outside)
    (folder / "broken.md").symlink_to("nothing")
    os.mkfifo(folder / "pipe.md")
    found = listed(directory(folder))
    assert found["inside.md"] == "real"
    assert "leaves the folder" in str(found["leak.md"])
    assert "leaves the folder" in str(found["folder"])
    assert "link to nothing" in str(found["broken.md"])
    assert "not a regular file" in str(found["pipe.md"])
    assert "secret" not in found.values()


def test_a_folder_that_is_missing_or_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="does not exist: correct `path`"):
        listed(directory(tmp_path / "none"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigurationError, match="is not a folder"):
        listed(directory(tmp_path / "file"))


def test_a_name_that_is_not_utf8_does_not_stop_the_rest(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.md")).write_text("x")
    (tmp_path / "ok.md").write_text("fine")
    found = listed(directory(tmp_path))
    assert found["ok.md"] == "fine"
    assert found["caf\\udce9.md"] == "its name is not valid UTF-8: rename it"


@pytest.mark.parametrize("remote", [False, True])
def test_git_gives_the_branch_as_of_a_date_and_when_each_file_changed(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: bool
) -> None:
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path / "home"))
    source = git(f"file://{repository.folder}" if remote else repository)
    assert sorted(listed(source, 2)) == ["gone.md", "keep.md"]
    assert sorted(listed(source, 3)) == ["gone.md", "keep.md", "new.md"]
    snapshot = source.discover(day(4))
    assert snapshot.date == day(3, 10)
    assert {f.path: f.source_date for f in snapshot} == {"keep.md": day(2, 10), "new.md": day(2, 10)}
    assert source.discover(day(2, 10)).date == day(2, 10)
    assert source.discover(day(2, 10) - timedelta(seconds=1)).date == day(1, 10)


def test_git_sees_a_commit_that_came_later(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path / "home"))
    source = git(f"file://{repository.folder}")
    assert "late.md" not in listed(source)
    repository.commit(day(5), late_md="late")
    assert listed(source)["late.md"] == "late"


def test_git_follows_first_parents_only(repository: Repository) -> None:
    repository.git("checkout", "-b", "side")
    repository.commit(day(4), side_md="side")
    repository.git("checkout", "main")
    repository.git("merge", "--no-ff", "--message", "merge", "side", when=day(6))
    assert "side.md" not in listed(git(repository), 5)
    snapshot = git(repository).discover(day(7))
    assert {f.path: f.source_date for f in snapshot}["side.md"] == day(6)


def test_git_never_follows_links_and_leaves_the_working_tree_alone(repository: Repository) -> None:
    (repository.folder / "link.md").symlink_to("/etc/passwd")
    (repository.folder / "ünï.md").write_text("unicode")
    repository.git("add", "--all")
    repository.git("commit", "--message", "link", when=day(4))
    (repository.folder / "uncommitted.md").write_text("draft")
    found = listed(git(repository))
    assert "links in a repository are not followed" in str(found["link.md"])
    assert found["ünï.md"] == "unicode"
    assert "uncommitted.md" not in found


@pytest.mark.parametrize(
    "values",
    [
        {"repository": "--upload-pack=touch /tmp/x"},
        {"repository": "ext::sh -c touch% /tmp/x"},
        {"repository": "gopher://x/y"},
        {"repository": ""},
        {"repository": ".", "branch": "--output=x"},
        {"repository": ".", "branch": "a..b"},
        {"repository": ".", "branch": "main:evil"},
    ],
)
def test_git_refuses_what_looks_like_an_option_or_a_helper(values: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        GitSource.model_validate({"kind": "git", "name": "s", **values})


def test_git_says_what_is_missing(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path / "home"))
    with pytest.raises(MissingInput, match="there is no repository at"):
        listed(git(str(tmp_path / "none")))
    with pytest.raises(MissingInput, match="has no branch 'dev'"):
        listed(git(repository, "dev"))
    with pytest.raises(MissingInput, match="has no branch 'dev'"):
        listed(git(f"file://{repository.folder}", "dev"))
    with pytest.raises(MissingInput, match="no commit on or before"):
        listed(git(repository), 1)
    with pytest.raises(ServiceUnavailable, match=r"cannot fetch 'https://127\.0\.0\.1:1/x'") as caught:
        listed(git("https://user:hunter2@127.0.0.1:1/x"))
    assert "hunter2" not in str(caught.value)


def test_git_pins_a_commit_for_readers_that_must_all_see_the_same(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path / "home"))
    for source in (git(repository), git(f"file://{repository.folder}")):
        pin = source.pinned(day(9))
        repository.commit(day(4), late_md="late")
        snapshot = source.discover(day(9), pin=pin)
        assert snapshot.date == day(3, 10)
        assert "late.md" not in [f.path for f in snapshot]
        assert all(f.revision for f in source.discover(day(9), pin=pin))
        repository.git("reset", "--hard", "HEAD~1")
        for wrong in ("0" * 40, "HEAD", "--output=x"):
            with pytest.raises(MissingInput, match="run this again from the start"):
                source.discover(day(9), pin=wrong)


def test_a_pinned_commit_that_is_held_already_needs_no_network(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path / "home"))
    source = git(f"file://{repository.folder}")
    pin = source.pinned(day(9))
    repository.folder.rename(tmp_path / "unreachable")
    assert "keep.md" in [f.path for f in source.discover(day(9), pin=pin)]
    with pytest.raises(ServiceUnavailable):
        source.discover(day(9))


def test_dated_folders_replay_history(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("2024-01-01/a.md", "2024-01-03/a.md", "2024-01-03/x/b.md", "notes/n.md", ".git/x", "top.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "2024-01-09").symlink_to(tmp_path / "notes")
    source = DirectorySource(kind="directory", name="s", path=str(tmp_path), layout="dated")
    assert listed(source, 2) == {"a.md": "2024-01-01/a.md"}
    assert "['notes']" in caplog.text
    assert listed(source, 9) == {"a.md": "2024-01-03/a.md", "x/b.md": "2024-01-03/x/b.md"}
    snapshot = source.discover(day(3, 1))
    assert (snapshot.date, snapshot.dated) == (day(3), True)
    with pytest.raises(MissingInput, match="no folder of a date before"):
        source.discover(day(1))
    assert source.discover(day(9), pin="2024-01-01").date == day(1)
    assert source.pinned(day(2)) == "2024-01-01"
    assert directory(tmp_path).pinned(day(2)) is None


def test_a_dated_folder_counts_once_its_marker_is_there(tmp_path: Path) -> None:
    for name in ("2024-01-01/a.md", "2024-01-01/done.txt", "2024-01-03/a.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    values = {"kind": "directory", "name": "s", "path": str(tmp_path), "complete_marker": "done.txt"}
    source = DirectorySource.model_validate({**values, "layout": "dated"})
    assert listed(source) == {"a.md": "2024-01-01/a.md"}
    (tmp_path / "2024-01-03/done.txt").touch()
    assert listed(source) == {"a.md": "2024-01-03/a.md"}
    with pytest.raises(ValidationError, match="layout: dated"):
        DirectorySource.model_validate(values)


@pytest.mark.parametrize("kind", get_args(AnySource), ids=lambda kind: kind.__name__)
def test_every_kind_is_read_in_the_same_way(kind: type[SourceSettings]) -> None:
    found = inspect.signature(kind.discover).parameters  # type: ignore[attr-defined]
    assert list(found) == ["self", "as_of", "pin", "sandbox"]
    assert all(found[name].default is None for name in ("pin", "sandbox"))
    assert list(inspect.signature(kind.pinned).parameters) == ["self", "as_of"]
    assert kind.divisible is (kind.__name__ not in ("WebsiteSource", "PackagesSource"))
