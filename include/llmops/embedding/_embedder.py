"""An embedder: texts to unit vectors, computed here or by an endpoint, as its folder describes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Discriminator, Tag, TypeAdapter, ValidationError

from llmops.embedding._folder import DESCRIPTION, TOKENIZER, Opening, read_part
from llmops.embedding._meter import Meter
from llmops.embedding._onnx import OnnxDescription
from llmops.embedding._remote import DatabricksDescription, OpenAIDescription
from llmops.errors import IntegrityError
from llmops.registry import fingerprint
from llmops.settings import EndpointAccess

__all__ = ["Embedder"]

log = logging.getLogger(__name__)


def _kind(values: Any) -> str:
    """Return the kind of a description; folders of before there were kinds hold a graph."""
    return str(values.get("kind", "onnx")) if isinstance(values, dict) else str(getattr(values, "kind", ""))


_Description = (
    Annotated[OnnxDescription, Tag("onnx")]
    | Annotated[OpenAIDescription, Tag("openai")]
    | Annotated[DatabricksDescription, Tag("databricks")]
)
_DESCRIPTION: TypeAdapter[_Description] = TypeAdapter(Annotated[_Description, Discriminator(_kind)])


class _Model(Protocol):
    """What computes vectors; ``window`` is how many texts keep it busy when given at once."""

    @property
    def window(self) -> int: ...

    def meter(self) -> Meter: ...

    def embed(
        self, texts: Sequence[str], meter: Meter
    ) -> Iterator[tuple[list[int], NDArray[np.float32]]]: ...


class Embedder:
    """Turns texts into unit vectors.

    A local embedder gives the same vector for the same text whatever is embedded beside it: texts of exactly the
    same number of tokens run together, on one thread, and several such batches run side by side. So there is no
    padding, and two builds of an index can be compared bit for bit. What an endpoint gives may differ in its last
    bits from call to call; the cache of vectors keeps the first.
    """

    def __init__(
        self, folder: Path, description: _Description, fingerprint: str, model: _Model, tokenizer: Any
    ) -> None:
        self.folder = folder
        self.description = description
        self.name = description.name
        self.dimension = description.dimension
        self.max_tokens = description.max_tokens
        self.fingerprint = fingerprint
        self._before_document, self._before_question = description.prefixes
        self._model = model
        self._counting = tokenizer

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        threads: int | None = None,
        endpoints: Mapping[str, EndpointAccess] | None = None,
    ) -> Embedder:
        """Return the embedder in ``folder``; its fingerprint is that of the very bytes it runs.

        ``threads`` is how many texts a local one embeds side by side, by default one per usable core.
        ``endpoints`` says how to reach the host of a remote one, as the environment does; nobody is asked before
        the first text is embedded. Raises MissingInput when a file is not there and IntegrityError when one
        cannot be read.
        """
        parts = {DESCRIPTION: read_part(folder, DESCRIPTION)}
        description = _parse(parts[DESCRIPTION], folder)
        parts |= {name: read_part(folder, name) for name in description.files}
        opening = Opening(folder, parts, threads, endpoints or {})
        embedder = cls(
            folder,
            description,
            fingerprint({name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}),
            description.open(opening),
            opening.tokenizer(),
        )
        log.info("Loaded embedder %s (%s) from %s", embedder.name, embedder.fingerprint[:12], folder)
        return embedder

    @property
    def tokenizer_file(self) -> Path:
        """Return the file of the tokenizer, without truncation or padding, for those who count tokens.

        That of a remote embedder is the packaged model's: it measures lengths and is not what the endpoint uses.
        """
        return self.folder / TOKENIZER

    @property
    def window(self) -> int:
        """Return how many texts at once keep this embedder busy."""
        return self._model.window

    def meter(self) -> Meter:
        """Return what adds up one run's usage and keeps it within the budget; raise when that cannot be done."""
        return self._model.meter()

    def embed(self, texts: Sequence[str], meter: Meter | None = None) -> NDArray[np.float32]:
        """Return one unit vector per text of a document, float32, shape (number of texts, dimension).

        A text longer than ``max_tokens`` is cut there, as sentence-transformers does. With a ``meter`` the call
        is part of that run. A remote embedder also raises EmbedderMismatch when the endpoint no longer gives the
        vectors that it was registered with, RateLimited, ServiceUnavailable, EmbeddingError and BudgetExceeded.
        """
        return self._vectors([self._before_document + text for text in texts], meter)

    def embed_parts(
        self, texts: Sequence[str], meter: Meter
    ) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
        """Yield what ``embed`` returns in parts, each with the positions of its texts, as soon as it is made.

        What was made before an error is yielded before that is raised, so that it can be kept.
        """
        return self._model.embed(_encodable([self._before_document + text for text in texts]), meter)

    def embed_queries(self, texts: Sequence[str], meter: Meter | None = None) -> NDArray[np.float32]:
        """Return one unit vector per question, as ``embed`` does for documents: some models tell them apart."""
        return self._vectors([self._before_question + text for text in texts], meter)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each whole text, the special ones at its ends included."""
        return [len(encoding) for encoding in self._counting.encode_batch_fast(_encodable(texts))]

    def _vectors(self, texts: Sequence[str], meter: Meter | None) -> NDArray[np.float32]:
        vectors = np.empty((len(texts), self.dimension), np.float32)
        for positions, made in self._model.embed(_encodable(texts), meter or self.meter()):
            vectors[positions] = made
        return vectors


def _encodable(texts: Sequence[str]) -> list[str]:
    """Return the texts with half surrogate pairs, which no tokenizer takes, replaced by ``?``."""
    return [text if text.isascii() else text.encode(errors="replace").decode() for text in texts]


def _parse(text: bytes, folder: Path) -> _Description:
    try:
        return _DESCRIPTION.validate_json(text)
    except ValidationError as error:
        raise IntegrityError(
            f"{DESCRIPTION} in {str(folder)!r} does not describe an embedder "
            f"({error.error_count()} problems): import the model again"
        ) from error
