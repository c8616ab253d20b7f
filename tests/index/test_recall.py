from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

from index.conftest import a_generation
from llmops.index import EVERYTHING, Generation, create_generation, find_generation, search
from llmops.index import _search as search_module
from llmops.index._rows import Row
from llmops.index._vectors import build_vectors
from llmops.index._write import Batch, Standing, write_batch
from llmops.stack import EmbeddedPostgres
from support.hash_embedder import HashEmbedder
from support.services import fresh_database

COUNT, DIMENSION, ASKED = 20_000, 48, 40
SHARES = {"all": 1.0, "third": 0.3, "tenth": 0.1, "hundredth": 0.01, "thousandth": 0.001}


@dataclass(frozen=True)
class Crowd:
    """Twenty thousand chunks in clusters, of which each share has its metadata and its tag."""

    url: str
    generation: Generation
    ids: NDArray[np.str_]
    vectors: NDArray[np.float32]
    questions: NDArray[np.float32]
    yes: dict[str, NDArray[np.bool_]]
    tagged: dict[str, NDArray[np.bool_]]

    def recall(self, passing: NDArray[np.bool_], **options: Any) -> float:
        """Return the share of the ten nearest that pass which a search finds; what does not pass is an error."""
        nearest = np.argsort(-(self.questions @ self.vectors[passing].T), axis=1)[:, :10]
        found = wanted = 0
        with psycopg.connect(self.url, autocommit=True) as connection:
            for question, places in zip(self.questions, nearest, strict=True):
                hits = search(
                    connection,
                    self.generation.id,
                    "",
                    question,
                    top_k=10,
                    candidates=50,
                    mode="dense",
                    **options,
                )
                ids = {hit.chunk_id for hit in hits}
                assert ids <= set(self.ids[passing])
                found += len(ids & set(self.ids[passing][places]))
                wanted += len(places)
        return found / wanted


def _unit(numbers: NDArray[Any]) -> NDArray[np.float32]:
    return (numbers / np.linalg.norm(numbers, axis=1, keepdims=True)).astype(np.float32)


def _row(i: int, source: str, metadata: dict[str, str], access: list[str]) -> Row:
    text = f"part {i % 97}"
    return (
        f"{i:032x}", f"{i // 4:032x}", "v", source, f"{i // 4}.md", "Crowd", text, "0" * 64,
        i % 4, 0, len(text), [], access, metadata,
    )  # fmt: skip


@pytest.fixture(scope="module")
def crowd(postgres: EmbeddedPostgres) -> Iterator[Crowd]:
    chance = np.random.default_rng(7)
    centres = chance.standard_normal((300, 16))
    spread = np.linalg.qr(chance.standard_normal((DIMENSION, 16)))[0].T
    near = centres[chance.integers(0, 300, COUNT)] + 0.6 * chance.standard_normal((COUNT, 16))
    vectors = _unit(near @ spread + 0.1 * chance.standard_normal((COUNT, DIMENSION)))
    questions = _unit(
        vectors[chance.integers(0, COUNT, ASKED)] + 0.05 * chance.standard_normal((ASKED, DIMENSION))
    )
    yes = {name: chance.random(COUNT) < share for name, share in SHARES.items()}
    tagged = {name: chance.random(COUNT) < share for name, share in SHARES.items()}
    # One half has a mark and the other comes from the east; twenty chunks have both, which no statistics of
    # single columns can tell.
    yes["marked"] = np.arange(COUNT) < COUNT // 2 + 20
    rows = [
        _row(
            i,
            "west" if i < COUNT // 2 else "east",
            {name: "yes" if chosen[i] else "no" for name, chosen in yes.items()},
            [name for name, chosen in tagged.items() if chosen[i]],
        )
        for i in range(COUNT)
    ]
    with fresh_database(postgres) as database:
        url = database.url("llmops_worker")
        generation = replace(a_generation(HashEmbedder(DIMENSION)), id="crowd")
        create_generation(url, generation)
        known = find_generation(url, "crowd")
        with psycopg.connect(url, autocommit=True) as connection:
            for start in range(0, COUNT, 5000):
                batch = Batch(rows[start : start + 5000], vectors[start : start + 5000])
                known = write_batch(connection, known, batch, Standing(1, "lineage"))
            build_vectors(url, connection, known)
        ids = np.array([row[0] for row in rows])
        yield Crowd(database.url("llmops_serving"), generation, ids, vectors, questions, yes, tagged)


@pytest.mark.parametrize("name", SHARES)
def test_of_the_nearest_chunks_that_a_filter_lets_through_nearly_all_are_found(
    crowd: Crowd, name: str
) -> None:
    assert crowd.recall(crowd.yes[name], filters={name: ["yes"]}, access=EVERYTHING) >= 0.98


@pytest.mark.parametrize("name", SHARES)
def test_of_the_nearest_chunks_that_a_tag_opens_nearly_all_are_found(crowd: Crowd, name: str) -> None:
    public = ~np.any(list(crowd.tagged.values()), axis=0)
    assert crowd.recall(crowd.tagged[name] | public, access=[name]) >= 0.98


def test_a_guess_that_is_wrong_by_far_costs_no_hit(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    ways: list[bool] = []
    run = search_module._run

    def watched(connection: Any, asked: Any, values: Any, dimension: int, exact: bool) -> Any:
        ways.append(exact)
        return run(connection, asked, values, dimension, exact)

    monkeypatch.setattr(search_module, "_run", watched)
    monkeypatch.setattr(search_module, "_WALK_MOST", 200)
    both = crowd.yes["marked"] & (np.arange(COUNT) >= COUNT // 2)
    assert both.sum() == 20
    filters = {"marked": ["yes"], "source": ["east"]}
    assert crowd.recall(both, filters=filters, access=EVERYTHING) == 1.0
    assert ways[:2] == [False, True]  # walked, found too few, compared


def test_few_that_pass_are_compared_and_many_are_walked_to(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways: dict[str, bool] = {}
    for name in SHARES:

        def watched(
            connection: Any, asked: Any, values: Any, dimension: int, exact: bool, name: str = name
        ) -> Any:
            ways[name] = exact
            return []

        monkeypatch.setattr(search_module, "_run", watched)
        with psycopg.connect(crowd.url, autocommit=True) as connection:
            search(
                connection, "crowd", "", crowd.questions[0], top_k=1, candidates=50, mode="keyword",
                filters={name: ["yes"]}, access=EVERYTHING,
            )  # fmt: skip
    assert ways == {"all": False, "third": False, "tenth": True, "hundredth": True, "thousandth": True}
