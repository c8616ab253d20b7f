from __future__ import annotations

import random
import time
from collections.abc import Sequence

import psycopg
import pytest

from index.conftest import CHUNKER, Index, a_generation
from index.corpus import Corpus
from llmops.embedding import embed_cached
from llmops.errors import MissingInput
from llmops.index import create_generation, plan, sync
from support.hash_embedder import HashEmbedder


def test_a_plan_counts_what_has_vectors_and_the_tokens_of_what_has_not(index: Index) -> None:
    index.corpus.write({"a.md": "one two three\n\nfour five", "b.md": "six", "c.md": "six"}, source="docs")
    index.corpus.write({"b.md": "six"}, source="twin")
    index.corpus.write({"z.md": "not of this chunker"}, source="other", chunker="d" * 12)
    embed_cached(index.embedder, ["a\none two three"], index.url)
    index.embedder.max_tokens = 2

    made = plan(index.url, index.corpus.table, CHUNKER, index.embedder)

    assert (made.chunks, made.cached) == (5, 1)
    assert made.texts == 3  # "a / four five" is one, the two of b.md are one, and c.md
    assert made.tokens == 3 * 2
    assert made.tokens_per_second
    assert made.minutes == pytest.approx(made.tokens / made.tokens_per_second / 60)


def test_a_plan_measures_the_embedder_s_speed(index: Index) -> None:
    index.corpus.write({f"{i}.md": f"Text number {i} of some." for i in range(40)})

    def slow(texts: Sequence[str]) -> None:
        time.sleep(0.01 * len(texts))

    made = plan(index.url, index.corpus.table, CHUNKER, HashEmbedder(before=slow))
    assert made.tokens == 40 * 6
    assert made.tokens_per_second
    assert 200 < made.tokens_per_second < 600  # six tokens in ten milliseconds and a little


def test_when_everything_is_cached_nothing_is_measured_and_nothing_written(index: Index) -> None:
    index.write({"a.md": "one two three"})
    index.embedder.history.clear()
    made = plan(index.url, index.corpus.table, CHUNKER, index.embedder)
    assert (made.chunks, made.cached, made.tokens, made.tokens_per_second, made.minutes) == (1, 1, 0, None, 0)
    assert index.embedder.history == []


def test_a_plan_without_a_chunks_table_names_what_to_run(index: Index) -> None:
    with pytest.raises(MissingInput, match="ingest_documents"):
        plan(index.url, index.corpus.table, CHUNKER, index.embedder)


def test_the_planned_size_on_disk_is_near_the_real_one(index: Index, corpus: Corpus) -> None:
    chance = random.Random(5)
    vocabulary = [
        "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(3, 10))) for _ in range(9000)
    ]
    weights = [1 / (rank + 5) for rank in range(len(vocabulary))]

    def text() -> str:
        return "\n\n".join(" ".join(chance.choices(vocabulary, weights, k=140)) for _ in range(5))

    corpus.write({f"{i}.md": text() for i in range(400)}, metadata={"lang": "en"})
    embedder = HashEmbedder(dimension=384, name="large")
    embedder._one = lambda text: HashEmbedder(384, text)._one("x")  # type: ignore[method-assign]
    made = plan(index.url, corpus.table, CHUNKER, embedder)
    generation = a_generation(embedder)
    create_generation(index.url, generation)
    sync(index.url, generation.id, corpus.table, embedder)
    with psycopg.connect(index.database.admin_url, autocommit=True) as connection:
        name = f"generation_{generation.id}"
        connection.execute(f"VACUUM {name}")
        row = connection.execute("SELECT pg_table_size(%s), pg_indexes_size(%s)", (name, name)).fetchone()
    assert row is not None
    assert made.table_bytes == pytest.approx(row[0], rel=0.2)
    assert made.index_bytes == pytest.approx(row[1], rel=0.35)
    assert made.bytes == made.table_bytes + made.index_bytes
