"""What happened to a document, told afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corpus.conftest import Corpus, Repository, day
from llmops.corpus import DirectorySource, GitSource, history, merge_documents
from llmops.corpus import _merging as merging
from llmops.errors import MissingInput, ServiceUnavailable


def folder_source(folder: Path, name: str = "notes", **options: Any) -> DirectorySource:
    return DirectorySource(kind="directory", name=name, path=str(folder), **options)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "a.md").write_text("# A\n\nAlpha is first.\n")
    (folder / "b.md").write_text("# B\n\nBeta is second.\n")
    return folder


def told(corpus: Corpus, uri: str) -> list[tuple[str, str | None, str | None]]:
    return [(e.event, e.as_of and e.as_of[:10], e.other_path) for e in history(corpus.root, uri)]


def test_a_document_has_a_life_from_its_creation_to_its_end(corpus: Corpus, notes: Path) -> None:
    corpus.run([folder_source(notes)], day(1))
    (notes / "a.md").write_text("# A\n\nAlpha was edited.\n")
    corpus.run([folder_source(notes)], day(2))
    (notes / "a.md").unlink()
    corpus.run([folder_source(notes)], day(3))
    (notes / "a.md").write_text("# A\n\nAlpha is back.\n")
    corpus.run([folder_source(notes)], day(4))
    expected = [
        ("created", "2024-01-01", None),
        ("changed", "2024-01-02", None),
        ("deleted", "2024-01-03", None),
        ("created", "2024-01-04", None),
    ]
    assert told(corpus, "notes:a.md") == told(corpus, "a.md") == expected
    events = history(corpus.root, "a.md")
    assert len({e.version for e in events}) == 3
    assert told(corpus, "b.md") == [("created", "2024-01-01", None)]


def test_a_moved_document_is_told_of_under_both_names(corpus: Corpus, notes: Path) -> None:
    corpus.run([folder_source(notes)])
    (notes / "a.md").rename(notes / "c.md")
    corpus.run([folder_source(notes)], day(2))
    assert told(corpus, "a.md")[1:] == [("moved", "2024-01-02", "c.md")]
    assert told(corpus, "c.md") == [("moved", "2024-01-02", "a.md")]
    assert corpus.paths() == ["b.md", "c.md"]


def test_a_document_that_can_no_longer_be_read_is_quarantined_not_deleted(
    corpus: Corpus, notes: Path
) -> None:
    corpus.run([folder_source(notes)])
    (notes / "a.md").write_bytes(b"\x7fELF\x00\x00" * 20)
    corpus.run([folder_source(notes)], day(2))
    assert told(corpus, "a.md")[1:] == [("quarantined", "2024-01-02", None)]


def test_a_run_that_dies_before_it_tells_is_made_up_for_by_the_next_with_its_own_date(
    corpus: Corpus, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*arguments: object) -> None:
        raise ServiceUnavailable("killed")

    staging = corpus.read([folder_source(notes)], day(1))
    with monkeypatch.context() as patch:
        patch.setattr(merging, "record_history", dies)
        with pytest.raises(ServiceUnavailable):
            merge_documents(staging, corpus.root, corpus.url)
    (notes / "b.md").unlink()
    corpus.run([folder_source(notes)], day(2))
    assert told(corpus, "a.md") == [("created", "2024-01-01", None)]
    assert told(corpus, "b.md") == [("created", "2024-01-01", None), ("deleted", "2024-01-02", None)]


def test_repeated_runs_tell_nothing_twice(corpus: Corpus, repository: Repository) -> None:
    source = GitSource(kind="git", name="docs", repository=str(repository.folder))
    for number in (2, 2, 3, 2, 4, 3, 4):
        corpus.run([source], day(number))
    assert told(corpus, "keep.md") == [("created", "2024-01-02", None), ("changed", "2024-01-03", None)]
    assert told(corpus, "gone.md") == [("created", "2024-01-02", None), ("deleted", "2024-01-04", None)]


def test_a_document_that_never_was_or_is_in_several_sources_is_refused_with_what_to_do(
    corpus: Corpus, notes: Path, tmp_path: Path
) -> None:
    with pytest.raises(MissingInput, match="was ever here"):
        history(corpus.root, "notes:a.md")
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.md").write_text("# A\n\nAnother alpha.\n")
    corpus.run([folder_source(notes), folder_source(other, "other")])
    with pytest.raises(MissingInput, match=r"'nowhere.md' was ever here: name it as `source:path`"):
        history(corpus.root, "nowhere.md")
    with pytest.raises(MissingInput, match=r"name one of notes:a.md, other:a.md"):
        history(corpus.root, "a.md")
    assert told(corpus, "other:a.md") == [("created", "2024-01-01", None)]
