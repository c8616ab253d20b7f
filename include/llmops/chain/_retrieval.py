"""Where the chunks come from that an answer is made of: an index, or nowhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field

from llmops.chain._answer import Vector
from llmops.embedding import Embedder
from llmops.errors import ConfigurationError
from llmops.index import Hit
from llmops.settings import Section

__all__ = ["HybridRetrieval", "NoRetrieval", "Retrieval", "Searcher", "Sentinel"]

Searcher = Callable[[str, Vector], list[Hit]]
"""Searches one index generation for a question and its vector; returns the best hits first."""


class NoRetrieval(Section):
    """Answers come from the language model alone."""

    kind: Literal["none"] = "none"

    def retrieve(
        self, question: str, embedder: Embedder | None, searcher: Searcher | None
    ) -> tuple[Vector | None, tuple[Hit, ...]]:
        """Return no vector and no hits."""
        return None, ()

    def check(self, embedder: Embedder | None, searcher: Searcher | None) -> None:
        """Accept anything: neither is used."""


class Sentinel(Section):
    """A question whose answer everybody knows is in the documents: ``document``, as ``source:path``, must be found."""

    question: Annotated[str, Field(min_length=1, max_length=1000)]
    document: Annotated[str, Field(pattern=r"^[^:]+:.+$")]


class HybridRetrieval(Section):
    """Searches an index by meaning and by words, and fuses both rankings.

    ``top_k`` chunks are returned, out of ``candidates`` per ranking. ``mode`` switches one of them off. Before an
    index may be released, at least ``minimum_coverage`` of every source's documents must be in it as they are
    now, and every one of the ``sentinels`` must be found, beside some that are drawn from the documents.
    ``access`` lists the tags that callers of this assistant hold: documents without tags are found by everybody,
    others by whoever holds one of theirs.
    """

    kind: Literal["hybrid"] = "hybrid"
    top_k: Annotated[int, Field(ge=1, le=50)] = 8
    candidates: Annotated[int, Field(ge=1, le=200)] = 50
    mode: Literal["hybrid", "dense", "keyword"] = "hybrid"
    minimum_coverage: Annotated[float, Field(ge=0, le=1)] = 0.99
    sentinels: Annotated[tuple[Sentinel, ...], Field(max_length=100)] = ()
    access: tuple[str, ...] = ()

    def retrieve(
        self, question: str, embedder: Embedder | None, searcher: Searcher | None
    ) -> tuple[Vector | None, tuple[Hit, ...]]:
        """Return the question's vector and the best chunks for it, at most ``top_k``."""
        assert embedder is not None
        assert searcher is not None
        vector = embedder.embed_queries([question])[0]
        return vector, tuple(searcher(question, vector)[: self.top_k])

    def check(self, embedder: Embedder | None, searcher: Searcher | None) -> None:
        """Raise ConfigurationError unless there is what to retrieve with."""
        if embedder is None or searcher is None:
            raise ConfigurationError(f"retrieval kind {self.kind!r} needs an embedder and an index to search")


Retrieval = Annotated[HybridRetrieval | NoRetrieval, Field(discriminator="kind")]
