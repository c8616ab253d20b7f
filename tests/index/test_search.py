from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from index.conftest import Index
from llmops.errors import ConfigurationError, EmbedderMismatch, MissingInput
from llmops.index import EVERYTHING, Hit, require_fingerprint, search

LIBRARY = {
    "psycopg_pool.ConnectionPool.md": "A ConnectionPool lends them.\n\nOpen the pool before its first use.",
    "psycopg.Cursor.md": "A cursor executes a query.\n\nClose the cursor, or use it in a with block.",
    "deltalake.DeltaTable.md": "A DeltaTable reads versions of a table.\n\nVacuum removes old files.",
    "airflow.sdk.dag.md": "A dag has tasks.\n\nTasks of a dag run in the order of their dependencies.",
}
MALICIOUS = [
    "'; DROP TABLE index_generations; --",
    "\\'; SELECT pg_sleep(60); --",
    "cursor' | !(x) & <-> ':*",
    "%s %(question)s {0} {content}",
    "$1; COMMIT; DELETE FROM answer_log",
    "\0 cursor \udcff",
    "E'\\\\' \\",
    "a:* & ! ( | )",
]


@pytest.fixture
def library(index: Index) -> Index:
    index.write(LIBRARY, source="libraries", metadata={"tenant": "a", "tags": ["api", "new"]})
    index.write(
        {"secret.md": "The cursor of tenant b is secret."}, source="private", metadata={"tenant": "b"}
    )
    return index


@pytest.fixture
def serving(library: Index) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(library.database.url("llmops_serving"), autocommit=True) as connection:
        yield connection


def ask(
    index: Index, connection: psycopg.Connection[Any], question: str, top_k: int = 3, **options: Any
) -> list[Hit]:
    vector = index.embedder.embed([question])[0]
    return search(connection, index.id, question, vector, top_k=top_k, candidates=20, **options)


@pytest.mark.parametrize("mode", ["hybrid", "dense", "keyword"])
def test_every_mode_finds_the_chunk_that_shares_the_question_s_words(
    library: Index, serving: psycopg.Connection[Any], mode: str
) -> None:
    hits = ask(library, serving, "open the pool before its first use", mode=mode)
    assert hits[0].path == "psycopg_pool.ConnectionPool.md"
    assert hits[0].text == "Open the pool before its first use."
    assert hits[0].heading_path == ("psycopg_pool.ConnectionPool",)
    assert hits[0].position == 1
    assert hits[0].chunk_id in {row["chunk_id"] for row in library.corpus.table.read().to_pylist()}
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_a_person_s_question_matches_by_any_of_its_words(
    library: Index, serving: psycopg.Connection[Any]
) -> None:
    question = "Could you please tell me how one would vacuum something nowadays?"
    assert ask(library, serving, question, mode="keyword")[0].path == "deltalake.DeltaTable.md"


@pytest.mark.parametrize(
    "question", ["connection pool", "ConnectionPool", "psycopg_pool.ConnectionPool", "POOL"]
)
def test_identifiers_are_found_as_a_whole_and_in_parts(
    library: Index, serving: psycopg.Connection[Any], question: str
) -> None:
    assert ask(library, serving, question, mode="keyword")[0].path == "psycopg_pool.ConnectionPool.md"


def test_a_rare_word_outweighs_a_frequent_one(index: Index) -> None:
    common = {f"{i}.md": f"The table number {i} is a table beside a table." for i in range(30)}
    index.write({**common, "rare.md": "A walrus sits at the table."})
    with psycopg.connect(index.url) as connection:
        hits = search(connection, index.id, "table walrus", None, top_k=2, candidates=20, mode="keyword")
    assert hits[0].path == "rare.md"
    assert hits[0].score > 2 * hits[1].score


def test_hybrid_hits_carry_the_reciprocal_ranks_of_both_lists(
    library: Index, serving: psycopg.Connection[Any]
) -> None:
    question = "close the cursor"
    options: dict[str, Any] = {"top_k": 20}
    dense = [hit.chunk_id for hit in ask(library, serving, question, mode="dense", **options)]
    words = [hit.chunk_id for hit in ask(library, serving, question, mode="keyword", **options)]
    expected = {
        chunk: sum(1 / (61 + found.index(chunk)) for found in (dense, words) if chunk in found)
        for chunk in {*dense, *words}
    }
    hits = ask(library, serving, question, mode="hybrid", **options)
    assert {hit.chunk_id: pytest.approx(hit.score) for hit in hits} == expected
    assert [hit.chunk_id for hit in hits] == sorted(expected, key=lambda chunk: (-expected[chunk], chunk))


def test_dense_scores_are_cosine_similarities(library: Index, serving: psycopg.Connection[Any]) -> None:
    question = "versions of a table"
    vector = library.embedder.embed([question])[0]
    for hit in ask(library, serving, question, mode="dense"):
        expected = library.embedder.embed([f"{hit.title}\n{hit.text}"])[0] @ vector
        assert hit.score == pytest.approx(float(expected), abs=1e-5)


def test_a_question_without_a_word_finds_nothing_by_words_and_something_by_vector(
    library: Index, serving: psycopg.Connection[Any]
) -> None:
    for question in ("", "???", "the of and", "xyzzy"):
        assert ask(library, serving, question, mode="keyword") == []
        assert len(ask(library, serving, question)) == 3


@pytest.mark.parametrize("mode", ["hybrid", "dense", "keyword"])
def test_filters_let_nothing_else_through(
    library: Index, serving: psycopg.Connection[Any], mode: str
) -> None:
    for filters in (
        {"source": ["libraries"]},
        {"tenant": ["a"]},
        {"tenant": ["a", "c"], "source": ["libraries", "private"]},
        {"tags": ["old", "new"]},
        {"path": list(LIBRARY)},
    ):
        hits = ask(library, serving, "the secret cursor of tenant b", top_k=20, mode=mode, filters=filters)
        assert hits
        assert {hit.source for hit in hits} == {"libraries"}


def test_filters_that_exclude_everything_find_nothing(
    library: Index, serving: psycopg.Connection[Any]
) -> None:
    for filters in (
        {"source": []},
        {"tenant": []},
        {"tenant": ["b"], "source": ["libraries"]},
        {"nothing": ["a"]},
        {"document_id": ["unknown"]},
        {"tenant": ["' OR true --"]},
    ):
        assert ask(library, serving, "cursor", filters=filters) == []


def test_a_narrow_filter_still_finds_its_chunks_among_many(index: Index) -> None:
    crowd = {f"{i}.md": f"The cursor number {i} executes a query." for i in range(1500)}
    index.write(crowd, source="crowd", metadata={"tenant": "a"})
    index.write({"mine.md": "Gardens need water."}, source="mine", metadata={"tenant": "b"})
    with psycopg.connect(index.database.url("llmops_serving")) as connection:
        connection.execute("SET enable_seqscan = off")  # so that the vectors' own index has to find it
        for filters in ({"source": ["mine"]}, {"tenant": ["b"]}):
            hits = ask(index, connection, "the cursor executes a query", mode="dense", filters=filters)
            assert [hit.path for hit in hits] == ["mine.md"]


def test_questions_filters_and_names_are_never_sql(library: Index, serving: psycopg.Connection[Any]) -> None:
    options: dict[str, Any] = {"top_k": 20, "candidates": 20}
    vector = library.embedder.embed(["cursor"])[0]
    for text in MALICIOUS:
        search(serving, library.id, text, vector, **options)
        search(serving, library.id, text, None, mode="keyword", **options)
        for key in ("source", "path", "document_id", "tenant"):
            assert search(serving, library.id, text, vector, filters={key: [text]}, **options) == []
        with pytest.raises(ConfigurationError, match="filter key"):
            search(serving, library.id, text, vector, filters={text: ["a"]}, **options)
        with pytest.raises(ConfigurationError, match="generation id"):
            search(serving, text, "cursor", vector, **options)
        assert len(ask(library, serving, "cursor", top_k=20)) == 9


def test_values_out_of_bounds_are_refused(library: Index, serving: psycopg.Connection[Any]) -> None:
    wrong: list[dict[str, Any]] = [
        {"top_k": 0},
        {"top_k": -1},
        {"top_k": 10**9},
        {"candidates": 201},
        {"mode": "both"},
        {"filters": {"source": "libraries"}},
        {"filters": {"source": ["x"] * 1001}},
        {"filters": {f"key{i}": ["x"] for i in range(11)}},
        {"vector": None},
        {"vector": [float("nan")] * 32},
    ]
    for change in wrong:
        options = {"top_k": 3, "candidates": 20, "vector": [0.1] * 32, **change}
        vector = options.pop("vector")
        with pytest.raises(ConfigurationError):
            search(serving, library.id, "cursor", vector, **options)


def test_a_question_of_ten_megabytes_is_cut_not_ranked(
    library: Index, serving: psycopg.Connection[Any]
) -> None:
    options: dict[str, Any] = {"top_k": 1, "candidates": 5, "mode": "keyword"}
    assert search(serving, library.id, "cursor " + "of " * 3_000_000, None, **options)
    assert search(serving, library.id, "of " * 3_000_000 + "cursor", None, **options) == []


def test_a_vector_of_another_dimension_is_refused_with_both_numbers(
    library: Index, serving: psycopg.Connection[Any]
) -> None:
    with pytest.raises(EmbedderMismatch, match=r"16 dimensions.* 32"):
        search(serving, library.id, "cursor", [0.1] * 16, top_k=1, candidates=5)


def test_the_fingerprint_of_a_query_has_to_be_the_generation_s(
    library: Index, serving: psycopg.Connection[Any]
) -> None:
    require_fingerprint(serving, library.id, library.embedder.fingerprint)
    with pytest.raises(EmbedderMismatch, match="own embedder"):
        require_fingerprint(serving, library.id, "another")


def test_a_generation_that_does_not_exist_is_named(library: Index, serving: psycopg.Connection[Any]) -> None:
    with pytest.raises(MissingInput, match="nothing_here"):
        search(serving, "nothing_here", "cursor", None, top_k=1, candidates=5, mode="keyword")


def test_a_search_leaves_no_setting_behind(library: Index, serving: psycopg.Connection[Any]) -> None:
    ask(library, serving, "cursor")
    row = serving.execute(
        "SELECT current_setting('statement_timeout'), current_setting('hnsw.ef_search')"
    ).fetchone()
    assert row is not None
    assert row[0] == "0"
    assert row[1] in ("", "40")


def test_the_vector_index_is_used_and_agrees_with_an_exact_search(index: Index) -> None:
    words = [
        "apple",
        "pear",
        "plum",
        "cursor",
        "table",
        "query",
        "pool",
        "file",
        "tree",
        "stone",
        "water",
        "ice",
    ]
    documents = {
        f"{i}.md": f"{words[i % 12]} {words[i * 5 % 11]} {words[i * 7 % 9]} number {i}" for i in range(600)
    }
    index.write(documents)
    with psycopg.connect(index.database.url("llmops_serving")) as connection:
        question: dict[str, Any] = {"top_k": 10, "mode": "dense", "access": EVERYTHING}
        exact = ask(index, connection, "plum query water", **question)
        connection.execute("SET enable_seqscan = off")
        plan = connection.execute(
            f"EXPLAIN SELECT chunk_id FROM generation_{index.id} "
            "ORDER BY embedding::halfvec(32) <=> %s::halfvec(32) LIMIT 10",
            (str([0.1] * 32),),
        ).fetchall()
        assert "_vec" in str(plan)
        through_index = ask(index, connection, "plum query water", **question)
    assert [hit.score for hit in through_index] == pytest.approx([hit.score for hit in exact], abs=1e-6)
