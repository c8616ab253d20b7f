from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from index.conftest import Index, a_generation
from index.corpus import Corpus
from llmops.errors import ServiceUnavailable
from llmops.index import _sync as sync_module
from llmops.index import create_generation, dump, find_generation, follow, sync
from llmops.stack import EmbeddedPostgres
from support.hash_embedder import HashEmbedder
from support.services import FreshDatabase

BATCH, SLICE = 12, 4


def old_texts() -> dict[str, str]:
    return {f"{i:02}.md": f"Old text {i}.\n\nIt has two parts {i}." for i in range(30)}


def new_texts() -> dict[str, str]:
    kept = {path: text for path, text in old_texts().items() if path < "08.md"}
    changed = {f"{i:02}.md": f"New text {i}.\n\nIt has a part {i}.\n\nAnd another {i}." for i in range(8, 24)}
    added = {f"{i:02}.md": f"Added {i}.\n\nTo the rest {i}.\n\nOf them {i}." for i in range(40, 60)}
    return {**kept, **changed, **added}


def allowed() -> dict[str, set[tuple[str, ...]]]:
    """Return, per path, the texts of all its chunks that a reader may see: the old ones, or the new ones."""
    found: dict[str, set[tuple[str, ...]]] = {}
    for texts in (old_texts(), new_texts()):
        for path, text in texts.items():
            found.setdefault(path, set()).add(tuple(sorted(text.split("\n\n"))))
    return found


@contextmanager
def watching(url: str, generation_id: str, *, loaded: bool = True) -> Iterator[None]:
    """Read all documents over and over while the block lasts: each is old or new, and there if it was ``loaded``."""
    torn: list[str] = []
    polls, over, whole = [0], threading.Event(), allowed()
    always = {path for path in old_texts() if loaded and path in new_texts()}

    def poll() -> None:
        while not over.is_set():
            try:
                with psycopg.connect(url, autocommit=True) as connection:
                    while not over.is_set():
                        query = f"SELECT path, array_agg(text) FROM generation_{generation_id} GROUP BY path"
                        seen = dict(connection.execute(query).fetchall())
                        torn.extend(p for p, texts in seen.items() if tuple(sorted(texts)) not in whole[p])
                        torn.extend(always - seen.keys())
                        polls[0] += 1
            except psycopg.OperationalError:
                time.sleep(0.02)

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(poll)
        try:
            yield
        finally:
            over.set()
        reader.result()
    assert polls[0] > 5
    assert torn == []


def start(task: str, index: Index, history: Path, *switches: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "index.killed", task, index.url, index.id, str(index.corpus.root)]
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": "/usr/bin:/bin"}
    return subprocess.Popen(
        [*command, str(history), *switches], env=environment, stdout=subprocess.PIPE, text=True
    )


def read_until(process: subprocess.Popen[str], stop: Callable[[str], bool]) -> str:
    assert process.stdout
    for line in process.stdout:
        if stop(line):
            return line
    raise AssertionError(f"the process ended with {process.wait()}")


def nth(number: int) -> Callable[[str], bool]:
    """Return a condition that holds at the ``number``th line of what the process does."""
    left = [number]

    def reached(line: str) -> bool:
        left[0] -= not line.startswith("ready")
        return left[0] <= 0

    return reached


def assert_equal_to_an_undisturbed_run(index: Index) -> None:
    known = find_generation(index.url, index.id)
    assert (known.watermark, known.vector_index) == (index.corpus.table.version(), True)
    generation = a_generation(index.embedder, assistant="undisturbed")
    create_generation(index.url, generation)
    sync(index.url, generation.id, index.corpus.table, index.embedder)
    assert list(dump(index.url, index.id)) == list(dump(index.url, generation.id))
    with psycopg.connect(index.url) as connection:
        for query in (
            "SELECT chunk_id, embedding::text, search::text FROM generation_{} ORDER BY chunk_id",
            "SELECT word, chunks FROM words_{} ORDER BY word",
        ):
            one, other = (connection.execute(query.format(i)).fetchall() for i in (index.id, generation.id))
            assert one == other
    assert (
        find_generation(index.url, generation.id).chunks
        == known.chunks
        == len(list(dump(index.url, index.id)))
    )


def assert_hardly_anything_was_embedded_twice(history: Path, kills: int) -> None:
    lines = history.read_text().splitlines()
    assert len(set(lines)) == 108  # the 48 chunks that changed and the 60 that came
    assert len(lines) - len(set(lines)) <= kills * SLICE


@pytest.mark.parametrize("task", ["sync", "follow"])
def test_a_process_killed_three_times_ends_where_an_undisturbed_one_does(
    index: Index, tmp_path: Path, task: str
) -> None:
    index.write(old_texts())
    index.corpus.write(new_texts())
    chance, history = random.Random(f"three kills of {task}"), tmp_path / "history"
    with watching(index.database.url("llmops_serving"), index.id):
        for _ in range(3):
            process = start(task, index, history)
            read_until(process, nth(chance.randint(2, 14)))
            time.sleep(chance.uniform(0, 0.01))
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert find_generation(index.url, index.id).watermark != index.corpus.table.version()
        process = start(task, index, history)
        wait_until(lambda: find_generation(index.url, index.id).watermark == index.corpus.table.version())
        if task == "follow":
            process.send_signal(signal.SIGKILL)
        process.wait()
    assert_hardly_anything_was_embedded_twice(history, kills=3)
    assert_equal_to_an_undisturbed_run(index)
    index.embedder.history.clear()
    assert index.sync().upserted == 0
    assert index.embedder.history == []


@pytest.mark.parametrize("switch", ["no lock", "short idle"])
def test_a_process_that_was_stopped_writes_nothing_once_another_has_finished(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switch: str
) -> None:
    monkeypatch.setattr(sync_module, "_BATCH", BATCH)
    index.write(old_texts())
    index.corpus.write(new_texts())
    process = start("sync", index, tmp_path / "history", switch)
    read_until(process, nth(9))
    process.send_signal(signal.SIGSTOP)
    index.sync(wait_seconds=30)
    finished = list(dump(index.url, index.id)), find_generation(index.url, index.id)
    process.send_signal(signal.SIGCONT)
    last = read_until(process, lambda line: line.startswith(("done", "refused")))
    process.wait()
    refusal = "WriteConflict" if switch == "no lock" else "ServiceUnavailable"
    assert last.startswith(f"refused {refusal}")
    assert (list(dump(index.url, index.id)), find_generation(index.url, index.id)) == finished
    assert_equal_to_an_undisturbed_run(index)


@pytest.fixture
def slow_commits(scratch: Path) -> Iterator[EmbeddedPostgres]:
    """A server of its own whose commits take 50 ms, long enough to be killed in one."""
    server = EmbeddedPostgres(scratch / "killed", settings={"commit_delay": "50000", "commit_siblings": "0"})
    try:
        server.start()
        server.set_up()
        yield server
    finally:
        server.destroy()


def test_a_follower_outlives_three_deaths_of_postgres_in_the_middle_of_its_work(
    slow_commits: EmbeddedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = slow_commits
    monkeypatch.setattr(sync_module, "_BATCH", BATCH)
    embedder = HashEmbedder()
    generation = a_generation(embedder)
    url = server.url("llmops_worker")
    create_generation(url, generation)
    index = Index(FreshDatabase(server, "llmops"), Corpus(tmp_path / "lake", url), embedder, generation)
    sync_module_write, copy = sync_module.write_batch, sync_module.write_batch.__globals__["copy_stream"]
    moments: list[str] = []

    def kill(moment: str) -> None:
        moments.append(moment)
        assert server._process
        server._process.kill()
        server._process.wait()
        server._process = None
        server.start()

    def copying(rows: Any, vectors: Any) -> Iterator[bytes]:
        pieces = list(copy(rows, vectors))
        yield b"".join(pieces[:-1])[: 3 * sum(map(len, pieces)) // 4]
        if not moments:
            kill("COPY")
        yield b"".join(pieces)[3 * sum(map(len, pieces)) // 4 :]

    def writing(connection: Any, known: Any, batch: Any, standing: Any) -> Any:
        if len(moments) == 1 and known.done_through:
            with ThreadPoolExecutor(1) as pool:
                killer = pool.submit(kill_in, "COMMIT", connection.info.backend_pid)
                try:
                    return sync_module_write(connection, known, batch, standing)
                finally:
                    killer.result()
        return sync_module_write(connection, known, batch, standing)

    def kill_in(statement: str, pid: int) -> None:
        with psycopg.connect(server.admin_url, autocommit=True) as admin:
            query = "SELECT query FROM pg_stat_activity WHERE pid = %s AND state = 'active'"
            wait_until(lambda: statement in str(admin.execute(query, (pid,)).fetchone()), pause=0)
        kill(statement)

    def building(url: str, connection: Any, known: Any, progress: Any) -> None:
        with ThreadPoolExecutor(1) as pool:
            if len(moments) == 2:
                killer = pool.submit(kill_in, "index_generation_vectors", connection.info.backend_pid)
            try:
                build(url, connection, known, progress)
            finally:
                if len(moments) == 2:
                    killer.result()

    build = sync_module.build_vectors
    monkeypatch.setitem(sync_module.write_batch.__globals__, "copy_stream", copying)
    monkeypatch.setattr(sync_module, "write_batch", writing)
    monkeypatch.setattr(sync_module, "build_vectors", building)
    index.corpus.write(new_texts())
    stop = threading.Event()
    with watching(server.url("llmops_serving"), index.id, loaded=False), ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            follow, url, lambda _: index.corpus.table, lambda _: embedder, stop=stop, poll_seconds=0.05
        )
        try:
            wait_until(lambda: settled(url, index), seconds=50)
        finally:
            stop.set()
        running.result()
    assert moments == ["COPY", "COMMIT", "index_generation_vectors"]
    monkeypatch.undo()
    assert_equal_to_an_undisturbed_run(index)
    with psycopg.connect(server.admin_url.replace("/postgres?", "/llmops?")) as admin:
        invalid = admin.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid").fetchone()
    assert invalid == (0,)


def settled(url: str, index: Index) -> bool:
    try:
        return find_generation(url, index.id).vector_index
    except (ServiceUnavailable, psycopg.OperationalError):
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 30, pause: float = 0.05) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(pause)
