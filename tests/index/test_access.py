from __future__ import annotations

from collections.abc import Collection, Iterator
from importlib import resources
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from index.conftest import Index
from index.test_search import MALICIOUS
from llmops.errors import ConfigurationError, IntegrityError
from llmops.index import EVERYTHING, Hit, Mode, search
from llmops.lakehouse import LakeTable

TENANTS = {f"team:{name}": f"The salary list of {name} is secret." for name in ("red", "blue", "green")}
MODES: tuple[Mode, ...] = ("hybrid", "dense", "keyword")


@pytest.fixture
def tenants(index: Index) -> Index:
    for tag, text in TENANTS.items():
        index.write({"salaries.md": text}, source=tag, access=[tag, "team:all"])
    index.write({"welcome.md": "Every salary is paid in the first week."}, source="public")
    index.write({"board.md": "The salary of the board."}, source="board", access=["board"])
    return index


@pytest.fixture
def serving(tenants: Index) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(tenants.database.url("llmops_serving"), autocommit=True) as connection:
        yield connection


def ask(index: Index, connection: psycopg.Connection[Any], question: str, **options: Any) -> list[Hit]:
    vector = index.embedder.embed([question])[0]
    return search(connection, index.id, question, vector, top_k=50, candidates=50, **options)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("tag", TENANTS)
def test_a_tenant_that_asks_for_the_words_of_another_finds_none_of_its_chunks(
    tenants: Index, serving: psycopg.Connection[Any], tag: str, mode: Mode
) -> None:
    for text in TENANTS.values():
        hits = ask(tenants, serving, text, mode=mode, access=[tag])
        assert {hit.source for hit in hits} == {"public", tag}


@pytest.mark.parametrize("mode", MODES)
def test_without_tags_only_public_chunks_are_found(
    tenants: Index, serving: psycopg.Connection[Any], mode: Mode
) -> None:
    for text in TENANTS.values():
        assert [hit.source for hit in ask(tenants, serving, text, mode=mode)] == ["public"]


@pytest.mark.parametrize("mode", MODES)
def test_one_tag_of_a_chunk_is_enough_and_everything_has_to_be_asked_for_by_name(
    tenants: Index, serving: psycopg.Connection[Any], mode: Mode
) -> None:
    def found(access: Any) -> set[str]:
        return {hit.source for hit in ask(tenants, serving, "salary", mode=mode, access=access)}

    assert found({"team:all"}) == {"public", *TENANTS}
    assert found(("team:red", "board")) == {"public", "board", "team:red"}
    assert found(EVERYTHING) == {"public", "board", *TENANTS}


HOSTILE = [
    *MALICIOUS,
    *("", "{}", "*", "%", "team:", "team:%", "TEAM:RED", "team:red ", " team:red", "team:red,team:blue"),
    *(
        "{team:red}",
        "team:red\0",
        "team:re\udcffd",
        "NULL",
        "everything",
        "' OR true --",
        "}'::text[] OR true --",
    ),
]


@pytest.mark.parametrize("mode", MODES)
def test_hostile_tags_open_nothing(tenants: Index, serving: psycopg.Connection[Any], mode: Mode) -> None:
    for tag in [[text] for text in HOSTILE] + [HOSTILE]:
        hits = ask(tenants, serving, "the salary list is secret", mode=mode, access=tag)
        assert {hit.source for hit in hits} == {"public"}


@pytest.mark.parametrize("mode", MODES)
def test_a_filter_cannot_widen_what_the_tags_allow(
    tenants: Index, serving: psycopg.Connection[Any], mode: Mode
) -> None:
    for filters in ({"source": list(TENANTS)}, {"path": ["salaries.md"]}):
        assert ask(tenants, serving, "salary", mode=mode, filters=filters) == []
        own = ask(tenants, serving, "salary", mode=mode, filters=filters, access=["team:red"])
        assert {hit.source for hit in own} == {"team:red"}


def test_what_is_no_collection_of_tags_is_refused(tenants: Index, serving: psycopg.Connection[Any]) -> None:
    wrong: list[Any] = ["team:red", None, 5, [None], [["team:red"]], [str(i) for i in range(1001)], True]
    for access in wrong:
        with pytest.raises(ConfigurationError, match="access"):
            ask(tenants, serving, "salary", access=access)


def test_tags_that_change_are_followed_without_embedding_anything(
    tenants: Index, serving: psycopg.Connection[Any]
) -> None:
    def sources(access: Collection[str]) -> set[str]:
        return {hit.source for hit in ask(tenants, serving, "the salary of the board", access=access)}

    texts = {"board.md": "The salary of the board."}
    counts = tenants.write(texts, source="board", access=["team:red"])
    assert (counts.embedded, counts.upserted) == (0, 1)
    assert "board" not in sources(["board"])
    assert "board" in sources(["team:red"])
    counts = tenants.write(texts, source="board", metadata={"lang": "en"})
    assert (counts.embedded, counts.upserted) == (0, 1)
    assert "board" in sources(())


@pytest.mark.parametrize("written", [None, "", "staff", '"staff"', "{}", "[1]", '[""]', "[null]"])
def test_tags_that_cannot_be_read_never_become_public(index: Index, written: str | None) -> None:
    index.write({"a.md": "Apples."}, access=["staff"])
    broken = index.corpus.table.read().to_pylist()
    for row in broken:
        row["access"] = written
    table = LakeTable(str(index.corpus.root), "chunks")
    schema = index.corpus.table.read().schema
    table.merge(pa.Table.from_pylist(broken, schema=schema), key="chunk_id", database_url=index.url)
    with pytest.raises(IntegrityError, match=r"a\.md.*as access"):
        index.sync()
    with psycopg.connect(index.url) as connection:
        held = connection.execute(f"SELECT access FROM generation_{index.id}").fetchall()
    assert held == [(["staff"],)]


def test_generations_from_before_tags_were_known_are_public_until_the_next_sync(index: Index) -> None:
    migration = _migration()
    index.write({"a.md": "Apples."}, access=["staff"])
    with psycopg.connect(index.database.url("llmops_owner")) as connection:
        name = f"generation_{index.id}"
        connection.execute(f"ALTER TABLE {name} DROP COLUMN access")
        connection.execute(f"DROP INDEX {name}_met")
        connection.execute(migration)
        held = connection.execute(f"SELECT access, metadata FROM {name}").fetchall()
        indexes = connection.execute(
            "SELECT indexname FROM pg_indexes WHERE tablename = %s", (name,)
        ).fetchall()
    assert held == [([], {})]
    assert {(f"{name}_acc",), (f"{name}_met",)} <= set(indexes)


def _migration() -> str:
    """Return the part of the migration that alters generations that are there."""
    text = (resources.files("llmops") / "migrations" / "0007_index.sql").read_text("utf-8")
    start = text.index("DO $$")
    return text[start : text.index("$$;", start) + 3]
