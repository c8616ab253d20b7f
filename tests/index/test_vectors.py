from __future__ import annotations

import logging
import threading

import psycopg
import pytest

from index.conftest import Index
from llmops.index import _vectors as vectors_module
from llmops.index import find_generation, index_progress
from llmops.index._vectors import build_vectors


def indexes(index: Index) -> dict[str, bool]:
    with psycopg.connect(index.url) as connection:
        return dict(
            connection.execute(
                "SELECT indexrelid::regclass::text, indisvalid FROM pg_index WHERE indrelid = %s::regclass",
                (f"generation_{index.id}",),
            ).fetchall()
        )


def test_an_index_that_is_not_valid_is_dropped_and_built_again(index: Index) -> None:
    index.write({"a.md": "Apples.\n\nPears."})
    name = f"generation_{index.id}_vec16"
    with psycopg.connect(index.database.admin_url) as admin:
        admin.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass", (name,))
        admin.execute("UPDATE index_generations SET vector_index = false")
    assert indexes(index)[name] is False
    assert index.sync().upserted == 0
    assert indexes(index)[name] is True
    assert find_generation(index.url, index.id).vector_index


def test_an_index_from_before_is_replaced(index: Index) -> None:
    index.write({"a.md": "Apples.\n\nPears."})
    table = f"generation_{index.id}"
    with psycopg.connect(index.database.url("llmops_owner")) as owner:
        owner.execute(f"DROP INDEX {table}_vec16")
        owner.execute(f"CREATE INDEX {table}_vec ON {table} USING hnsw (embedding vector_cosine_ops)")
        owner.execute("UPDATE index_generations SET vector_index = false")
    index.sync()
    assert f"{table}_vec16" in indexes(index)
    assert f"{table}_vec" not in indexes(index)


@pytest.mark.parametrize("error", [psycopg.errors.DiskFull, psycopg.errors.OutOfMemory])
def test_without_shared_memory_the_index_is_built_by_one_process(
    index: Index, monkeypatch: pytest.MonkeyPatch, error: type[psycopg.Error]
) -> None:
    monkeypatch.setattr(vectors_module, "_BUILD", "SELECT pg_temp.build(%s, %s, %s)")
    index.corpus.write({"a.md": "Apples."})
    code = error.sqlstate
    with psycopg.connect(index.url, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION pg_temp.build(id text, workers int, free bigint) RETURNS void LANGUAGE plpgsql AS $$"
            f"BEGIN IF workers > 0 THEN RAISE EXCEPTION 'no room' USING ERRCODE = '{code}'; END IF; "
            "PERFORM set_config('test.built', id || ' ' || workers, false); END $$"
        )
        build_vectors(index.url, connection, find_generation(index.url, index.id))
        assert connection.execute("SELECT current_setting('test.built')").fetchone() == (f"{index.id} 0",)


def test_progress_is_reported_while_the_index_is_built(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors_module, "_POLL_SECONDS", 0.005)
    index.corpus.write({f"{i}.md": "\n\n".join(f"Part {k} of {i}." for k in range(10)) for i in range(150)})
    seen: list[tuple[int, int]] = []
    parts: list[float | None] = []
    asked = threading.Event()

    def progress(done: int, of: int) -> None:
        seen.append((done, of))
        if not asked.is_set():
            asked.set()
            parts.append(index_progress(index.url, index.id))

    index.sync(index_progress=progress)
    assert seen
    assert all(0 <= done <= of for done, of in seen)
    assert parts[0] is None or 0 <= parts[0] <= 1
    assert index_progress(index.url, index.id) is None


def test_an_index_larger_than_its_memory_is_announced(index: Index, caplog: pytest.LogCaptureFixture) -> None:
    index.write({"a.md": "Apples."})
    with psycopg.connect(index.database.url("llmops_owner")) as owner:
        owner.execute(f"DROP INDEX generation_{index.id}_vec16")
    with psycopg.connect(index.url, autocommit=True) as connection, caplog.at_level(logging.WARNING):
        connection.execute("SET llmops.index_memory = '1MB'")
        build_vectors(index.url, connection, find_generation(index.url, index.id))
    assert any("MB of memory" in message for message in caplog.messages)


def test_a_reader_does_not_wait_for_the_index(index: Index) -> None:
    index.write({"a.md": "Apples."})
    with psycopg.connect(index.database.url("llmops_owner")) as owner:
        owner.execute(f"DROP INDEX generation_{index.id}_vec16")
    with (
        psycopg.connect(index.url) as building,
        psycopg.connect(index.database.url("llmops_serving")) as reader,
    ):
        building.execute(vectors_module._BUILD, (index.id, 0, None))  # built, and not committed yet
        reader.execute("SET statement_timeout = '2s'")
        assert reader.execute(f"SELECT count(*) FROM generation_{index.id}").fetchone() == (1,)
