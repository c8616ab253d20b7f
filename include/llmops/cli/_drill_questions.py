"""Questions that are asked all through a drill, and whether each answer was one that production gave."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import httpx

from llmops.answers import read_answers
from llmops.database import connect
from llmops.release import LedgerEntry, ledger, read_manifest
from llmops.settings import Environment

__all__ = ["Asked", "Questioner"]

_PAUSE_SECONDS = 0.1
_FOLLOWING = timedelta(seconds=10)
"""How long replicas may take to follow the ledger."""


@dataclass(frozen=True)
class Asked:
    """One question with when it was asked and what came back; ``problem`` instead of an answer."""

    assistant: str
    question: str
    began: datetime
    ended: datetime
    release: str | None = None
    answer_id: str | None = None
    problem: str | None = None


@dataclass
class Questioner:
    """Asks distinct questions of assistants in turn, until it is stopped."""

    environment: Environment
    assistants: Sequence[str]
    questions: Sequence[str]
    asked: list[Asked] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Questioner:
        """Begin to ask."""
        self._thread = threading.Thread(target=self._ask_on, name="questions", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ask no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=60)

    def wrong(self) -> list[str]:
        """Return every answer that failed, or that no release of that time gave from its own index.

        Without any question nothing was shown, which is wrong as well.
        """
        if not self.asked:
            return ["no question was asked"]
        url = self.environment.database_url.get_secret_value()
        entries = ledger(url)
        found = [
            f"{each.assistant}: {each.problem or 'an answer of release ' + str(each.release)[:12]}"
            for each in self.asked
            if each.problem or not _was_production(entries, each)
        ]
        return found + self._foreign_chunks(url)

    def _foreign_chunks(self, url: str) -> list[str]:
        """Return the answers with a chunk that the index of their release does not hold."""
        ids = {each.answer_id for each in self.asked if each.answer_id}
        if not ids:
            return []
        since = min(each.began for each in self.asked) - timedelta(seconds=5)
        wrong = []
        held: dict[str, set[str]] = {}
        for answer in read_answers(url, since=since):
            if answer.answer_id not in ids:
                continue
            if answer.release_id not in held:
                held[answer.release_id] = _chunks(url, answer.release_id)
            strange = [c.chunk_id for c in answer.chunks if c.chunk_id not in held[answer.release_id]]
            if strange:
                wrong.append(f"{answer.assistant}: answer {answer.answer_id} of chunks {strange[:3]}")
        return wrong

    def _ask_on(self) -> None:
        number = 0
        with httpx.Client(base_url=self.environment.serving_url, timeout=60) as client:
            while not self._stop.wait(_PAUSE_SECONDS):
                assistant = self.assistants[number % len(self.assistants)]
                question = f"{self.questions[number % len(self.questions)]} (for the {number + 1}. time)"
                self.asked.append(_ask(client, assistant, question))
                number += 1


def _ask(client: httpx.Client, assistant: str, question: str) -> Asked:
    body = {"model": assistant, "messages": [{"role": "user", "content": question}]}
    began = datetime.now(UTC)
    try:
        response = client.post("/v1/chat/completions", json=body)
        given = response.json()
        right = response.status_code == 200 and isinstance(given, dict)
        given, problem = (given, None) if right else ({}, f"status {response.status_code}: {given}")
    except (httpx.HTTPError, ValueError) as error:
        given, problem = {}, f"{type(error).__name__}: {error}"
    return Asked(
        assistant, question, began, datetime.now(UTC), given.get("release"), given.get("answer_id"), problem
    )


def _was_production(entries: Sequence[LedgerEntry], asked: Asked) -> bool:
    """Return whether the release was in production at some moment of the question, or just before."""
    moves = [e for e in entries if e.assistant == asked.assistant and e.alias == "production"]
    for number, move in enumerate(moves):
        ended = moves[number + 1].at if number + 1 < len(moves) else None
        lasted = ended is None or ended + _FOLLOWING >= asked.began
        if move.to_release == asked.release and move.at <= asked.ended and lasted:
            return asked.release is not None
    return False


def _chunks(url: str, release_id: str) -> set[str]:
    from psycopg import sql

    manifest = read_manifest(url, release_id)
    if manifest.index is None:
        return set()
    table = sql.Identifier(f"generation_{manifest.index.generation}")
    with connect(url) as connection:
        rows = connection.execute(sql.SQL("SELECT chunk_id FROM {}").format(table)).fetchall()
    return {str(row[0]) for row in rows}


def wait_for(assistant: str, url: str, seconds: float = 60) -> None:
    """Wait until the service answers for an assistant."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if httpx.get(f"{url}/release", params={"assistant": assistant}, timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
