"""The chain: one question in, one cited answer or refusal out."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from llmops.chain._answer import MAX_QUESTION, Answer, Citation, Draft, Inquiry
from llmops.chain._generator import Generator
from llmops.chain._retrieval import Retrieval, Searcher
from llmops.embedding import Embedder
from llmops.errors import InvalidRequest
from llmops.index import Hit

__all__ = ["Chain", "check_question"]

log = logging.getLogger(__name__)

_WARM_UP = "What is this about?"


class Chain:
    """Answers questions with one generator, one retrieval and one prompt; thread-safe.

    ``embedder`` and ``searcher`` are None exactly when ``retrieval`` is of kind ``none``. Raises
    ConfigurationError when the parts do not fit together.
    """

    def __init__(
        self,
        generator: Generator,
        retrieval: Retrieval,
        prompt: str,
        *,
        embedder: Embedder | None,
        searcher: Searcher | None,
    ) -> None:
        retrieval.check(embedder, searcher)
        self._retrieval = retrieval
        self._embedder = embedder
        self._searcher = searcher
        self._responder = generator.prepare(prompt, retrieval, embedder)

    def answer(self, question: str, *, timeout: float | None = None) -> Answer:
        """Return the whole answer, within ``timeout`` seconds when given.

        Raises InvalidRequest for a question that is empty or longer than ``MAX_QUESTION`` characters, and
        RateLimited, ServiceUnavailable or LanguageModelError when a part fails: never half an answer.
        """
        began = time.monotonic()
        inquiry = self._inquire(question, timeout)
        retrieved = time.monotonic()
        return _answer(self._responder.respond(inquiry), inquiry, began, retrieved)

    def stream(self, question: str, *, timeout: float | None = None) -> Iterator[str | Answer]:
        """Yield the answer's text in pieces, and last the Answer, whose text is all pieces together.

        When a part fails, also in the middle, the error is raised instead of the Answer.
        """
        began = time.monotonic()
        inquiry = self._inquire(question, timeout)
        retrieved = time.monotonic()
        for item in self._responder.stream(inquiry):
            yield item if isinstance(item, str) else _answer(item, inquiry, began, retrieved)

    def find(self, question: str) -> tuple[Hit, ...]:
        """Return the chunks that an answer would be made of, best first."""
        return self._inquire(question, None).hits

    def warm(self) -> None:
        """Retrieve once, so that the first question finds models loaded and connections open."""
        self._inquire(_WARM_UP, None)

    def close(self) -> None:
        """Give back the generator's connections."""
        self._responder.close()

    def _inquire(self, question: str, timeout: float | None) -> Inquiry:
        began = time.monotonic()
        check_question(question)
        vector, hits = self._retrieval.retrieve(question, self._embedder, self._searcher)
        left = None if timeout is None else max(0.0, timeout - (time.monotonic() - began))
        return Inquiry(question, vector, hits, left)


def check_question(question: str) -> None:
    """Raise InvalidRequest for a question that is empty or longer than ``MAX_QUESTION`` characters."""
    if not question.strip():
        raise InvalidRequest("the question is empty")
    if len(question) > MAX_QUESTION:
        raise InvalidRequest(
            f"the question has {len(question)} characters: at most {MAX_QUESTION} are allowed"
        )


def _answer(draft: Draft, inquiry: Inquiry, began: float, retrieved: float) -> Answer:
    now = time.monotonic()
    log.info(
        "%s in %.2f s from %d chunks (%d cited)",
        "Refused" if draft.refused else "Answered",
        now - began,
        len(inquiry.hits),
        len(draft.cited),
    )
    return Answer(
        text=draft.text,
        refused=draft.refused,
        citations=tuple(Citation.of(number, inquiry.hits[number - 1]) for number in sorted(draft.cited)),
        hits=inquiry.hits,
        confidence=draft.confidence,
        usage=draft.usage,
        finish_reason=draft.finish_reason,
        invalid_citations=draft.invalid_citations,
        retrieval_seconds=retrieved - began,
        latency_seconds=now - began,
    )
