from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from index.conftest import Index, a_generation
from index.corpus import Corpus
from llmops.errors import EmbedderMismatch, MissingInput, ServiceUnavailable, WriteConflict
from llmops.index import SyncCounts, create_generation, dump, find_generation, mark, sync
from llmops.index import _sync as sync_module
from support.hash_embedder import HashEmbedder
from support.services import FreshDatabase

APPLES = "Apples grow on trees.\n\nApples are red.\n\nApples keep for months."
PEARS = "Pears grow on trees.\n\nPears are green."


def rows(index: Index, *columns: str) -> list[tuple[object, ...]]:
    with psycopg.connect(index.url) as connection:
        query = f"SELECT {', '.join(columns)} FROM generation_{index.id} ORDER BY path, position"
        return connection.execute(query).fetchall()


def lines(index: Index) -> list[str]:
    return list(dump(index.url, index.id))


def fresh(index: Index, database: FreshDatabase) -> list[str]:
    """Build the same chunks table into an empty generation of the same embedder and return its dump."""
    with psycopg.connect(database.url("llmops_owner")) as connection:
        connection.execute("DELETE FROM vector_cache")
    mark(index.url, index.id, "retired")
    with psycopg.connect(index.url) as connection:
        connection.execute("SELECT drop_index_generation(%s)", (index.id,))
    create_generation(index.url, index.generation)
    index.sync()
    return lines(index)


def test_the_first_sync_loads_everything_and_builds_the_vector_index(index: Index) -> None:
    counts = index.write({"apples.md": APPLES, "pears.md": PEARS})

    assert counts == SyncCounts(
        embedded=5, reused=0, upserted=5, deleted=0, version=index.corpus.table.version()
    )
    assert [row[0] for row in rows(index, "text")] == [*APPLES.split("\n\n"), *PEARS.split("\n\n")]
    known = find_generation(index.url, index.id)
    assert (known.chunks, known.vector_index, known.watermark) == (5, True, counts.version)


def test_a_sync_without_changes_embeds_nothing_and_writes_nothing(index: Index) -> None:
    first = index.write({"apples.md": APPLES})
    before = rows(index, "chunk_id", "xmin::text", "ctid::text")
    with psycopg.connect(index.url) as connection:
        row = "SELECT xmin::text, ctid::text FROM index_generations"
        written = connection.execute(row).fetchall()
        index.embedder.history.clear()

        assert index.write({"apples.md": APPLES}) == SyncCounts(version=first.version)

        assert connection.execute(row).fetchall() == written
    assert rows(index, "chunk_id", "xmin::text", "ctid::text") == before
    assert index.embedder.history == []


def test_an_edited_document_changes_whole_and_its_neighbours_stay_untouched(index: Index) -> None:
    index.write({"apples.md": APPLES, "pears.md": PEARS})
    index.embedder.history.clear()
    neighbour = rows(index, "path", "xmin::text")[3:]

    counts = index.write({"apples.md": APPLES.replace("red", "green"), "pears.md": PEARS})

    assert (counts.embedded, counts.reused, counts.upserted, counts.deleted) == (1, 2, 3, 1)
    assert index.embedder.history == ["apples\nApples are green."]
    assert len({row[0] for row in rows(index, "document_version", "path") if row[1] == "apples.md"}) == 1
    assert rows(index, "path", "xmin::text")[3:] == neighbour
    assert "Apples are red." not in [row[0] for row in rows(index, "text")]


def test_a_deleted_document_is_gone_and_a_twin_with_the_same_text_stays(index: Index) -> None:
    index.write({"apples.md": APPLES, "copy/apples.md": APPLES})
    assert len(index.embedder.history) == 3

    counts = index.write({"copy/apples.md": APPLES})

    assert (counts.embedded, counts.upserted, counts.deleted) == (0, 0, 3)
    assert {row[0] for row in rows(index, "path")} == {"copy/apples.md"}


def test_two_sources_with_the_same_paths_do_not_overwrite_each_other(index: Index) -> None:
    index.write({"a.md": APPLES}, source="one")
    index.write({"a.md": PEARS}, source="two")
    index.write({}, source="one")

    assert {row[0] for row in rows(index, "source")} == {"two"}


def test_the_same_documents_in_any_order_of_syncs_give_the_dump_of_a_fresh_build(
    index: Index, database: FreshDatabase
) -> None:
    for documents in ({"a.md": PEARS}, {"a.md": APPLES, "b.md": PEARS}, {"b.md": APPLES}, {"a.md": APPLES}):
        index.write(documents)
    index.write({"a.md": APPLES, "b.md": PEARS})
    followed = lines(index)

    assert len(followed) == 5
    assert followed == fresh(index, database)


def test_chunks_of_another_chunker_are_left_alone(index: Index) -> None:
    index.corpus.write({"a.md": APPLES}, source="other", chunker="d" * 12)
    counts = index.write({"b.md": PEARS})
    assert counts.upserted == 2
    assert ["Pears" in text for text in index.embedder.history] == [True, True]

    index.corpus.write({}, source="other", chunker="d" * 12)
    assert index.sync() == SyncCounts(version=index.corpus.table.version())


def test_words_are_counted_as_the_rows_change(index: Index) -> None:
    index.write({"apples.md": APPLES, "pears.md": PEARS})
    index.write({"apples.md": "Apples and plums."})
    with psycopg.connect(index.url) as connection:
        held = connection.execute(f"SELECT word, chunks FROM words_{index.id} ORDER BY word").fetchall()
        counted = connection.execute(
            f"SELECT word, count(*) FROM generation_{index.id}, unnest(tsvector_to_array(search)) AS word "
            "GROUP BY word ORDER BY word"
        ).fetchall()
    assert held == counted
    assert dict(held)["plum"] == 1


def test_another_embedder_is_refused_before_anything_is_embedded(index: Index) -> None:
    index.write({"apples.md": APPLES})
    before = lines(index)
    index.corpus.write({"apples.md": PEARS})
    for other in (HashEmbedder(name="other"), HashEmbedder(dimension=16)):
        with pytest.raises(EmbedderMismatch, match="generation of its own"):
            sync(index.url, index.id, index.corpus.table, other)
        assert other.history == []
    assert lines(index) == before


def test_a_new_embedder_gets_its_own_generation_beside_the_live_one(index: Index) -> None:
    index.write({"apples.md": APPLES})
    before = lines(index)
    other = HashEmbedder(name="other", dimension=16)
    generation = a_generation(other)
    create_generation(index.url, generation)

    assert generation.id != index.id
    assert sync(index.url, generation.id, index.corpus.table, other).embedded == 3
    assert lines(index) == before


def test_a_second_generation_of_the_same_embedder_reuses_every_vector(index: Index) -> None:
    index.write({"apples.md": APPLES})
    index.corpus.write({"apples.md": APPLES}, source="again", chunker="e" * 12)
    generation = a_generation(index.embedder, chunker="e" * 12)
    create_generation(index.url, generation)
    index.embedder.history.clear()

    counts = sync(index.url, generation.id, index.corpus.table, index.embedder)

    assert (counts.embedded, counts.reused, counts.upserted) == (0, 3, 3)
    assert index.embedder.history == []


def test_an_embedder_that_fails_half_way_leaves_the_old_version_and_a_retry_completes(
    index: Index, database: FreshDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_module, "_SLICE", 2)
    index.write({"apples.md": APPLES})
    before = lines(index)
    texts = {f"{i}.md": f"Document {i} speaks of numbers.\n\nIt ends with {i}." for i in range(10)}
    index.corpus.write({"apples.md": PEARS, **texts})

    def fail_late(batch: Sequence[str]) -> None:
        if len(failing.history) >= 10:
            raise RuntimeError("the machine caught fire")

    failing = HashEmbedder(before=fail_late)
    with pytest.raises(RuntimeError, match="fire"):
        sync(index.url, index.id, index.corpus.table, failing)
    assert lines(index) == before

    index.embedder.history.clear()
    counts = index.sync()
    assert set(index.embedder.history).isdisjoint(failing.history)
    assert (counts.upserted, counts.deleted, counts.reused) == (22, 3, len(failing.history))
    assert lines(index) == fresh(index, database)


_KILLED = """
import os, signal, sys, time
from pathlib import Path
from typing import Any
from support.hash_embedder import HashEmbedder
from llmops.index import _sync, sync
from llmops.lakehouse import LakeTable
_sync._SLICE = 2
def wait(texts):
    if len(embedder.history) >= 4:
        Path(sys.argv[4]).touch()
        time.sleep(600)
embedder = HashEmbedder(before=wait)
sync(sys.argv[1], sys.argv[2], LakeTable(sys.argv[3], "chunks"), embedder)
"""


def test_a_worker_killed_in_the_middle_leaves_the_old_version_and_a_retry_completes(
    index: Index, database: FreshDatabase, tmp_path: Path
) -> None:
    index.write({"apples.md": APPLES})
    before = lines(index)
    index.corpus.write(
        {"pears.md": PEARS, "plums.md": "Plums are blue.\n\nPlums are small.\n\nPlums dry well."}
    )
    reached = tmp_path / "reached"
    path = os.pathsep.join(sys.path)
    worker = subprocess.Popen(
        [sys.executable, "-c", _KILLED, index.url, index.id, str(index.corpus.root), str(reached)],
        env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin"},
    )
    deadline = time.monotonic() + 60
    while not reached.exists() and time.monotonic() < deadline and worker.poll() is None:
        time.sleep(0.05)
    assert reached.exists()
    with pytest.raises(WriteConflict, match="another process has been writing"):
        index.sync(wait_seconds=0.2)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert lines(index) == before

    index.embedder.history.clear()
    counts = index.sync()
    assert (counts.embedded, counts.reused, counts.upserted, counts.deleted) == (1, 4, 5, 3)
    assert lines(index) == fresh(index, database)


def test_a_sync_that_loses_postgres_in_the_middle_leaves_the_old_version(
    index: Index, database: FreshDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_module, "_SLICE", 2)
    index.write({"apples.md": APPLES})
    before = lines(index)
    index.corpus.write({"pears.md": PEARS, "plums.md": "Plums are blue.\n\nPlums are small."})

    def cut(done: int, of: int) -> None:
        if done == of:
            with psycopg.connect(database.admin_url, autocommit=True) as admin:
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE usename = 'llmops_worker' AND datname = current_database()"
                )

    with pytest.raises(ServiceUnavailable, match="Try again"):
        index.sync(progress=cut)
    assert lines(index) == before

    counts = index.sync()
    assert (counts.embedded, counts.reused, counts.upserted, counts.deleted) == (0, 4, 4, 3)
    assert lines(index) == fresh(index, database)


def test_a_vector_index_that_was_interrupted_is_built_by_the_next_sync(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.corpus.write({"apples.md": APPLES})

    def die(*arguments: Any) -> None:
        raise RuntimeError("killed before CREATE INDEX")

    monkeypatch.setattr(sync_module, "build_vectors", die)
    with pytest.raises(RuntimeError):
        index.sync()
    monkeypatch.undo()
    assert not find_generation(index.url, index.id).vector_index

    assert index.sync().upserted == 0
    assert find_generation(index.url, index.id).vector_index


def test_of_eight_syncs_at_once_one_works_and_the_others_find_nothing(index: Index) -> None:
    index.embedder = HashEmbedder(before=lambda texts: time.sleep(0.3))
    index.corpus.write({"apples.md": APPLES, "pears.md": PEARS})

    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda _: index.sync(), range(8)))

    version = index.corpus.table.version()
    assert sorted(counts, key=lambda c: -c.upserted) == [
        SyncCounts(embedded=5, upserted=5, version=version),
        *[SyncCounts(version=version)] * 7,
    ]
    assert len(index.embedder.history) == 5
    assert find_generation(index.url, index.id).fence == 1


def test_a_worker_that_slept_while_its_retry_finished_is_refused(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.corpus.write({"apples.md": APPLES})
    monkeypatch.setattr(
        sync_module, "_lock", lambda *arguments: None
    )  # as if its lock had been taken from it

    def sleep_while_the_retry_works(texts: Sequence[str]) -> None:
        if len(sleeper.history) == 0:
            index.corpus.write({"pears.md": PEARS})
            index.sync()

    sleeper = HashEmbedder(before=sleep_while_the_retry_works)
    with pytest.raises(WriteConflict, match="thrown away"):
        sync(index.url, index.id, index.corpus.table, sleeper)
    assert {row[0] for row in rows(index, "path")} == {"pears.md"}


def test_postgres_takes_the_lock_from_a_worker_that_sends_nothing(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_module, "_IDLE_LIMIT", "300ms")
    index.corpus.write({"apples.md": APPLES})
    stopped = threading.Event()

    def hang(texts: Sequence[str]) -> None:
        stopped.wait(30)

    sleeper = HashEmbedder(before=hang)
    with ThreadPoolExecutor(1) as pool:
        asleep = pool.submit(sync, index.url, index.id, index.corpus.table, sleeper)
        time.sleep(0.2)
        assert index.sync(wait_seconds=30).upserted == 3
        stopped.set()
        assert asleep.exception() is not None
    assert find_generation(index.url, index.id).fence == 1


def test_a_reader_sees_each_document_wholly_old_or_wholly_new(index: Index) -> None:
    def texts(round_: int) -> dict[str, str]:
        return {
            f"{i}.md": "\n\n".join(f"Part {part} of document {i}, edition {round_}." for part in range(5))
            for i in range(20)
        }

    index.write(texts(0))
    seen, stop = [], threading.Event()

    def poll() -> None:
        with psycopg.connect(index.database.url("llmops_serving"), autocommit=True) as connection:
            while not stop.is_set():
                seen.append(
                    connection.execute(
                        f"SELECT path, count(*), count(DISTINCT document_version) FROM generation_{index.id} "
                        "GROUP BY path"
                    ).fetchall()
                )

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(poll)
        for round_ in range(1, 8):
            index.write(texts(round_))
        stop.set()
        reader.result()
    assert len(seen) > 10
    for documents in seen:
        assert sorted(documents) == sorted((f"{i}.md", 5, 1) for i in range(20))


def test_a_chunks_table_made_again_is_compared_as_a_whole(index: Index) -> None:
    index.write({"apples.md": APPLES, "pears.md": PEARS})
    version = index.corpus.table.version()
    shutil.rmtree(index.corpus.root)
    again = Corpus(index.corpus.root, index.url)
    again.write({"pears.md": PEARS})
    assert again.table.version() == version

    counts = index.sync()

    assert (counts.embedded, counts.upserted, counts.deleted) == (0, 0, 3)
    assert {row[0] for row in rows(index, "path")} == {"pears.md"}


def test_a_lost_change_feed_costs_a_full_comparison_that_writes_only_differences(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.write({"apples.md": APPLES, "pears.md": PEARS})
    before = {row[0]: row[1] for row in rows(index, "chunk_id", "xmin::text")}
    index.corpus.write({"apples.md": "Apples are gone.", "pears.md": PEARS})
    monkeypatch.setattr(type(index.corpus.table), "_feed", lambda *arguments: None)

    counts = index.sync()

    assert (counts.embedded, counts.upserted, counts.deleted) == (1, 1, 3)
    after = {row[0]: row[1] for row in rows(index, "chunk_id", "xmin::text")}
    kept = before.keys() & after.keys()
    assert len(kept) == 2
    assert all(before[key] == after[key] for key in kept)


def test_a_missing_chunks_table_is_named_and_the_index_stays(index: Index) -> None:
    index.write({"apples.md": APPLES})
    shutil.rmtree(index.corpus.root)
    with pytest.raises(MissingInput, match="ingest_documents"):
        index.sync()
    assert len(rows(index, "path")) == 3


def test_an_unknown_generation_is_named(index: Index) -> None:
    with pytest.raises(MissingInput, match="nothing_here"):
        sync(index.url, "nothing_here", index.corpus.table, index.embedder)


def test_unusual_characters_survive(index: Index) -> None:
    strange = "NUL \0 here\n\n\N{PILE OF POO} \\. \t 'quoted' \"twice\" \N{RIGHT-TO-LEFT OVERRIDE}"
    index.write({"strange; DROP TABLE x.md": strange})
    assert [row[0] for row in rows(index, "text")] == strange.replace(
        "\0", "\N{REPLACEMENT CHARACTER}"
    ).split("\n\n")


def test_ids_of_generations_depend_on_everything_that_makes_them() -> None:
    from llmops.index import generation_id

    ids = {
        generation_id(*arguments)
        for arguments in [
            ("guide", "f", "c", "dev"),
            ("other", "f", "c", "dev"),
            ("guide", "g", "c", "dev"),
            ("guide", "f", "d", "dev"),
            ("guide", "f", "c", "prod"),
        ]
    }
    assert len(ids) == 5
    assert generation_id("guide", "f", "c", "dev") == generation_id("guide", "f", "c", "dev")
    assert len(f"generation_{generation_id('a' * 40, 'f', 'c', 'dev')}_doc") <= 63
