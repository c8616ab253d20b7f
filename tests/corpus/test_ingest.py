"""From sources to chunks: what must hold for every order, repetition and interruption of runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from corpus.conftest import Corpus, Repository, day
from llmops.corpus import (
    Chunker,
    DirectorySource,
    GitSource,
    Source,
    check_quality,
    merge_chunks,
    merge_documents,
    read_sources,
)
from llmops.errors import ConfigurationError, MissingInput, QualityGateFailed, ServiceUnavailable
from llmops.quality import QualityRules


def folder_source(folder: Path, name: str = "notes", **options: Any) -> DirectorySource:
    return DirectorySource(kind="directory", name=name, path=str(folder), **options)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "a.md").write_text("# A\n\nAlpha is first.\n\n## More\n\nMore about alpha.\n")
    (folder / "b.md").write_text("# B\n\nBeta is second.\n")
    return folder


def test_an_edited_document_loses_its_old_chunks_and_leaves_its_neighbours_alone(
    corpus: Corpus, notes: Path
) -> None:
    corpus.run([folder_source(notes)])
    before = corpus.table("chunks").to_pylist()
    (notes / "a.md").write_text("# A\n\nAlpha is last.\n")
    counts = corpus.run([folder_source(notes)], day(2))
    assert corpus.texts() == {"a.md": ["Alpha is last."], "b.md": ["Beta is second."]}
    assert [r for r in corpus.table("chunks").to_pylist() if r["path"] == "b.md"] == [
        r for r in before if r["path"] == "b.md"
    ]
    assert counts["chunks"] == {"inserted": 1, "updated": 0, "deleted": 2, "documents": 1}


def test_a_chunk_that_an_edit_left_alone_keeps_its_id_and_gets_the_new_version(
    corpus: Corpus, notes: Path
) -> None:
    corpus.run([folder_source(notes)])
    before = {r["text"]: r for r in corpus.table("chunks").to_pylist()}
    (notes / "a.md").write_text("A preface.\n\n# A\n\nAlpha is first.\n\n## More\n\nMore about alpha.\n")
    corpus.run([folder_source(notes)], day(2))
    after = {r["text"]: r for r in corpus.table("chunks").to_pylist()}
    for text in ("Alpha is first.", "More about alpha."):
        assert after[text]["chunk_id"] == before[text]["chunk_id"]
        assert after[text]["char_start"] > before[text]["char_start"]
        assert after[text]["document_version"] != before[text]["document_version"]


def test_a_document_deleted_at_the_source_is_gone(corpus: Corpus, notes: Path) -> None:
    corpus.run([folder_source(notes)])
    (notes / "b.md").unlink()
    corpus.run([folder_source(notes)], day(2))
    assert corpus.paths() == ["a.md"]
    assert set(corpus.texts()) == {"a.md"}


def test_of_two_documents_with_the_same_text_one_can_be_deleted(corpus: Corpus, notes: Path) -> None:
    (notes / "twin.md").write_text((notes / "b.md").read_text())
    corpus.run([folder_source(notes)])
    (notes / "b.md").unlink()
    corpus.run([folder_source(notes)], day(2))
    assert corpus.texts()["twin.md"] == ["Beta is second."]
    assert "b.md" not in corpus.texts()


def test_all_chunks_of_a_long_document_survive_an_update(corpus: Corpus, notes: Path) -> None:
    paragraphs = [f"Paragraph number {n} says something about the number {n}." for n in range(400)]
    (notes / "long.md").write_text("# Long\n\n" + "\n\n".join(paragraphs))
    corpus.run([folder_source(notes)])
    paragraphs[200] = "This paragraph was replaced."
    (notes / "long.md").write_text("# Long\n\n" + "\n\n".join(paragraphs))
    corpus.run([folder_source(notes)], day(2))
    chunks = corpus.texts()["long.md"]
    assert len(chunks) > 20
    joined = "\n\n".join(chunks)
    assert all(paragraph in joined for paragraph in paragraphs)


def test_a_run_without_changes_writes_no_row_and_no_version(corpus: Corpus, notes: Path) -> None:
    (notes / "bad.md").write_bytes(b"\xff\xfe\x00")
    corpus.run([folder_source(notes)])
    versions = corpus.versions()
    counts = corpus.run([folder_source(notes)], day(2))
    assert counts["documents"] == {
        "inserted": 0,
        "updated": 0,
        "deleted": 0,
        "unchanged": 2,
        "quarantined": 1,
    }
    assert counts["chunks"] == {"inserted": 0, "updated": 0, "deleted": 0, "documents": 0}
    assert corpus.versions() == versions


@pytest.mark.parametrize("order", [(3, 1, 2, 2), (1, 2, 3), (2, 3, 1)])
def test_a_backfill_in_any_order_equals_a_fresh_build_of_the_last_day(
    new_corpus: Callable[[str], Corpus], repository: Repository, order: tuple[int, ...]
) -> None:
    source = GitSource(kind="git", name="docs", repository=str(repository.folder))
    replayed, fresh = new_corpus("replayed"), new_corpus("fresh")
    for number in order:
        replayed.run([source], day(number + 1))
    fresh.run([source], day(4))
    assert replayed.dump() == fresh.dump()
    assert fresh.texts() == {"keep.md": ["It was edited."], "new.md": ["It was added."]}


@pytest.mark.parametrize("order", [(1, 3, 2), (3, 1, 2), (1, 2, 3), (2, 1, 3, 2)])
def test_a_backfill_in_any_order_keeps_what_was_changed_back(
    new_corpus: Callable[[str], Corpus], reverted: Repository, order: tuple[int, ...]
) -> None:
    source = GitSource(kind="git", name="docs", repository=str(reverted.folder))
    replayed, fresh = new_corpus("replayed"), new_corpus("fresh")
    for number in order:
        replayed.run([source], day(number + 1))
    fresh.run([source], day(4))
    assert replayed.dump() == fresh.dump()
    assert replayed.table("snapshots").to_pylist() == fresh.table("snapshots").to_pylist()
    assert fresh.texts() == {"a.md": ["As it was."]}


def test_a_commit_that_changes_nothing_read_is_remembered_once(corpus: Corpus, reverted: Repository) -> None:
    source = GitSource(kind="git", name="docs", repository=str(reverted.folder), include=["a.md"])
    corpus.run([source], day(4))
    *tables, snapshots = corpus.versions()
    reverted.commit(day(4, 10), other_md="# Other\n\nIt is not included.\n")
    assert snapshots is not None
    for number in (5, 6):
        corpus.run([source], day(number))
        assert corpus.versions() == [*tables, snapshots + 1]
    assert [row["as_of"] for row in corpus.table("snapshots").to_pylist()] == [day(4, 10)]


def test_a_folder_changed_back_between_overlapping_runs_is_put_right_by_the_next_run(
    corpus: Corpus, notes: Path
) -> None:
    before = (notes / "b.md").read_text()
    corpus.run([folder_source(notes)])
    (notes / "b.md").write_text("# B\n\nBeta for a moment.\n")
    late = corpus.read([folder_source(notes)], day(2), staging="late")
    (notes / "b.md").write_text(before)
    corpus.run([folder_source(notes)], day(3))
    merge_documents(late, corpus.root, corpus.url)
    corpus.run([folder_source(notes)], day(4))
    assert corpus.texts()["b.md"] == ["Beta is second."]


def test_a_backfill_replays_history_day_by_day(corpus: Corpus, repository: Repository) -> None:
    source = GitSource(kind="git", name="docs", repository=str(repository.folder))
    seen = []
    for number in (1, 2, 3):
        corpus.run([source], day(number + 1))
        seen.append(corpus.texts())
    assert seen[0] == {"keep.md": ["It stays."], "gone.md": ["It goes."]}
    assert seen[1] == {"keep.md": ["It was edited."], "gone.md": ["It goes."], "new.md": ["It was added."]}
    assert seen[2] == {"keep.md": ["It was edited."], "new.md": ["It was added."]}


def test_two_sources_with_the_same_paths_do_not_overwrite_each_other(
    corpus: Corpus, notes: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.md").write_text("# A\n\nAnother alpha.\n")
    both = [folder_source(notes), folder_source(other, "other")]
    corpus.run(both)
    (other / "a.md").unlink()
    (other / "c.md").write_text("# C\n\nGamma.\n")
    corpus.run(both, day(2))
    rows = corpus.table("documents").to_pylist()
    assert sorted((r["source"], r["path"]) for r in rows) == [
        ("notes", "a.md"),
        ("notes", "b.md"),
        ("other", "c.md"),
    ]


@pytest.mark.parametrize("trouble", ["broken", "paused"])
def test_a_source_that_is_not_read_neither_blocks_the_rest_nor_loses_its_documents(
    corpus: Corpus, notes: Path, tmp_path: Path, trouble: str
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "o.md").write_text("# O\n\nOmega.\n")
    corpus.run([folder_source(notes), folder_source(other, "other")])
    (notes / "b.md").unlink()
    if trouble == "broken":
        other.rename(tmp_path / "moved")
    sources = [folder_source(notes), folder_source(other, "other", paused=trouble == "paused")]
    counts = read_sources(sources, as_of=day(2), staging=corpus.folder / "staging", table_root=corpus.root)
    merge_documents(corpus.folder / "staging", corpus.root, corpus.url)
    corpus.chunk()
    assert counts["failed" if trouble == "broken" else "paused"] == ["other"]
    assert set(corpus.texts()) == {"a.md", "o.md"}


def test_documents_of_a_source_taken_out_of_the_configuration_are_removed(
    corpus: Corpus, notes: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "o.md").write_text("# O\n\nOmega.\n")
    corpus.run([folder_source(notes)])
    corpus.run([folder_source(other, "other")], day(2))
    assert corpus.paths() == ["o.md"]
    assert set(corpus.texts()) == {"o.md"}


@pytest.mark.parametrize("stop", ["read", "documents", "chunks"])
def test_a_run_killed_after_any_step_leaves_what_an_undisturbed_one_leaves(
    new_corpus: Callable[[str], Corpus], notes: Path, stop: str
) -> None:
    killed, undisturbed = new_corpus("killed"), new_corpus("undisturbed")
    killed.run([folder_source(notes)])
    undisturbed.run([folder_source(notes)])
    (notes / "a.md").unlink()
    (notes / "b.md").write_text("# B\n\nBeta was edited.\n")
    staging = killed.read([folder_source(notes)], day(2))
    if stop != "read":
        merge_documents(staging, killed.root, killed.url)
    if stop == "chunks":
        killed.chunk()
    assert killed.texts()["b.md"] == (["Beta was edited."] if stop == "chunks" else ["Beta is second."])
    killed.run([folder_source(notes)], day(2))
    undisturbed.run([folder_source(notes)], day(2))
    assert killed.dump() == undisturbed.dump()


def test_a_deleted_document_does_not_come_back_with_an_older_run_that_finishes_late(
    corpus: Corpus, notes: Path
) -> None:
    late = corpus.read([folder_source(notes)], day(1), staging="late")
    (notes / "b.md").unlink()
    corpus.run([folder_source(notes)], day(2))
    counts = merge_documents(late, corpus.root, corpus.url)
    corpus.chunk()
    assert counts["inserted"] == 0
    assert corpus.paths() == ["a.md"]


def test_a_run_that_dies_before_it_merges_documents_still_outranks_an_older_one(
    corpus: Corpus, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.run([folder_source(notes)])
    old = corpus.read([folder_source(notes)], day(2), staging="old")
    (notes / "b.md").unlink()
    new = corpus.read([folder_source(notes)], day(3), staging="new")

    def broken(*arguments: object) -> None:
        raise ServiceUnavailable("the storage is away")

    with monkeypatch.context() as patch:
        patch.setattr("llmops.corpus._merging._merge", broken)
        with pytest.raises(ServiceUnavailable, match="is away"):
            merge_documents(new, corpus.root, corpus.url)
    merge_documents(old, corpus.root, corpus.url)
    merge_documents(new, corpus.root, corpus.url)
    merge_documents(old, corpus.root, corpus.url)
    assert corpus.paths() == ["a.md"]


def test_of_eight_equal_runs_at_once_one_does_the_work(corpus: Corpus, notes: Path) -> None:
    def run(number: int) -> tuple[int, int]:
        staging = corpus.read([folder_source(notes)], day(1), staging=f"staging{number}")
        documents = merge_documents(staging, corpus.root, corpus.url)
        return documents["inserted"], corpus.chunk()["inserted"]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(run, range(8)))
    assert sorted(documents for documents, _ in results) == [0] * 7 + [2]
    assert sorted(chunks for _, chunks in results) == [0] * 7 + [3]
    assert corpus.texts()["b.md"] == ["Beta is second."]


def test_unreadable_files_go_to_quarantine_with_a_reason_and_the_rest_goes_on(
    corpus: Corpus, notes: Path
) -> None:
    (notes / "empty.md").write_bytes(b"")
    (notes / "binary.md").write_bytes(b"\x7fELF\x00\x00" * 20)
    (notes / "latin.txt").write_bytes("café au lait".encode("latin-1"))
    (notes / "data.bin").write_bytes(b"whatever")
    with (notes / "huge.txt").open("wb") as file:
        file.truncate(60_000_000)
    counts = corpus.run([folder_source(notes)])
    assert counts["documents"]["inserted"] == 2
    rows = {row["path"]: row for row in corpus.table("quarantine").to_pylist()}
    assert {path: row["problem"] for path, row in rows.items()} == {
        "binary.md": "unreadable",
        "data.bin": "unsupported",
        "empty.md": "empty",
        "huge.txt": "too_large",
        "latin.txt": "unreadable",
    }
    assert "60,000,000 bytes" in rows["huge.txt"]["reason"]
    assert "0xe9 at offset 3" in rows["latin.txt"]["reason"]


def test_a_file_on_which_its_reader_fails_is_tried_once_and_the_rest_goes_on(
    corpus: Corpus, notes: Path
) -> None:
    (notes / "page.html").write_text("<div>" * 50_000 + "Hello.")
    corpus.run([folder_source(notes)])
    assert corpus.paths() == ["a.md", "b.md"]
    (row,) = corpus.table("quarantine").to_pylist()
    assert (row["path"], row["problem"], row["count"]) == ("page.html", "unreadable", 1)
    versions = corpus.versions()
    corpus.run([folder_source(notes)], day(2))
    assert corpus.versions() == versions


def test_quarantine_counts_contents_and_forgets_a_file_that_was_repaired(corpus: Corpus, notes: Path) -> None:
    bad = notes / "bad.md"
    for number, content in enumerate((b"\xff1", b"\xff1", b"\xff2"), 1):
        bad.write_bytes(content)
        corpus.run([folder_source(notes)], day(number))
    assert corpus.table("quarantine")["count"].to_pylist() == [2]
    bad.write_text("# Good\n\nNow it is.\n")
    corpus.run([folder_source(notes)], day(4))
    assert corpus.table("quarantine").num_rows == 0
    assert "bad.md" in corpus.paths()


def test_a_failing_suite_stops_the_run_before_anything_changes(corpus: Corpus, notes: Path) -> None:
    for number in range(10):
        (notes / f"n{number}.md").write_text(f"# N{number}\n\nText {number}.\n")
    corpus.run([folder_source(notes)])
    versions = corpus.versions()
    for number in range(10):
        (notes / f"n{number}.md").unlink()
    staging = corpus.read([folder_source(notes)], day(2))
    with pytest.raises(QualityGateFailed, match=r"'shrinkage'.*10 of 12 documents would go"):
        check_quality([folder_source(notes)], staging, corpus.root, QualityRules())
    assert corpus.versions() == versions


def test_quality_is_not_asked_about_a_state_that_will_not_be_merged(
    corpus: Corpus, repository: Repository
) -> None:
    source = GitSource(kind="git", name="docs", repository=str(repository.folder))
    corpus.run([source], day(4))
    staging = corpus.read([source], day(2))
    assert check_quality([source], staging, corpus.root, QualityRules(min_documents=99))["expectations"] == 0


def test_a_sourceless_failing_or_empty_configuration_is_refused_with_what_to_do(
    tmp_path: Path, notes: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    staging, root = tmp_path / "staging", str(tmp_path / "tables")
    with pytest.raises(ConfigurationError, match="no source is configured"):
        read_sources([], as_of=day(1), staging=staging, table_root=root)
    with pytest.raises(ConfigurationError, match=r"\['notes'\] are configured more than once"):
        read_sources(
            [folder_source(notes), folder_source(empty)], as_of=day(1), staging=staging, table_root=root
        )
    with pytest.raises(MissingInput, match="does not exist: correct `path`"):
        read_sources([folder_source(tmp_path / "nowhere")], as_of=day(1), staging=staging, table_root=root)
    with pytest.raises(MissingInput, match="no document was found"):
        read_sources([folder_source(empty)], as_of=day(1), staging=staging, table_root=root)
    with pytest.raises(ConfigurationError, match="no time zone"):
        read_sources(
            [folder_source(notes)], as_of=day(1).replace(tzinfo=None), staging=staging, table_root=root
        )
    with pytest.raises(MissingInput, match="nothing staged"):
        merge_documents(tmp_path / "elsewhere", root, "")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "folder", "name": "x", "path": "."}, "does not match any of the expected tags"),
        ({"kind": "directory", "name": "x", "path": ".", "inclde": []}, "inclde"),
        ({"kind": "directory", "name": "../x", "path": "."}, "name"),
        ({"kind": "packages", "name": "x", "packages": []}, "packages"),
    ],
)
def test_an_unknown_kind_or_misspelt_key_of_a_source_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(Source).validate_python(values)


def test_each_chunker_has_chunks_of_its_own_and_an_unnamed_one_loses_deleted_documents_only(
    corpus: Corpus, notes: Path
) -> None:
    small = Chunker(max_tokens=32)
    chunkers = {c.digest(corpus.tokenizer_file): (c, corpus.tokenizer_file) for c in (corpus.chunker, small)}
    merge_documents(corpus.read([folder_source(notes)], day(1)), corpus.root, corpus.url)
    assert merge_chunks(corpus.root, chunkers, corpus.url)["inserted"] == 6
    (notes / "b.md").unlink()
    corpus.run([folder_source(notes)], day(2))
    rows = corpus.table("chunks").to_pylist()
    assert {row["chunker"] for row in rows} == set(chunkers)
    assert {row["path"] for row in rows} == {"a.md"}


def test_the_dump_is_canonical_and_names_no_run(corpus: Corpus, notes: Path) -> None:
    corpus.run([folder_source(notes)])
    rows = [json.loads(line) for line in corpus.dump()]
    assert [row["table"] for row in rows] == ["documents"] * 2 + ["chunks"] * 3
    assert not {"as_of", "run", "count"} & set().union(*rows)
    assert corpus.folder.as_posix() not in "".join(corpus.dump())
