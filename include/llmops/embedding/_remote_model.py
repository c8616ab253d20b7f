"""Asks an endpoint for vectors: batches by tokens, several side by side, every answer checked."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic import StrictFloat

from llmops.embedding._meter import Meter
from llmops.embedding._probe import Probe
from llmops.endpoints import Countdown, EndpointLimits, JsonEndpoint, Wire, WireError, find_key, parse
from llmops.errors import EmbeddingError, ServiceUnavailable
from llmops.prices import load_prices
from llmops.settings import EndpointAccess, environ

__all__ = ["RemoteModel", "Target"]

log = logging.getLogger(__name__)

_MARGIN = 1.25
"""The endpoint's own tokenizer may make more of a text than the one that lengths are measured with."""
_BYTES_PER_TOKEN = 4
_NUMBER_BYTES = 32
_CHECK_SECONDS = 3600.0
_HINTS = {
    200: "does the URL end where /embeddings follows?",
    400: "check the model's name, and whether max_tokens is more than it takes",
    401: "check the key under `endpoints` in the environment's file",
    403: "check what the key may do",
    404: "check the URL and the model's name",
    413: "set a smaller batch_tokens under `endpoints` in the environment's file",
}

_Vectors = NDArray[np.float64]


@dataclass(frozen=True)
class Target:
    """Where an embedder posts to and what; ``default_key`` is a variable that may hold the key."""

    url: httpx.URL
    model: str
    dimension: int
    max_tokens: int
    shorten: bool
    default_key: str | None = None

    @property
    def host(self) -> str:
        """Return the host, and the port unless it is the scheme's own."""
        return self.url.netloc.decode()

    @property
    def place(self) -> str:
        """Return how messages call it."""
        return f"embedder {self.url.scheme}://{self.host} (model {self.model!r})"


@dataclass(frozen=True)
class _Text:
    """A text as it is sent, and about how many tokens that is."""

    text: str
    tokens: int


class _Usage(Wire):
    prompt_tokens: int | None = None
    total_tokens: int | None = None


class _Item(Wire):
    index: int
    embedding: list[StrictFloat]


class _Response(Wire):
    data: list[_Item] | None = None
    usage: _Usage | None = None
    error: Any = None


class RemoteModel:
    """Embeds by asking ``target``; thread-safe, reads its key and looks at the probe when it is first used."""

    def __init__(
        self, target: Target, tokenizer: Any, endpoints: Mapping[str, EndpointAccess], probe: Probe | None
    ) -> None:
        self._target = target
        self._tokenizer = tokenizer
        self._access = endpoints.get(target.host, EndpointAccess())
        self._probe = probe
        self._slots = threading.BoundedSemaphore(self._access.concurrency)
        self._checking = threading.Lock()
        self._checked = -math.inf

    @property
    def window(self) -> int:
        """Return how many texts fill all requests that run side by side."""
        return self._access.batch_texts * self._access.concurrency

    def meter(self) -> Meter:
        """Return a meter with the budget of one run; raise ConfigurationError when its cost cannot be known."""
        return Meter(self._target.place, self._target.model, self._access, lambda: self._prices)

    def embed(self, texts: Sequence[str], meter: Meter) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
        """Yield the unit vectors of each request's texts with their positions, as the answers come.

        When one fails, none is sent any more; those on their way are waited for and yielded, since they are paid
        for, and then the first error is raised.
        """
        if not texts:
            return
        self._check_probe(meter)
        prepared = self._prepare(texts)
        batches = list(_batches(prepared, self._access.batch_tokens, self._access.batch_texts))
        failure: BaseException | None = None
        with ThreadPoolExecutor(min(self._access.concurrency, len(batches)), "embed") as pool:
            sent = {pool.submit(self._embed, [prepared[i] for i in batch], meter): batch for batch in batches}
            try:
                for future in as_completed(sent):
                    if future.cancelled():
                        continue
                    if (error := future.exception()) is None:
                        yield sent[future], future.result()
                    elif failure is None:
                        failure = error
                        pool.shutdown(wait=False, cancel_futures=True)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        if failure is not None:
            raise failure

    def ask_once(self, text: str) -> _Vectors:
        """Return the vector of one text just as the endpoint gives it, whatever its dimension."""
        vector: _Vectors = self._ask(self._prepare([text]), self.meter())[0]
        return vector

    @functools.cached_property
    def _prices(self) -> Any:
        return load_prices()

    @functools.cached_property
    def _endpoint(self) -> JsonEndpoint:
        access = self._access
        key = find_key(access.key_file, access.key_variable)
        if key is None and self._target.default_key in environ():
            key = find_key(None, self._target.default_key)
        size = access.batch_texts * max(self._target.dimension, 4096) * _NUMBER_BYTES + 1024 * 1024
        limits = EndpointLimits(
            timeout=access.timeout_seconds,
            stall=access.timeout_seconds / 2,
            attempts=access.attempts,
            connections=access.concurrency,
            response_bytes=size,
        )
        return JsonEndpoint(
            self._target.url,
            self._target.place,
            key=key,
            limits=limits,
            unusable=EmbeddingError,
            hints=_HINTS,
        )

    def _check_probe(self, meter: Meter) -> None:
        """Raise EmbedderMismatch when the endpoint no longer computes what it was registered with.

        It is asked at first and then once an hour, since a server may be started again with another model.
        """
        if self._probe is None:
            return
        with self._checking:
            if time.monotonic() - self._checked < _CHECK_SECONDS:
                return
            vector = self._ask(self._prepare([self._probe.text]), meter)[0]
            self._probe.check(vector, self._target.dimension, self._target.place)
            self._checked = time.monotonic()

    def _prepare(self, texts: Sequence[str]) -> list[_Text]:
        """Return the texts cut at ``max_tokens``; an empty one, which endpoints refuse, becomes a space."""
        prepared = []
        for text, encoding in zip(texts, self._tokenizer.encode_batch(list(texts)), strict=True):
            kept = text[: max(end for _, end in encoding.offsets)] if encoding.overflowing else text
            # What the tokenizer does not know is one token to it, however long, and many to the endpoint.
            tokens = max(len(encoding.ids), math.ceil(len(kept.encode()) / _BYTES_PER_TOKEN))
            prepared.append(_Text(kept or " ", tokens))
        return prepared

    def _embed(self, batch: list[_Text], meter: Meter) -> NDArray[np.float32]:
        vectors = self._ask(batch, meter)
        if vectors.shape[1] != self._target.dimension:
            raise self._endpoint.unusable(
                f"vectors of {vectors.shape[1]} numbers instead of {self._target.dimension}"
            )
        units: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(
            np.float32
        )
        return units

    def _ask(self, batch: list[_Text], meter: Meter) -> _Vectors:
        """Return the vectors of one batch as the endpoint gives them, in the order of its texts."""
        estimate = sum(_with_margin(text.tokens) for text in batch)
        meter.reserve(estimate)
        used = 0
        try:
            with self._slot():
                *_, (vectors, reported) = self._endpoint.attempts(
                    lambda countdown: self._attempt(batch, countdown)
                )
            used = sum(text.tokens for text in batch) if reported is None else reported
        finally:
            meter.settle(estimate, used)
        return vectors

    @contextlib.contextmanager
    def _slot(self) -> Iterator[None]:
        """Wait until fewer requests than allowed are on their way, over all threads."""
        if not self._slots.acquire(timeout=self._access.timeout_seconds):
            raise ServiceUnavailable(
                f"{self._target.place} was busy with {self._access.concurrency} requests for "
                f"{self._access.timeout_seconds:g} s: allow more under `endpoints` in the environment's file"
            )
        try:
            yield
        finally:
            self._slots.release()

    def _attempt(self, batch: list[_Text], countdown: Countdown) -> Iterator[tuple[_Vectors, int | None]]:
        body: dict[str, Any] = {
            "model": self._target.model,
            "input": [text.text for text in batch],
            "encoding_format": "float",
        }
        if self._target.shorten:
            body["dimensions"] = self._target.dimension
        content = b"".join(self._endpoint.post(body, countdown))
        try:
            answer = parse(_Response, content)
        except WireError as error:
            what = f"no embeddings ({error}), but {self._endpoint.excerpt(content)}"
            raise self._endpoint.unusable(what) from error
        if answer.error is not None:
            raise self._endpoint.reported(answer.error)
        yield self._matrix(answer.data or [], len(batch)), _tokens(answer.usage)

    def _matrix(self, items: list[_Item], expected: int) -> _Vectors:
        """Return the vectors by their index; raise EmbeddingError unless each is there once and can be used."""
        if sorted(item.index for item in items) != list(range(expected)):
            raise self._endpoint.unusable(
                f"{len(items)} vectors for {expected} texts, or with indexes that are not 0 to {expected - 1}"
            )
        ordered = sorted(items, key=lambda item: item.index)
        if len({len(item.embedding) for item in ordered}) != 1 or not ordered[0].embedding:
            raise self._endpoint.unusable("vectors of different lengths, or empty ones")
        vectors = np.array([item.embedding for item in ordered], np.float64)
        norms = np.linalg.norm(vectors, axis=1)
        if not np.isfinite(norms).all():
            raise self._endpoint.unusable("a vector with a number that is not finite")
        if not norms.all():
            raise self._endpoint.unusable("a vector of zeros")
        return vectors


def _batches(texts: Sequence[_Text], most_tokens: int, most_texts: int) -> Iterator[list[int]]:
    """Yield the positions of texts in batches within both bounds; a text longer than a batch is one by itself."""
    batch: list[int] = []
    tokens = 0
    for i, text in enumerate(texts):
        estimate = _with_margin(text.tokens)
        if batch and (len(batch) == most_texts or tokens + estimate > most_tokens):
            yield batch
            batch, tokens = [], 0
        batch.append(i)
        tokens += estimate
    if batch:
        yield batch


def _with_margin(tokens: int) -> int:
    return math.ceil(tokens * _MARGIN)


def _tokens(usage: _Usage | None) -> int | None:
    """Return the tokens that the endpoint says it was given, or None when it does not say."""
    if usage is None:
        return None
    found = usage.prompt_tokens if usage.prompt_tokens is not None else usage.total_tokens
    return found if found is None or found >= 0 else None
