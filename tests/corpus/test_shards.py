"""One run in several shards: bounded, independent, and together what one shard gives."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import pytest

from corpus.conftest import Corpus, Repository, day
from llmops.corpus import (
    DirectorySource,
    GitSource,
    PackagesSource,
    check_quality,
    merge_documents,
    plan_shards,
    read_shard,
    record_quality,
    report_sources,
)
from llmops.corpus import _ingest as ingest
from llmops.errors import ConfigurationError, MissingInput, QualityGateFailed, SourceFailed
from llmops.quality import QualityRules, SourceVerdict

RULES = QualityRules()


@pytest.fixture
def many(tmp_path: Path) -> DirectorySource:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number}.md").write_text(f"# Number {number}\n\nThe number {number} has its own text.\n")
    return DirectorySource(kind="directory", name="many", path=str(folder))


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "_SHARD_FILES", 10)


def plan(corpus: Corpus, *sources: object, workers: int = 3, number: int = 1) -> list[int]:
    return plan_shards(
        sources, RULES,  # type: ignore[arg-type]
        as_of=day(number), staging=corpus.folder / "staging", table_root=corpus.root, workers=workers,
    )  # fmt: skip


def read(corpus: Corpus, shard: int, *sources: object) -> dict[str, object]:
    return read_shard(
        sources, RULES,  # type: ignore[arg-type]
        staging=corpus.folder / "staging", shard=shard, table_root=corpus.root,
    )  # fmt: skip


def merge(corpus: Corpus) -> dict[str, int]:
    return merge_documents(corpus.folder / "staging", corpus.root, corpus.url)


def test_shards_are_bounded_by_their_files_and_by_the_workers(
    corpus: Corpus, many: DirectorySource, small_shards: None
) -> None:
    assert plan(corpus, many, workers=3) == [0, 1, 2, 3]
    assert plan(corpus, many, workers=1) == [0]
    (Path(many.path) / "0.md").unlink()
    assert len(plan(corpus, many, workers=100)) == 4
    for number in range(100, 200):
        (Path(many.path) / f"{number}.md").write_text("# More\n\nMore text.\n")
    assert len(plan(corpus, many, workers=3)) == 6


def test_several_shards_together_stage_what_one_does(
    new_corpus: Callable[[str], Corpus], many: DirectorySource, repository: Repository, small_shards: None
) -> None:
    git = GitSource(kind="git", name="docs", repository=str(repository.folder))
    packages = PackagesSource(kind="packages", name="code", packages=["packaging"])
    sources = (many, git, packages)
    divided, whole = new_corpus("divided"), new_corpus("whole")
    shards = plan(divided, *sources, workers=2, number=4)
    assert len(shards) == 4
    counts = [read(divided, shard, *sources) for shard in reversed(shards)]
    assert all(count["changed"] for count in counts)
    merge(divided)
    divided.chunk()
    whole.run(sources, day(4))
    assert divided.dump() == whole.dump()
    assert divided.table("snapshots").to_pylist() == whole.table("snapshots").to_pylist()
    for shard in plan(divided, *sources, workers=2, number=5):
        assert read(divided, shard, *sources)["changed"] == 0
    assert [merge(divided)[what] for what in ("inserted", "updated", "deleted")] == [0, 0, 0]


def test_nothing_is_merged_until_every_shard_is_there(
    corpus: Corpus, many: DirectorySource, small_shards: None
) -> None:
    shards = plan(corpus, many)
    for shard in shards[:-1]:
        read(corpus, shard, many)
    with pytest.raises(MissingInput, match=r"shard-0003.*did not finish, run it again"):
        merge(corpus)
    read(corpus, shards[-1], many)
    assert merge(corpus)["inserted"] == 40


def test_a_shard_read_again_replaces_itself_and_a_new_plan_forgets_them_all(
    corpus: Corpus, many: DirectorySource, small_shards: None
) -> None:
    for shard in plan(corpus, many):
        read(corpus, shard, many)
        read(corpus, shard, many)
    assert merge(corpus)["inserted"] == 40
    plan(corpus, many)
    with pytest.raises(MissingInput, match="nothing staged"):
        merge(corpus)


def test_a_source_that_fails_in_one_shard_keeps_its_documents_and_the_run_says_so_at_its_end(
    corpus: Corpus, many: DirectorySource, repository: Repository, small_shards: None
) -> None:
    git = GitSource(kind="git", name="docs", repository=str(repository.folder))
    corpus.run((many, git), day(2))
    for name in ("1.md", "2.md", "3.md"):
        (Path(many.path) / name).unlink()
    shards = plan(corpus, many, git, number=4)
    read(corpus, shards[0], many, git)
    shutil.move(many.path, many.path + "-away")
    for shard in shards[1:]:
        read(corpus, shard, many, git)
    staging = corpus.folder / "staging"
    assert check_quality((many, git), staging, corpus.root, RULES)["failed"] == ["many"]
    merge(corpus)
    corpus.chunk()
    assert len([path for path in corpus.paths() if path[0].isdigit()]) == 40
    assert corpus.texts()["keep.md"] == ["It was edited."]
    with pytest.raises(SourceFailed, match=r"1 of 2 sources keep the documents they had.*many: .*not exist"):
        report_sources(staging)


def test_a_source_that_the_gate_holds_back_keeps_its_documents_and_the_others_go_on(
    corpus: Corpus, many: DirectorySource, repository: Repository
) -> None:
    git = GitSource(kind="git", name="docs", repository=str(repository.folder))
    corpus.run((many, git), day(2))
    for number in range(20):
        (Path(many.path) / f"{number}.md").unlink()
    staging = corpus.read((many, git), day(4))
    assert check_quality((many, git), staging, corpus.root, RULES)["blocked"] == ["many"]
    merge(corpus)
    corpus.chunk()
    assert len([path for path in corpus.paths() if path[0].isdigit()]) == 40
    assert "gone.md" not in corpus.paths()
    with pytest.raises(SourceFailed, match=r"many: .*shrinkage.*20 of 40 documents would go"):
        report_sources(staging)


def test_the_source_s_own_rules_stand_before_the_assistant_s(corpus: Corpus, many: DirectorySource) -> None:
    own = many.model_copy(update={"quality": {"max_characters": 10}})
    staging = corpus.read([own], day(1))
    with pytest.raises(QualityGateFailed, match=r"source 'many': .*'characters' \(.*at most 10"):
        check_quality([own], staging, corpus.root, RULES)
    wrong = many.model_copy(update={"quality": {"max_charcters": 10}})
    with pytest.raises(ConfigurationError, match=r"source 'many': quality\.max_charcters"):
        corpus.read([wrong], day(1))
    lost = many.model_copy(update={"suite": "nowhere"})
    with pytest.raises(ConfigurationError, match="no suite 'nowhere'"):
        corpus.read([lost], day(1))


def test_rules_made_stricter_judge_documents_that_did_not_change(
    corpus: Corpus, many: DirectorySource
) -> None:
    corpus.run([many])
    staging = corpus.read([many], day(2))
    assert check_quality([many], staging, corpus.root, RULES)["expectations"] == 0
    strict = many.model_copy(update={"quality": {"max_characters": 10}})
    with pytest.raises(QualityGateFailed, match="it would have 40 documents"):
        check_quality([strict], corpus.read([strict], day(2)), corpus.root, RULES)


def test_metadata_and_access_of_a_source_reach_its_chunks_and_change_without_new_versions(
    corpus: Corpus, many: DirectorySource
) -> None:
    tagged = many.model_copy(update={"metadata": {"team": "sales"}, "access": ("staff", "audit")})
    corpus.run([many])
    versions = {row["chunk_id"]: row["document_version"] for row in corpus.table("chunks").to_pylist()}
    counts = corpus.run([tagged], day(2))
    assert counts["documents"]["updated"] == 40
    rows = corpus.table("chunks").to_pylist()
    assert {row["metadata"] for row in rows} == {'{"team":"sales"}'}
    assert {row["access"] for row in rows} == {'["audit","staff"]'}
    assert {row["chunk_id"]: row["document_version"] for row in rows} == versions


def test_near_duplicates_go_to_quarantine_where_the_rules_say_so_and_come_back_when_the_first_is_gone(
    corpus: Corpus, tmp_path: Path
) -> None:
    folder = tmp_path / "twins"
    folder.mkdir()
    words = " ".join(f"word{n}" for n in range(200))
    for name in ("a.md", "b.md"):
        (folder / name).write_text(f"# Twin\n\n{words}\n")
    (folder / "c.md").write_text("# Other\n\n" + " ".join(f"other{n}" for n in range(200)))
    source = DirectorySource(
        kind="directory", name="twins", path=str(folder), quality={"near_duplicates": "quarantine"}
    )

    def run(number: int) -> list[str]:
        staging = corpus.read([source], day(number))
        check_quality([source], staging, corpus.root, RULES)
        merge(corpus)
        corpus.chunk()
        return corpus.paths()

    first = run(1)
    assert len(first) == 2
    assert "c.md" in first
    (row,) = corpus.table("quarantine").to_pylist()
    assert (row["problem"], {row["path"], *first}) == ("repeated", {"a.md", "b.md", "c.md"})
    versions = corpus.versions()
    assert run(2) == first
    assert corpus.versions() == versions
    (folder / next(path for path in first if path != "c.md")).unlink()
    assert run(3) == sorted([row["path"], "c.md"])
    assert corpus.table("quarantine").num_rows == 0


def test_what_the_gate_found_is_kept_once_per_run_also_when_it_stops_the_run(
    corpus: Corpus, many: DirectorySource
) -> None:
    strict = many.model_copy(update={"quality": {"max_characters": 10}})
    staging = corpus.read([strict], day(1))

    def record(verdicts: Sequence[SourceVerdict], as_of: datetime) -> None:
        record_quality(verdicts, "run 1", as_of, corpus.root, corpus.url)

    for _ in range(2):
        with pytest.raises(QualityGateFailed):
            check_quality([strict], staging, corpus.root, RULES, record=record)
    rows = corpus.table("quality_results").to_pylist()
    failed = [row for row in rows if not row["success"]]
    assert len(rows) == 14
    assert [(row["source"], row["column"], row["unexpected"]) for row in failed] == [
        ("many", "characters", 40)
    ]
    assert {row["as_of"] for row in rows} == {day(1)}
