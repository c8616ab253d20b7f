"""An endpoint of embeddings on loopback: hash vectors, and the failures of the fake language model."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llmops.llm import FakeLanguageModel
from llmops.llm._fake import Asked, Exchange, Failure, Scripted
from support.hash_embedder import HashEmbedder

PATHS = ("/v1/embeddings", "/serving-endpoints/hash/invocations")


@dataclass(frozen=True)
class Changed:
    """A correct answer that ``change`` makes a wrong one; returns bytes, or what becomes JSON."""

    change: Callable[[dict[str, Any]], Any]

    def send(self, exchange: Exchange) -> None:
        made = self.change(answer(exchange.asked, "hash"))
        exchange.respond(200, made if isinstance(made, bytes) else json.dumps(made).encode())


@dataclass(frozen=True)
class _Vectors:
    fake: FakeEmbeddings

    def send(self, exchange: Exchange) -> None:
        with self.fake.counting():
            time.sleep(self.fake.seconds)
            made = answer(exchange.asked, self.fake.model, self.fake.reports_usage)
        exchange.respond(200, json.dumps(made).encode())


class FakeEmbeddings(FakeLanguageModel):
    """Answers with the vectors of a HashEmbedder called ``model``, after what was queued.

    ``texts`` is every text it was given; ``most`` is how many requests it had at the same time. Set ``model`` to
    change what it computes, ``seconds`` to make it slow.
    """

    def __init__(self, *replies: Scripted, key: str | None = None) -> None:
        super().__init__(*replies, key=key)
        self.model = "hash"
        self.seconds = 0.0
        self.reports_usage = True
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://").removesuffix("/v1")

    @property
    def batches(self) -> list[list[str]]:
        return [asked.body["input"] for asked in self.history]

    @property
    def texts(self) -> list[str]:
        return [text for batch in self.batches for text in batch]

    def counting(self) -> _Counting:
        return _Counting(self)

    def _next(self, asked: Asked) -> Scripted:
        if self._key is not None and asked.headers.get("Authorization") != f"Bearer {self._key}":
            return Failure(401, f"wrong key {asked.headers.get('Authorization')}")
        if asked.path not in PATHS:
            return Failure(404, f"nothing is served at {asked.path}")
        return self._queue.popleft() if self._queue else _Vectors(self)


class _Counting:
    def __init__(self, fake: FakeEmbeddings) -> None:
        self._fake = fake

    def __enter__(self) -> None:
        with self._fake._lock:
            self._fake._now += 1
            self._fake.most = max(self._fake.most, self._fake._now)

    def __exit__(self, *_: object) -> None:
        with self._fake._lock:
            self._fake._now -= 1


def answer(asked: Asked, model: str, reports_usage: bool = True) -> dict[str, Any]:
    """Return what a correct endpoint answers: vectors three times as long as a unit, in no particular order."""
    texts = asked.body["input"]
    made = HashEmbedder(asked.body.get("dimensions", 32), model).embed(texts)
    items = [
        {"object": "embedding", "index": i, "embedding": [float(number) * 3 for number in vector]}
        for i, vector in enumerate(made)
    ]
    usage = {"prompt_tokens": sum(len(text.split()) for text in texts)}
    return {
        "object": "list",
        "data": items[::-1],
        "model": model,
        **({"usage": usage} if reports_usage else {}),
    }
