"""What a chain returns, and what its two halves hand each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from llmops.index import Hit
from llmops.llm import Usage

__all__ = ["MAX_QUESTION", "REFUSAL", "Answer", "Citation", "Draft", "Inquiry", "Responder", "Vector"]

Vector = NDArray[np.float32]

MAX_QUESTION = 4000
"""Characters a question may have."""

REFUSAL = "I cannot answer that from the documents I have."
"""The whole text of an answer that refuses."""


@dataclass(frozen=True)
class Citation:
    """What a marker ``[number]`` in an answer's text points at; the number is the hit's place, from 1."""

    number: int
    chunk_id: str
    document_id: str
    document_version: str
    source: str
    path: str
    heading_path: tuple[str, ...]

    @classmethod
    def of(cls, number: int, hit: Hit) -> Citation:
        """Return the citation of one hit."""
        return cls(
            number,
            hit.chunk_id,
            hit.document_id,
            hit.document_version,
            hit.source,
            hit.path,
            hit.heading_path,
        )


@dataclass(frozen=True)
class Answer:
    """An answer, or a refusal, with everything it was made from.

    ``hits`` are all retrieved chunks, best first; ``citations`` those that the text names, by number.
    ``confidence`` (0 to 1) is what the extractive generator compares with
    its threshold, None for others.
    ``invalid_citations`` counts markers that a language model wrote for chunks it was never given; they
    are not in the text. ``finish_reason`` is ``"length"`` when a language model was cut at its token limit.
    """

    text: str
    refused: bool
    citations: tuple[Citation, ...]
    hits: tuple[Hit, ...]
    confidence: float | None
    usage: Usage | None
    finish_reason: Literal["stop", "length"]
    invalid_citations: int
    retrieval_seconds: float
    latency_seconds: float


@dataclass(frozen=True)
class Inquiry:
    """A question with what was retrieved for it, and the seconds left to answer (None: no limit)."""

    question: str
    vector: Vector | None
    hits: tuple[Hit, ...]
    seconds: float | None = None


@dataclass(frozen=True)
class Draft:
    """What a generator made of an inquiry; ``cited`` are places of hits, from 1."""

    text: str
    cited: tuple[int, ...] = ()
    refused: bool = False
    confidence: float | None = None
    usage: Usage | None = None
    finish_reason: Literal["stop", "length"] = "stop"
    invalid_citations: int = 0


class Responder(Protocol):
    """A generator bound to one assistant: what answers its inquiries."""

    def respond(self, inquiry: Inquiry) -> Draft:
        """Return the whole answer."""

    def stream(self, inquiry: Inquiry) -> Iterator[str | Draft]:
        """Yield the answer in pieces, and last the Draft, whose text is all pieces together."""

    def close(self) -> None:
        """Give back connections."""
