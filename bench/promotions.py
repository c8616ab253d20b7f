"""A hundred promotions and rollbacks while fifty distinct questions a second are asked, and what verifying costs.

A stack of its own with the service alone: two releases of one assistant are assembled, evaluated and gated as the
DAGs do it, approved with that stack's own notary key, and production moves between them under load. An answer is
wrong when it failed, came from a release that was not in production then, or used a chunk that the index of its
release does not hold.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from bench.figure import Figure

_MOVES = int(os.environ.get("LLMOPS_BENCH_MOVES", "100"))
_RATE = 50.0
_MOST_WAITING = 200


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="llmops-bench-") as folder:
        Path(folder).chmod(0o711)
        os.environ["LLMOPS_HOME"] = str(Path(folder) / "home")
        from llmops.stack import Stack

        stack = Stack(
            ports={name: 0 for name in ("airflow", "mlflow", "serving", "follower", "notary")},
            only=["serving"],
        )
        stack.up()
        try:
            return _measured(stack)
        finally:
            stack.down()


def _measured(stack) -> list[Figure]:
    from llmops.cli._drill_assistant import ASSISTANT
    from llmops.cli._drill_questions import Questioner, wait_for
    from llmops.release import Actor, confirm, roll_back
    from llmops.settings import load_environment

    environment = load_environment()
    releases = [_release(stack, environment, number) for number in range(2)]
    wait_for(ASSISTANT, environment.serving_url)
    load = _Load(environment)

    def move(number: int) -> float:
        target = releases[number % 2]
        began = time.monotonic()
        roll_back(environment, ASSISTANT, target, Actor("bench", "bench"), f"move {number + 1}")
        confirm(environment, target, timedelta(seconds=60))
        return time.monotonic() - began

    with load.running():
        seconds = [move(number) for number in range(_MOVES)]
    alone = [_rolled_back(stack, environment, releases[number % 2]) for number in range(_MOVES, _MOVES + 5)]
    questioner = Questioner(environment, [ASSISTANT], [])
    questioner.asked = load.asked
    wrong = questioner.wrong()
    for problem in wrong[:5]:
        print(f"  wrong: {problem}")
    asked = len(load.asked)
    failed = sum(each.problem is not None for each in load.asked)
    return [
        Figure("moves of production under load", len(seconds), "moves", _MOVES, at_most=False),
        Figure(
            "  questions a second, all distinct", asked / load.seconds, "1/s", _RATE * 0.95, at_most=False
        ),
        Figure(f"  failed requests, of {asked}", failed, "", 0, at_most=True),
        Figure(f"  wrong answers, of {asked}", len(wrong), "", 0, at_most=True),
        Figure(
            "  a move under this load: median of the longest",
            statistics.median(seconds),
            "s",
            max(seconds),
            at_most=None,
        ),
        Figure("rollback command to the last replica's answer", max(alone), "s", 5, at_most=True),
        *_verification(environment),
    ]


def _rolled_back(stack, environment, target: str) -> float:
    """Return the seconds from the start of the command to the first answer with the release, of five the longest."""
    from llmops.cli._drill_assistant import ASSISTANT

    program = (
        "from llmops.cli._who import Who; from llmops.release import Actor; import llmops.cli.release as r; "
    )
    program += "r.Who.actor = lambda self, environment: Actor('bench', 'bench'); r.command()"
    command = [
        sys.executable,
        "-c",
        program,
        "rollback",
        "--assistant",
        ASSISTANT,
        "--to",
        target,
        "--reason",
        "bench",
    ]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while (
        httpx.get(f"{environment.serving_url}/release", params={"assistant": ASSISTANT}).json()["release"]
        != target
    ):
        time.sleep(0.02)
    took = time.monotonic() - began
    assert process.wait() == 0
    return took


def _verification(environment) -> list[Figure]:
    """Return the share of loading a release that verifying manifest, approval and ledger takes."""
    from llmops.cli._drill_assistant import ASSISTANT
    from llmops.release import load_release
    from llmops.release._loading import _embedder, _verified

    def verify() -> None:
        assert _verified(environment, ASSISTANT) is not None

    def load() -> None:
        _embedder.cache_clear()
        load_release(environment, ASSISTANT).close()

    verify()
    load()
    took = {action: statistics.median(_timed(action) for _ in range(7)) for action in (verify, load)}
    return [
        Figure(
            "verifying manifest and approval, of loading", took[verify], "s", 0.03 * took[load], at_most=True
        )
    ]


def _timed(action) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def _release(stack, environment, number: int) -> str:
    """Take one more release of the assistant to production, as the DAGs do it, and return its id."""
    from llmops.assistant import load_assistant
    from llmops.cli._drill_assistant import ASSISTANT, write_assistant
    from llmops.corpus import merge_chunks, merge_documents, read_sources
    from llmops.release import (
        Actor,
        RunReference,
        assemble,
        chunkers_in_use,
        confirm,
        decide_release,
        ensure_generation,
        evaluate_release,
        open_approval,
        promote,
        registry_of,
        stage,
        sync_generation,
    )

    actor, url = Actor("bench", "bench"), environment.database_url.get_secret_value()
    write_assistant(stack.home, number)
    assistant = load_assistant(ASSISTANT, environment)
    if number == 0:
        assistant.embedder.ensure(registry_of(environment, ASSISTANT), environment.endpoints)
        root, staging = environment.table_root(ASSISTANT), stack.home / "staging"
        read_sources(assistant.sources, as_of=datetime.now(UTC), staging=staging, table_root=root)
        merge_documents(staging, root, url)
        merge_chunks(root, chunkers_in_use(environment, assistant), url)
    manifest = assemble(environment, assistant, None, ["bench"])
    sync_generation(environment, ensure_generation(environment, manifest.release_id))
    report = decide_release(environment, evaluate_release(environment, manifest.release_id))
    assert report.verdict == "PASS", report.markdown
    stage(environment, manifest.release_id, report.report_hash, actor)
    run = RunReference("release_assistant", f"bench {number}", "ask_reviewer")
    deadline = datetime.now(UTC) + timedelta(hours=1)
    request = open_approval(environment, manifest.release_id, report.report_hash, deadline, run)
    _approve(stack, request)
    promote(environment, request, actor)
    confirm(environment, manifest.release_id, timedelta(seconds=60))
    return manifest.release_id


def _approve(stack, request) -> None:
    """Sign an approval with the key of this stack's own notary, which does not run here."""
    import psycopg

    from llmops.release._statement import Statement, sign_statement
    from llmops.signing import SigningKey

    now = datetime.now(UTC)
    statement = Statement(
        nonce=request.nonce, assistant=request.assistant, environment=request.environment,
        release_id=request.release_id, report_hash=request.report_hash, body_hash=None, decision="approved",
        approver="reviewer", authors=("bench",), trigger="bench", reason="bench", channel="airflow",
        opened_at=request.opened_at, answered_at=now, expires_at=now + timedelta(hours=1), signed_at=now,
    )  # fmt: skip
    row = statement.model_dump(exclude={"personal"})
    row |= {
        "statement": statement.text(),
        "signature": sign_statement(statement, SigningKey.load(stack.home / "notary" / "key")),
    }
    with psycopg.connect(stack.database_url("llmops_notary")) as connection:
        connection.execute(
            "INSERT INTO approvals (nonce, release_id, report_hash, decision, approver, reason, channel, environment, "
            "answered_at, expires_at, statement, signature) VALUES (%(nonce)s, %(release_id)s, %(report_hash)s, "
            "%(decision)s, %(approver)s, %(reason)s, %(channel)s, %(environment)s, %(answered_at)s, %(expires_at)s, "
            "%(statement)s, %(signature)s)",
            row,
        )


class _Load:
    """Asks a fixed number of distinct questions a second, whether earlier ones were answered or not."""

    def __init__(self, environment) -> None:
        from llmops.cli._drill_assistant import QUESTIONS

        self._environment = environment
        self._questions = QUESTIONS
        self._stop = threading.Event()
        self.asked: list = []
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=lambda: asyncio.run(self._ask_on()))
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    async def _ask_on(self) -> None:
        began = time.monotonic()
        limits = httpx.Limits(max_connections=_MOST_WAITING, max_keepalive_connections=_MOST_WAITING)
        waiting: set[asyncio.Task] = set()
        async with httpx.AsyncClient(
            base_url=self._environment.serving_url, timeout=60, limits=limits
        ) as client:
            number = 0
            while not self._stop.is_set():
                waiting.add(task := asyncio.create_task(self._ask(client, number)))
                task.add_done_callback(waiting.discard)
                number += 1
                await asyncio.sleep(max(0.0, began + number / _RATE - time.monotonic()))
            self.seconds = time.monotonic() - began
            await asyncio.gather(*waiting)

    async def _ask(self, client: httpx.AsyncClient, number: int) -> None:
        from llmops.cli._drill_assistant import ASSISTANT
        from llmops.cli._drill_questions import Asked

        question = f"{self._questions[number % len(self._questions)]} (for the {number + 1}. time)"
        body = {"model": ASSISTANT, "messages": [{"role": "user", "content": question}]}
        began = datetime.now(UTC)
        given, problem = {}, None
        try:
            response = await client.post("/v1/chat/completions", json=body)
            given = response.json()
            if response.status_code != 200:
                problem = f"status {response.status_code}: {given}"
        except (httpx.HTTPError, ValueError) as error:
            problem = f"{type(error).__name__}: {error}"
        self.asked.append(
            Asked(
                ASSISTANT,
                question,
                began,
                datetime.now(UTC),
                given.get("release"),
                given.get("answer_id"),
                problem,
            )
        )
