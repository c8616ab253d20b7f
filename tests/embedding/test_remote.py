"""The remote embedders against a real HTTP server that does everything wrong that a server can."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedding.conftest import QUICK, TEXTS, Made
from llmops.embedding import DatabricksPlace, Embedder, OpenAIPlace, RememberingEmbedder, save_remote
from llmops.embedding import _remote_model as remote_model
from llmops.errors import (
    ConfigurationError,
    EmbedderMismatch,
    EmbeddingError,
    LlmopsError,
    RateLimited,
    ServiceUnavailable,
)
from llmops.llm import Drip, Failure, Page, Reset, Stall
from llmops.settings import EndpointAccess
from support.fake_embeddings import Changed, FakeEmbeddings
from support.hash_embedder import HashEmbedder

KEY = "canary-5d02ab-key"


def changed(**values: Any) -> Changed:
    return Changed(lambda answer: {**answer, **values})


def first_item(change: dict[str, Any]) -> Changed:
    return Changed(lambda answer: {**answer, "data": [{**answer["data"][0], **change}, *answer["data"][1:]]})


def test_vectors_come_in_the_order_of_the_texts_as_unit_float32(fake: FakeEmbeddings, made: Made) -> None:
    vectors = made.ready(fake).embed(TEXTS)
    assert vectors.dtype == np.float32
    assert np.allclose(vectors, HashEmbedder(32).embed(TEXTS), atol=1e-6)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)
    assert fake.history[0].path == "/v1/embeddings"
    assert fake.history[0].body == {"model": "hash", "input": TEXTS, "encoding_format": "float"}


def test_nothing_is_asked_for_no_texts_or_when_an_embedder_is_loaded(
    fake: FakeEmbeddings, made: Made
) -> None:
    folder = made.save(fake)
    fake.history.clear()
    embedder = Embedder.load(folder)
    assert embedder.embed([]).shape == (0, 32)
    assert embedder.count_tokens(["one pool", ""]) == [4, 2]
    assert fake.history == []


def test_documents_and_questions_get_the_prefix_that_the_model_wants(
    fake: FakeEmbeddings, made: Made
) -> None:
    embedder = made.ready(fake, document_prefix="passage: ", query_prefix="query: ")
    embedder.embed(["a pool"])
    embedder.embed_queries(["a pool"])
    assert fake.texts == ["passage: a pool", "query: a pool"]


def test_what_is_remembered_of_a_document_is_not_taken_for_a_question(
    fake: FakeEmbeddings, made: Made
) -> None:
    folder = made.save(fake, query_prefix="query: ")
    embedder = RememberingEmbedder.load(folder, endpoints={fake.host: QUICK})
    for _ in range(2):
        document, question = embedder.embed(["a pool"]), embedder.embed_queries(["a pool"])
    assert not np.allclose(document, question)
    assert len(fake.history) == 4, "at registration, the probe, and each text once"


def test_a_text_is_cut_where_the_tokenizer_counts_its_last_token(fake: FakeEmbeddings, made: Made) -> None:
    embedder = made.ready(fake, max_tokens=8)
    embedder.embed(["one two three four five six seven eight nine", "one two three four five six", ""])
    assert fake.texts == ["one two three four five six", "one two three four five six", " "]


def test_a_shorter_dimension_is_asked_for_only_when_it_was_chosen(fake: FakeEmbeddings, made: Made) -> None:
    assert made.ready(fake, shorten=True, dimension=8).embed(["pool"]).shape == (1, 8)
    assert fake.history[0].body["dimensions"] == 8


def test_batches_keep_to_their_bounds_and_every_text_is_sent_once(fake: FakeEmbeddings, made: Made) -> None:
    access = EndpointAccess(batch_texts=3, batch_tokens=100)
    embedder = made.ready(fake, access)
    texts = [f"word {'pool ' * (i % 40)}" for i in range(40)]
    expected = HashEmbedder(32).embed(texts)
    assert np.allclose(embedder.embed(texts), expected, atol=1e-6)
    assert sorted(fake.texts) == sorted(texts)
    assert {len(batch) for batch in fake.batches} == {1, 2, 3}
    tokens = [sum(embedder.count_tokens(batch)) for batch in fake.batches]
    assert max(tokens) <= 100 / 1.25


def test_a_text_that_the_tokenizer_does_not_know_counts_by_its_length(
    fake: FakeEmbeddings, made: Made
) -> None:
    embedder = made.ready(fake, EndpointAccess(batch_tokens=1000), max_tokens=10_000)
    unknown = "\U0001f9ff" * 400
    assert sum(embedder.count_tokens([unknown])) < 10
    embedder.embed([unknown] * 4)
    assert [len(batch) for batch in fake.batches] == [2, 2] or len(fake.batches) > 2


def test_requests_side_by_side_are_bounded_over_all_threads(fake: FakeEmbeddings, made: Made) -> None:
    embedder = made.ready(fake, EndpointAccess(batch_texts=1, concurrency=3))
    fake.seconds = 0.05
    texts = [f"text {i}" for i in range(12)]
    threads = [threading.Thread(target=embedder.embed, args=(texts,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fake.history) == 36
    assert fake.most == 3


def test_waiting_for_a_turn_takes_nothing_from_the_deadline_of_a_request(
    fake: FakeEmbeddings, made: Made
) -> None:
    embedder = made.ready(fake, EndpointAccess(concurrency=1, timeout_seconds=2, attempts=1))
    fake.seconds = 0.8
    with ThreadPoolExecutor(3) as pool:
        shapes = [each.shape for each in pool.map(lambda i: embedder.embed([f"text {i}"]), range(3))]
    assert shapes == [(1, 32)] * 3


def test_an_endpoint_that_is_busy_for_too_long_is_not_waited_for(fake: FakeEmbeddings, made: Made) -> None:
    embedder = made.ready(fake, EndpointAccess(concurrency=1, timeout_seconds=0.5, attempts=1))
    fake.queue(Drip(0.1), Drip(0.1), Drip(0.1))
    with ThreadPoolExecutor(3) as pool:
        failed = [pool.submit(embedder.embed, [f"text {i}"]).exception for i in range(3)]
        messages = sorted(str(error()) for error in failed)
    assert all("busy with 1 requests" in text or "deadline" in text for text in messages), messages
    assert any("busy" in text for text in messages)


@pytest.mark.parametrize(
    "failure",
    [
        Failure(429),
        Failure(429, headers={"Retry-After": "0"}),
        *map(Failure, (500, 502, 503, 504)),
        Reset(),
        Stall(9),
        Changed(lambda answer: {"error": {"code": "rate_limit_exceeded", "message": "slow down"}}),
    ],
    ids=["429", "429 with Retry-After", "500", "502", "503", "504", "reset", "stall", "429 inside a 200"],
)
def test_a_passing_failure_is_tried_again(fake: FakeEmbeddings, made: Made, failure: Any) -> None:
    embedder = made.ready(fake)
    fake.queue(failure)
    assert np.allclose(embedder.embed(TEXTS), HashEmbedder(32).embed(TEXTS), atol=1e-6)
    assert fake.batches == [TEXTS, TEXTS]


@pytest.mark.parametrize(
    ("failure", "error"),
    [(Failure(500), ServiceUnavailable), (Failure(429), RateLimited), (Reset(), ServiceUnavailable)],
    ids=["500", "429", "reset"],
)
def test_attempts_are_bounded(
    fake: FakeEmbeddings, made: Made, failure: Any, error: type[LlmopsError]
) -> None:
    embedder = made.ready(fake)
    fake.queue(*[failure] * 9)
    with pytest.raises(error):
        embedder.embed(TEXTS)
    assert len(fake.history) == QUICK.attempts


def test_retry_after_is_waited_for_within_the_deadline_and_no_longer(
    fake: FakeEmbeddings, made: Made
) -> None:
    embedder = made.ready(fake)
    fake.queue(Failure(429, headers={"Retry-After": "1"}))
    began = time.monotonic()
    embedder.embed(TEXTS)
    assert 1 <= time.monotonic() - began < 2.5
    fake.queue(Failure(429, headers={"Retry-After": "3600"}))
    with pytest.raises(RateLimited) as caught:
        embedder.embed(TEXTS)
    assert caught.value.retry_after == 3600
    assert time.monotonic() - began < 3.5


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (changed(data=[]), "0 vectors for 4 texts"),
        (Changed(lambda answer: {**answer, "data": answer["data"][1:]}), "3 vectors for 4 texts"),
        (Changed(lambda answer: {**answer, "data": answer["data"] * 2}), "8 vectors for 4 texts"),
        (first_item({"index": 0}), "indexes"),
        (first_item({"index": 99}), "indexes"),
        (first_item({"embedding": [1.0] * 31}), "different lengths"),
        (first_item({"embedding": [math.nan] * 32}), "not finite"),
        (first_item({"embedding": [math.inf] * 32}), "not finite"),
        (first_item({"embedding": [0.0] * 32}), "zeros"),
        (first_item({"embedding": "gAAAgD8="}), "no embeddings"),
        (first_item({"embedding": [None] * 32}), "no embeddings"),
        (Changed(lambda answer: b"[1, 2]"), "no embeddings"),
        (Changed(lambda answer: json.dumps(answer).encode()[:-40]), "no embeddings"),
        (changed(error={"message": "overloaded"}), "overloaded"),
        (Page(), "web page"),
        (Page(content_type="text/plain"), "no embeddings"),
        (Failure(400, "input too long"), "input too long.*max_tokens"),
        (Failure(401), "check the key"),
        (Failure(404), "model's name"),
        (Failure(302, headers={"Location": "http://127.0.0.1:1/"}), "302"),
        (Failure(429, "no money", code="insufficient_quota"), "no quota"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_trying_again_does_not_change_fails_at_once(
    fake: FakeEmbeddings, made: Made, failure: Any, says: str
) -> None:
    embedder = made.ready(fake)
    fake.queue(failure)
    with pytest.raises(EmbeddingError, match=f"(?s)127.0.0.1.*{says}"):
        embedder.embed(TEXTS)
    assert len(fake.history) == 1


def test_vectors_of_another_dimension_are_refused(fake: FakeEmbeddings, made: Made) -> None:
    embedder = made.ready(fake)
    shorter = Changed(
        lambda answer: {
            **answer,
            "data": [{**item, "embedding": item["embedding"][:16]} for item in answer["data"]],
        }
    )
    fake.queue(shorter)
    with pytest.raises(EmbeddingError, match="16 numbers instead of 32"):
        embedder.embed(TEXTS)


def test_an_answer_that_breaks_off_is_tried_again_and_then_refused(fake: FakeEmbeddings, made: Made) -> None:
    class Half:
        def send(self, exchange: Any) -> None:
            exchange.respond(200, b'{"data": [{"index": 0, "emb', declared=5000)

    embedder = made.ready(fake)
    fake.queue(Half())
    assert embedder.embed(TEXTS).shape == (4, 32)
    fake.queue(*[Half()] * 5)
    with pytest.raises(EmbeddingError, match="breaks off"):
        embedder.embed(TEXTS)


@pytest.mark.parametrize("headers", [False, True], ids=["body", "headers"])
def test_a_dripping_server_is_left_at_the_deadline(fake: FakeEmbeddings, made: Made, headers: bool) -> None:
    embedder = made.ready(fake, EndpointAccess(timeout_seconds=1, attempts=5))
    fake.queue(*[Drip(0.1, headers)] * 5)
    began = time.monotonic()
    with pytest.raises(ServiceUnavailable, match="deadline"):
        embedder.embed(TEXTS)
    assert time.monotonic() - began < 1.8


def test_an_endless_answer_is_cut_off(fake: FakeEmbeddings, made: Made) -> None:
    embedder = made.ready(fake, EndpointAccess(batch_texts=4, timeout_seconds=10))
    fake.queue(Changed(lambda answer: b'{"data": ["' + b"x" * 3_000_000))
    with pytest.raises(EmbeddingError, match=r"more than [0-9]+ bytes"):
        embedder.embed(TEXTS)


def test_an_endpoint_whose_model_changed_is_refused_before_any_vector_is_made(
    fake: FakeEmbeddings, made: Made
) -> None:
    embedder = made.load(fake)
    fake.history.clear()
    fake.model = "another model"
    for _ in range(2):
        with pytest.raises(EmbedderMismatch, match=r"another model now.*llmops model import"):
            embedder.embed(TEXTS)
    assert fake.texts == [embedder.description.probe.text] * 2
    fake.model = "hash"
    assert embedder.embed(TEXTS).shape == (4, 32)


def test_an_endpoint_whose_vectors_have_another_length_now_is_refused(
    fake: FakeEmbeddings, made: Made
) -> None:
    embedder = made.load(fake)
    fake.queue(first_item({"embedding": [1.0] * 48}))
    with pytest.raises(EmbedderMismatch, match="48 numbers instead of 32"):
        embedder.embed(TEXTS)


def test_an_endpoint_that_begins_to_normalise_is_the_same(fake: FakeEmbeddings, made: Made) -> None:
    embedder = made.load(fake)
    fake.queue(
        Changed(
            lambda answer: {
                **answer,
                "data": [{**i, "embedding": [x / 3 for x in i["embedding"]]} for i in answer["data"]],
            }
        )
    )
    assert embedder.embed(TEXTS).shape == (4, 32)


def test_the_probe_is_looked_at_again_after_an_hour(
    fake: FakeEmbeddings, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = made.ready(fake)
    embedder.embed(TEXTS)
    assert len(fake.history) == 1
    monkeypatch.setattr(remote_model, "_CHECK_SECONDS", 0.0)
    fake.model = "another model"
    with pytest.raises(EmbedderMismatch):
        embedder.embed(TEXTS)


def test_the_fingerprint_changes_with_model_endpoint_and_prefix_and_with_nothing_operational(
    fake: FakeEmbeddings, made: Made
) -> None:
    def fingerprint(access: EndpointAccess = QUICK, **fields: Any) -> str:
        return made.load(fake, access, name=f"made-{len(fake.history)}", **fields).fingerprint

    before = fingerprint()
    assert fingerprint(EndpointAccess(key_variable="HOME", batch_texts=1, max_tokens=9)) == before
    others = [
        fingerprint(model="other"),
        fingerprint(query_prefix="query: "),
        fingerprint(max_tokens=100),
        fingerprint(shorten=True, dimension=16),
    ]
    with FakeEmbeddings() as elsewhere:
        assert isinstance(elsewhere, FakeEmbeddings)
        others.append(made.load(elsewhere, name="elsewhere").fingerprint)
    assert len({before, *others}) == len(others) + 1


def test_a_dimension_that_the_endpoint_does_not_give_is_refused_when_it_is_registered(
    fake: FakeEmbeddings, made: Made
) -> None:
    with pytest.raises(ConfigurationError, match=r"32 numbers.*dimension is 64"):
        made.save(fake, dimension=64)
    assert not (made.folder / "embedder").exists()


@pytest.mark.parametrize("url", ["http://user:secret@host/v1", "host:80", "http://host/v1?key=secret"])
def test_a_url_that_is_no_plain_base_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url") as caught:
        OpenAIPlace(url=url, model="hash", dimension=32)
    assert "secret" not in str(caught.value)


def test_a_key_is_sent_to_its_own_host_and_is_in_no_file_error_or_log(
    tmp_path: Path, made: Made, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "key"
    file.write_text(KEY)
    file.chmod(0o600)
    monkeypatch.setenv("EMBEDDINGS_KEY", KEY)
    messages = []
    with FakeEmbeddings(key=KEY) as fake, FakeEmbeddings() as other:
        assert isinstance(fake, FakeEmbeddings)
        assert isinstance(other, FakeEmbeddings)
        by_file = EndpointAccess(key_file=str(file))
        by_variable = EndpointAccess(key_variable="EMBEDDINGS_KEY")
        folder = made.save(fake, by_file)
        endpoints = {fake.host: by_file}
        embedder = Embedder.load(folder, endpoints=endpoints)
        assert embedder.embed(TEXTS).shape == (4, 32)
        assert Embedder.load(folder, endpoints={fake.host: by_variable}).embed(TEXTS).shape == (4, 32)
        Embedder.load(made.save(other, name="other"), endpoints=endpoints).embed(TEXTS)
        assert not any("Authorization" in asked.headers for asked in other.history)
        for failure in (Failure(400, f"bad {KEY}"), Page(f"<p>{KEY}", "text/plain"), Failure(403, KEY)):
            fake.queue(failure)
            with pytest.raises(EmbeddingError) as caught:
                embedder.embed(TEXTS)
            messages.append(str(caught.value))
        with pytest.raises(EmbeddingError, match="401"):
            Embedder.load(folder).embed(TEXTS)
    assert "***" in messages[0]
    written = "".join(path.read_text() for path in folder.iterdir())
    assert KEY not in "".join(messages) + caplog.text + written + embedder.fingerprint + repr(by_file)


def test_a_key_that_is_missing_is_named(
    fake: FakeEmbeddings, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made.save(fake)
    monkeypatch.delenv("EMBEDDINGS_KEY", raising=False)
    for access, says in (
        (EndpointAccess(key_variable="EMBEDDINGS_KEY"), "EMBEDDINGS_KEY.*not set"),
        (EndpointAccess(key_file="/nowhere/key"), "/nowhere/key"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            Embedder.load(folder, endpoints={fake.host: access}).embed(TEXTS)


def test_a_databricks_endpoint_is_asked_with_the_token_of_its_own_workspace_alone(
    made: Made, tokenizer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeEmbeddings(key=KEY) as fake:
        assert isinstance(fake, FakeEmbeddings)
        monkeypatch.setenv("DATABRICKS_HOST", f"http://{fake.host}/")
        monkeypatch.setenv("DATABRICKS_TOKEN", KEY)
        place = DatabricksPlace(endpoint="hash", dimension=32)
        folder = save_remote(place, made.folder / "bricks", tokenizer, {})
        description = json.loads((folder / "embedder.json").read_text())
        assert (description["kind"], description["host"]) == ("databricks", f"http://{fake.host}")
        embedder = Embedder.load(folder)
        assert np.allclose(embedder.embed(TEXTS), HashEmbedder(32).embed(TEXTS), atol=1e-6)
        assert fake.history[-1].path == "/serving-endpoints/hash/invocations"
        assert fake.history[-1].body == {"model": "hash", "input": TEXTS, "encoding_format": "float"}
        monkeypatch.setenv("DATABRICKS_HOST", "https://another.cloud.databricks.com")
        with pytest.raises(EmbeddingError, match="401"):
            Embedder.load(folder).embed(TEXTS)
        assert "Authorization" not in fake.history[-1].headers


def test_a_databricks_endpoint_without_a_workspace_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABRICKS_HOST", raising=False)
    with pytest.raises(ConfigurationError, match="DATABRICKS_HOST is not set"):
        DatabricksPlace(endpoint="hash", dimension=32).target()
