from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from index.conftest import Index, a_generation
from index.corpus import Corpus
from llmops.embedding import Embedder
from llmops.heartbeat import Heartbeat
from llmops.index import Generation, create_generation, find_generation, follow, mark
from llmops.lakehouse import LakeTable
from llmops.stack import EmbeddedPostgres
from support.hash_embedder import HashEmbedder
from support.services import FreshDatabase


def _silent(**details: Any) -> None:
    """Beat without an endpoint."""


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def start(
    pool: ThreadPoolExecutor,
    index: Index,
    stop: threading.Event,
    beat: Callable[..., None] = _silent,
    **options: Any,
) -> Future[None]:
    def chunks_of(generation: Generation) -> LakeTable:
        return index.corpus.table

    url = options.pop("url", index.url)
    load = options.pop("load", None) or (lambda generation: index.embedder)
    return pool.submit(follow, url, chunks_of, load, stop=stop, beat=beat, poll_seconds=0.1)


@contextmanager
def following(index: Index, **options: Any) -> Iterator[None]:
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = start(pool, index, stop, **options)
        try:
            yield
        finally:
            stop.set()
        running.result(timeout=30)


def paths(index: Index) -> set[str]:
    with psycopg.connect(index.url) as connection:
        return {row[0] for row in connection.execute(f"SELECT path FROM generation_{index.id}").fetchall()}


def test_a_follower_brings_changes_into_the_index_within_seconds(index: Index) -> None:
    with following(index):
        index.corpus.write({"a.md": "Apples."})
        wait_until(lambda: paths(index) == {"a.md"})
        index.corpus.write({"b.md": "Pears."})
        wait_until(lambda: paths(index) == {"b.md"})
    assert find_generation(index.url, index.id).watermark == index.corpus.table.version()


def test_a_follower_waits_patiently_for_the_first_chunks_table(index: Index) -> None:
    details: list[dict[str, Any]] = []
    with following(index, beat=lambda **detail: details.append(detail)):
        wait_until(lambda: len(details) > 4)
    assert details[-1] == {"state": "following", "generations": 1, "failing": []}


def test_a_failing_generation_does_not_stop_the_others_and_is_tried_again(index: Index) -> None:
    broken = a_generation(HashEmbedder(name="broken"))
    create_generation(index.url, broken)
    attempts: list[str] = []

    def load(generation: Generation) -> Embedder | HashEmbedder:
        attempts.append(generation.id)
        if generation.id == broken.id and attempts.count(broken.id) < 2:
            raise RuntimeError("the registry lost it")
        return index.embedder if generation.id == index.id else HashEmbedder(name="broken")

    index.corpus.write({"a.md": "Apples."})
    with following(index, load=load):
        wait_until(lambda: find_generation(index.url, index.id).chunks == 1)
        wait_until(lambda: find_generation(index.url, broken.id).chunks == 1)
    assert attempts.count(index.id) == 1


def test_a_retired_generation_is_not_followed(index: Index) -> None:
    other = a_generation(HashEmbedder(name="other"))
    create_generation(index.url, other)
    mark(index.url, index.id, "retired")
    index.corpus.write({"a.md": "Apples."})
    with following(index, load=lambda generation: HashEmbedder(name="other")):
        wait_until(lambda: find_generation(index.url, other.id).chunks == 1)
    assert find_generation(index.url, index.id).chunks == 0


def test_a_second_follower_waits_and_takes_over_when_the_first_ends(index: Index) -> None:
    first, second = threading.Event(), threading.Event()
    states: dict[str, list[str]] = {"first": [], "second": []}
    with ThreadPoolExecutor(2) as pool:
        try:
            start(pool, index, first, lambda **details: states["first"].append(details["state"]))
            wait_until(lambda: "following" in states["first"])
            start(pool, index, second, lambda **details: states["second"].append(details["state"]))
            wait_until(lambda: len(states["second"]) > 3)
            assert set(states["second"]) == {"waiting for the other follower"}
            first.set()
            wait_until(lambda: "following" in states["second"])
        finally:
            first.set()
            second.set()


def test_a_follower_survives_the_loss_of_its_connections(index: Index) -> None:
    with following(index):
        for edition in range(3):
            with psycopg.connect(index.database.admin_url, autocommit=True) as admin:
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE usename = 'llmops_worker' AND datname = current_database()"
                )
            index.corpus.write({f"{edition}.md": "Apples."})
            wait_until(lambda edition=edition: paths(index) == {f"{edition}.md"})  # type: ignore[misc]


def test_a_follower_outlives_an_outage_of_postgres(scratch: Path, tmp_path: Path) -> None:
    server = EmbeddedPostgres(scratch / "outage", settings={"fsync": "off"})
    try:
        server.start()
        server.set_up()
        url = server.url("llmops_worker")
        embedder = HashEmbedder()
        generation = a_generation(embedder)
        create_generation(url, generation)
        corpus = Corpus(tmp_path / "lake", url)
        index = Index(FreshDatabase(server, "llmops"), corpus, embedder, generation)
        states: list[str] = []
        with following(index, beat=lambda **details: states.append(details["state"])):
            corpus.write({"a.md": "Apples."})
            wait_until(lambda: paths(index) == {"a.md"})
            server.stop()
            wait_until(lambda: states[-1] == "waiting for Postgres")
            server.start()
            corpus.write({"b.md": "Pears."})
            wait_until(lambda: paths(index) == {"b.md"})
    finally:
        server.destroy()


def test_the_health_endpoint_says_what_the_follower_does(index: Index) -> None:
    with Heartbeat("127.0.0.1", 0) as heartbeat, following(index, beat=heartbeat.beat):
        url = f"http://127.0.0.1:{heartbeat.port}/healthz"

        def answer() -> Any:
            with urllib.request.urlopen(url, timeout=5) as response:
                return json.load(response)

        wait_until(lambda: answer().get("state") == "following")
        assert answer()["healthy"] is True


def test_a_follower_stops_soon_when_asked_while_postgres_is_away(index: Index) -> None:
    stop = threading.Event()
    gone = "host=/nowhere/at/all dbname=llmops user=llmops_worker"
    states: list[str] = []

    def beat(**details: Any) -> None:
        states.append(details["state"])
        if len(states) == 3:
            stop.set()

    with ThreadPoolExecutor(1) as pool:
        start(pool, index, stop, beat, url=gone).result(timeout=30)
    assert states == ["waiting for Postgres"] * 3
    with pytest.raises(Exception, match="does not answer"):
        find_generation(gone, "x")
