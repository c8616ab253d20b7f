"""One logged answer: the log's record is opened before generating and closed before the last byte."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass

from psycopg_pool import ConnectionPool

from llmops.answers import AnswerChunk, AnswerOutcome, close_answer, open_answer
from llmops.chain import Answer
from llmops.errors import LanguageModelError, ServiceUnavailable
from llmops.serving._follower import Release, ReleaseFollower
from llmops.serving._limits import ServiceLimits
from llmops.serving._problems import Problem, problem_of

_Items = Generator["Opened | str | Finished | Failed", None, None]

__all__ = ["Answering", "Failed", "Finished", "Opened"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened:
    """The answer is in the log; nothing of it has been generated yet."""

    answer_id: str
    release_id: str


@dataclass(frozen=True)
class Finished:
    """The answer is complete and the log says so."""

    answer_id: str
    release_id: str
    answer: Answer


@dataclass(frozen=True)
class Failed:
    """There is no answer, or no more of it."""

    problem: Problem


class Answering:
    """Answers one question within its deadline, in one thread; ``abandon`` may be called from another."""

    def __init__(
        self, follower: ReleaseFollower, database: ConnectionPool, limits: ServiceLimits, assistant: str
    ) -> None:
        self._follower = follower
        self._database = database
        self._limits = limits
        self._assistant = assistant
        self._ends = time.monotonic() + limits.request
        self._abandoned = threading.Event()

    def abandon(self) -> None:
        """Nobody waits for the answer any more: stop at the next piece and log it as failed."""
        self._abandoned.set()

    def seconds_left(self) -> float:
        """Return the time until the request's deadline."""
        return self._ends - time.monotonic()

    def run(self, question: str, *, stream: bool) -> _Items:
        """Yield Opened, then pieces when streaming, and last Finished or Failed; never raises."""
        try:
            self._check()
            with self._follower.lease(self._assistant) as release:
                yield from self._logged(release, question, stream)
        except Exception as error:  # noqa: BLE001 - the edge of a request: every failure becomes a response
            yield Failed(self._problem(error, None))

    def _logged(self, release: Release, question: str, stream: bool) -> _Items:
        began = time.monotonic()
        answer_id = open_answer(
            self._database, assistant=self._assistant, release_id=release.release_id, question=question
        )
        said: list[str] = []
        done = False
        try:
            yield Opened(answer_id, release.release_id)
            answer = yield from self._generate(release, question, stream, said)
            self._close(answer_id, _outcome(answer, time.monotonic() - began))
            done = True
            yield Finished(answer_id, release.release_id, answer)
        except Exception as error:  # noqa: BLE001 - as above, with the answer's id
            yield Failed(self._problem(error, answer_id))
        finally:
            if not done:
                self._close_failed(answer_id, "".join(said), time.monotonic() - began)

    def _generate(
        self, release: Release, question: str, stream: bool, said: list[str]
    ) -> Generator[str, None, Answer]:
        if not stream:
            answer = release.chain.answer(question, timeout=self.seconds_left())
            self._check()
            return answer
        for item in release.chain.stream(question, timeout=self.seconds_left()):
            self._check()
            if isinstance(item, Answer):
                return item
            said.append(item)
            yield item
        raise LanguageModelError("the stream of pieces ended without an answer")

    def _check(self) -> None:
        if self._abandoned.is_set() or self.seconds_left() <= 0:
            raise TimeoutError("the caller went away or the request's deadline passed")

    def _close(self, answer_id: str, outcome: AnswerOutcome) -> None:
        """Close the log's record, trying for a while when Postgres is away: only what is logged is sent."""
        until = time.monotonic() + self._limits.log
        pause = 0.05
        while True:
            try:
                close_answer(self._database, answer_id, outcome)
                return
            except ServiceUnavailable:
                if time.monotonic() + pause > until:
                    raise
            time.sleep(random.uniform(pause / 2, pause))
            pause = min(2 * pause, 1.0)

    def _close_failed(self, answer_id: str, text: str, seconds: float) -> None:
        try:
            close_answer(
                self._database, answer_id, AnswerOutcome(text, latency_seconds=seconds, status="failed")
            )
        except ServiceUnavailable as error:
            log.error("Answer %s failed and stays open in the log: %s", answer_id, error)

    def _problem(self, error: Exception, answer_id: str | None) -> Problem:
        problem = problem_of(error, answer_id)
        if problem.status == 500:
            log.exception("%s: answer %s failed", self._assistant, answer_id)
        else:
            log.warning("%s: answer %s: %s: %s", self._assistant, answer_id, type(error).__name__, error)
        return problem


def _outcome(answer: Answer, seconds: float) -> AnswerOutcome:
    cited = {citation.chunk_id for citation in answer.citations}
    return AnswerOutcome(
        text=answer.text,
        refused=answer.refused,
        chunks=[
            AnswerChunk(hit.chunk_id, hit.document_id, hit.document_version, hit.chunk_id in cited)
            for hit in answer.hits
        ],
        usage=asdict(answer.usage) if answer.usage else {},
        latency_seconds=seconds,
    )
