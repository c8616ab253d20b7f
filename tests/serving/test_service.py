"""The service over real HTTP, with the answer log in a real Postgres."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import openai
import psycopg
import pytest

from llmops.answers import read_answer, read_answers, read_feedback
from llmops.chain import MAX_QUESTION, REFUSAL
from llmops.errors import MissingInput, ServiceUnavailable
from llmops.llm import Failure, FakeLanguageModel, Page, Reply, Reset, Stall, Truncated
from llmops.release import code_digest
from llmops.serving import ServiceLimits, create_app
from serving.conftest import QUICK, FakeRelease, FakeSource, ask, served, wait_until
from support.passages import KILN, PROMPT, Shelf, bare_chain, chat_chain, extractive_chain
from support.services import FreshDatabase

QUESTION = "How do I open the damper before I light the burner of the kiln?"
CANARY = "canary-5d02-key"
LONG = b'{"model": "guide", "messages": [{"role": "user", "content": "%s"}]}' % (b"x" * (MAX_QUESTION + 1))


def client(base: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{base}/v1", api_key="any", max_retries=0)


def quotes(release_id: str = "r1") -> FakeSource:
    return FakeSource({"guide": FakeRelease(release_id, extractive_chain(threshold=0.4))})


def chatting(fake: FakeLanguageModel, release_id: str = "r1", **settings: object) -> FakeSource:
    return FakeSource({"guide": FakeRelease(release_id, chat_chain(fake.url, **settings))})


def test_the_openai_client_gets_a_cited_and_logged_answer(database: FreshDatabase, log_url: str) -> None:
    with served(quotes(), log_url) as base:
        answer = client(base).chat.completions.create(
            model="guide", messages=[{"role": "user", "content": QUESTION}]
        )
    text = answer.choices[0].message.content
    assert text is not None
    assert "Open the lower damper before you light the burner. [1]" in text
    assert answer.choices[0].finish_reason == "stop"
    extra = answer.model_extra
    assert extra is not None
    assert extra["release"] == "r1"
    assert extra["refused"] is False
    assert extra["citations"][0] == {
        "number": 1,
        "chunk_id": KILN.chunk_id,
        "document_id": KILN.document_id,
        "document_version": KILN.document_version,
        "source": "guide",
        "path": "kiln.start",
        "heading_path": ["Kiln", "Starting the kiln"],
    }
    logged = read_answer(database.url("llmops_worker"), extra["answer_id"])
    assert (logged.assistant, logged.release_id, logged.question) == ("guide", "r1", QUESTION)
    assert (logged.text, logged.status, logged.refused) == (text, "complete", False)
    assert {(c.chunk_id, c.cited) for c in logged.chunks} == {
        ("chunk-kiln.start", True), ("chunk-glaze", False), ("chunk-clay", False),
    }  # fmt: skip


def test_the_openai_client_streams_the_same_answer(database: FreshDatabase, log_url: str) -> None:
    with (
        FakeLanguageModel(Reply("Open the damper [1] first.")) as fake,
        served(chatting(fake), log_url) as base,
    ):
        chunks = list(
            client(base).chat.completions.create(
                model="guide",
                messages=[{"role": "user", "content": [{"type": "text", "text": QUESTION}]}],
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "Open the damper [1] first."
    assert len(chunks) > 4
    last, usage = chunks[-2], chunks[-1].usage
    assert last.choices[0].finish_reason == "stop"
    assert usage is not None
    assert usage.total_tokens == 18
    assert last.model_extra is not None
    assert last.model_extra["citations"][0]["chunk_id"] == KILN.chunk_id
    logged = read_answer(database.url("llmops_worker"), last.model_extra["answer_id"])
    assert (logged.text, logged.status) == (text, "complete")
    assert logged.usage == {"prompt_tokens": 11, "completion_tokens": 7}


def test_a_refusal_is_an_answer(quoting: tuple[str, str]) -> None:
    base, _ = quoting
    given = ask(base, "Who won the football world cup in Brazil?").json()
    assert given["choices"][0]["message"]["content"] == REFUSAL
    assert given["refused"] is True
    assert given["citations"] == []


def test_two_assistants_are_served_side_by_side_from_their_own_releases(log_url: str) -> None:
    with FakeLanguageModel(respond=lambda messages: f"I heard: {messages[-1]['content']}") as fake:
        source = quotes("r1")
        source.production["bare"] = FakeRelease("r2", bare_chain(fake.url))
        with served(source, log_url, "guide", "bare") as base:
            wait_until(lambda: httpx.get(f"{base}/release?assistant=bare").status_code == 200)
            assert ask(base, QUESTION).json()["release"] == "r1"
            bare = ask(base, "Hello?", model="bare").json()
            names = [m.id for m in client(base).models.list()]
            assert httpx.get(f"{base}/release").json() == {"assistant": "guide", "release": "r1"}
    assert (bare["release"], bare["citations"]) == ("r2", [])
    assert bare["choices"][0]["message"]["content"] == "I heard: Hello?"
    assert names == ["guide", "bare"]


def test_an_unknown_model_is_not_found(quoting: tuple[str, str]) -> None:
    base, _ = quoting
    with pytest.raises(openai.NotFoundError, match="guide") as caught:
        client(base).chat.completions.create(model="other", messages=[{"role": "user", "content": "?"}])
    assert httpx.get(f"{base}/release?assistant=other").status_code == 404
    assert httpx.get(f"{base}/nothing").json()["error"]["type"] == "invalid_request_error"
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"not json", 400),
        (b"[" * 60_000, 400),
        (b'{"model": "guide"}', 400),
        (b'{"model": "guide", "messages": []}', 400),
        (b'{"model": "guide", "messages": [{"role": "user", "content": "  "}]}', 400),
        (b'{"model": "guide", "messages": [{"role": "assistant", "content": "x"}]}', 400),
        (b'{"model": "guide", "n": 5, "messages": [{"role": "user", "content": "x"}]}', 400),
        (b'{"model": "guide", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', 400),
        (LONG, 400),
        (b" " * 65_537, 413),
        (b"x" * 10_000_000, 413),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_a_request_out_of_bounds_is_refused_quickly_and_never_logged(
    quoting: tuple[str, str], body: bytes, status: int, streamed: bool
) -> None:
    base, log_url = quoting
    before = len(read_answers(log_url))
    if streamed:
        body = body.replace(b'{"model"', b'{"stream": true, "model"')
    began = time.monotonic()
    response = httpx.post(
        f"{base}/v1/chat/completions", content=body, headers={"Content-Type": "application/json"}
    )
    assert time.monotonic() - began < 2
    assert response.status_code == status
    assert response.json()["error"]["message"]
    assert ask(base, QUESTION).status_code == 200
    assert len(read_answers(log_url)) == before + 1


def test_a_body_of_undeclared_length_is_cut_off(quoting: tuple[str, str]) -> None:
    base, _ = quoting
    response = httpx.post(
        f"{base}/v1/chat/completions",
        content=(b" " * 8192 for _ in range(100)),
        headers={"Content-Type": "application/json"},
    )
    assert response.status_code == 413


def test_a_body_that_does_not_arrive_is_not_waited_for(quoting: tuple[str, str]) -> None:
    base, _ = quoting
    place = urlsplit(base)
    with socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=10) as slow:
        slow.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 500\r\n\r\n{"
        )
        assert b"408" in slow.recv(200).split(b"\r\n")[0]


def test_only_json_is_taken_so_that_web_pages_of_others_cannot_post(quoting: tuple[str, str]) -> None:
    base, _ = quoting
    for path in ("/v1/chat/completions", "/v1/feedback"):
        response = httpx.post(base + path, content=b"{}", headers={"Content-Type": "text/plain"})
        assert response.status_code == 415


def test_feedback_lands_on_the_answer_it_was_given_for(database: FreshDatabase, log_url: str) -> None:
    with served(quotes(), log_url) as base:
        first = ask(base, QUESTION).json()["answer_id"]
        second = ask(base, "Does clay shrink when it is fired?").json()["answer_id"]
        opinion = {"answer_id": first, "rating": "down", "comment": "<b>no</b>", "correction": "Open both."}
        response = httpx.post(f"{base}/v1/feedback", json=opinion)
        assert response.status_code == 200
        stored = read_feedback(database.url("llmops_worker"))
        assert [f.feedback_id for f in stored] == [response.json()["feedback_id"]]
        assert (stored[0].answer_id, stored[0].rating) == (first, "down")
        assert (stored[0].comment, stored[0].correction) == ("<b>no</b>", "Open both.")
        assert read_feedback(database.url("llmops_worker"), answer_id=second) == []
        unknown = httpx.post(f"{base}/v1/feedback", json={"answer_id": "none", "rating": "up"})
        assert unknown.status_code == 404
        for wrong in ({"rating": "up"}, {"answer_id": first, "rating": "5"}, {**opinion, "extra": 1}):
            assert httpx.post(f"{base}/v1/feedback", json=wrong).status_code == 400


def test_what_cannot_be_logged_is_not_generated(database: FreshDatabase, log_url: str) -> None:
    shelf = Shelf()
    source = FakeSource({"guide": FakeRelease("r1", extractive_chain(shelf, threshold=0.4))})
    with served(source, log_url) as base:
        assert ask(base, QUESTION).status_code == 200
        searched = len(shelf.questions)
        with psycopg.connect(database.admin_url, autocommit=True) as admin:
            admin.execute("ALTER TABLE answer_log RENAME TO gone")
            for streamed in (False, True):
                assert ask(base, QUESTION, stream=streamed).status_code in {500, 503}
            assert len(shelf.questions) == searched
            admin.execute("ALTER TABLE gone RENAME TO answer_log")
        assert ask(base, QUESTION).status_code == 200


def test_a_part_of_the_release_that_is_gone_is_no_fault_of_the_caller(log_url: str) -> None:
    shelf = Shelf()
    source = FakeSource({"guide": FakeRelease("r1", extractive_chain(shelf))})
    with served(source, log_url) as base:
        shelf.fail = MissingInput("there is no index generation 'secret_name'")
        response = ask(base, QUESTION)
        assert response.status_code == 500
        assert "secret_name" not in response.text
        (record,) = read_answers(log_url)
        assert (record.status, record.answer_id in response.text) == ("failed", True)


def test_without_postgres_nothing_is_answered_and_it_says_so(log_url: str) -> None:
    shelf = Shelf()
    source = FakeSource({"guide": FakeRelease("r1", extractive_chain(shelf))})
    with served(source, "host=/nowhere dbname=llmops user=x", wait=False) as base:
        wait_until(lambda: httpx.get(f"{base}/release").status_code == 200)
        response = ask(base, QUESTION)
        assert response.status_code == 503
        assert response.json()["error"]["type"] == "server_error"
        ready = httpx.get(f"{base}/readyz", timeout=10)
        assert (ready.status_code, ready.json()["ready"]) == (503, False)
        assert httpx.get(f"{base}/healthz").status_code == 200
    assert QUESTION not in shelf.questions


@pytest.mark.parametrize(
    ("failure", "status"),
    [(Failure(429), 429), (Failure(500), 503), (Failure(401), 502), (Page(), 502), (Stall(9), 503)],
    ids=["429", "500", "401", "page", "stall"],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_a_failing_language_model_is_a_clear_error_and_a_failed_record(
    database: FreshDatabase, log_url: str, failure: object, status: int, streamed: bool
) -> None:
    seconds = 1 if isinstance(failure, Stall) else 20  # what fails at once has time to be tried again
    with (
        FakeLanguageModel(*[failure] * 9) as fake,
        served(chatting(fake, timeout_seconds=seconds), log_url) as base,
        pytest.raises(openai.APIStatusError) as caught,
    ):
        client(base).chat.completions.create(
            model="guide", messages=[{"role": "user", "content": QUESTION}], stream=streamed
        )
    assert caught.value.status_code == status
    (record,) = read_answers(database.url("llmops_worker"))
    assert (record.status, record.text) == ("failed", "")


@pytest.mark.parametrize(
    "failure",
    [Truncated("Open the damper first.", events=2), Reset("Open the damper first.", events=2)],
    ids=["truncated", "reset"],
)
def test_a_stream_that_breaks_ends_in_an_error_and_not_as_an_answer(
    database: FreshDatabase, log_url: str, failure: object
) -> None:
    with FakeLanguageModel(failure) as fake, served(chatting(fake), log_url) as base:
        stream = client(base).chat.completions.create(
            model="guide", messages=[{"role": "user", "content": QUESTION}], stream=True
        )
        with pytest.raises(openai.APIError, match=r"language model|respond"):
            list(stream)
    (record,) = read_answers(database.url("llmops_worker"))
    assert record.status == "failed"
    assert "Open the damper first.".startswith(record.text)


def test_a_broken_stream_has_no_done_mark(log_url: str) -> None:
    with (
        FakeLanguageModel(Truncated("Open the damper first.", events=2)) as fake,
        served(chatting(fake), log_url) as base,
    ):
        response = ask(base, QUESTION, stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert '"error"' in response.text
    assert "[DONE]" not in response.text
    assert '"finish_reason": "stop"' not in response.text


def test_the_key_appears_nowhere(
    database: FreshDatabase, log_url: str, tmp_path: object, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    key_file = tmp_path / "key"  # type: ignore[operator]
    key_file.write_text(CANARY)
    key_file.chmod(0o600)
    seen = ""
    with (
        FakeLanguageModel(Failure(400, f"bad key {CANARY}"), Page(CANARY), "Fine. [1]", key=CANARY) as fake,
        served(chatting(fake, key_file=str(key_file)), log_url) as base,
    ):
        for streamed in (False, True, False):
            seen += ask(base, QUESTION, stream=streamed).text
        seen += httpx.get(f"{base}/readyz").text
    seen += str(read_answers(database.url("llmops_worker"))) + caplog.text
    assert "Fine. [1]" in seen
    assert CANARY not in seen


def test_too_many_callers_are_told_to_come_back_and_the_others_are_answered(log_url: str) -> None:
    limits = ServiceLimits(running=2, waiting=3, request=20, poll=0.05)
    with (
        FakeLanguageModel(respond=lambda _: time.sleep(0.5) or "Fine. [1]") as fake,
        served(chatting(fake), log_url, limits=limits) as base,
        ThreadPoolExecutor(40) as callers,
    ):
        statuses = list(callers.map(lambda _: ask(base, QUESTION).status_code, range(40)))
        assert set(statuses) == {200, 429}
        assert 5 <= statuses.count(200) < 40
        assert ask(base, QUESTION).status_code == 200


def test_an_answer_ends_at_the_requests_deadline(database: FreshDatabase, log_url: str) -> None:
    limits = ServiceLimits(request=1, poll=0.05)
    with (
        FakeLanguageModel(Stall(30), Stall(30), Stall(30)) as fake,
        served(chatting(fake), log_url, limits=limits) as base,
    ):
        for streamed in (False, True):
            began = time.monotonic()
            assert ask(base, QUESTION, stream=streamed).status_code == 503
            assert time.monotonic() - began < 2
        wait_until(lambda: {a.status for a in read_answers(database.url("llmops_worker"))} == {"failed"})


def test_a_reader_who_does_not_read_loses_the_connection_and_nobody_else_waits(
    database: FreshDatabase, log_url: str
) -> None:
    limits = ServiceLimits(running=1, waiting=4, request=2, poll=0.05)
    with (
        FakeLanguageModel("word " * 15_000, "Fine. [1]") as fake,
        served(chatting(fake), log_url, limits=limits, buffer=8192) as base,
    ):
        place = urlsplit(base)
        body = json.dumps(
            {"model": "guide", "stream": True, "messages": [{"role": "user", "content": QUESTION}]}
        )
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect((str(place.hostname), int(place.port or 0)))
            slow.sendall(
                f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
            )
            time.sleep(3.5)
            assert ask(base, QUESTION).status_code == 200
            wait_until(lambda: "failed" in {a.status for a in read_answers(database.url("llmops_worker"))})


def test_a_caller_who_leaves_is_logged_as_failed_and_frees_the_thread(
    database: FreshDatabase, log_url: str
) -> None:
    limits = ServiceLimits(running=1, waiting=0, request=20, poll=0.05)
    with (
        FakeLanguageModel(Reply("word " * 200, pause=0.05), "Fine. [1]") as fake,
        served(chatting(fake), log_url, limits=limits) as base,
    ):
        stream = client(base).chat.completions.create(
            model="guide", messages=[{"role": "user", "content": QUESTION}], stream=True
        )
        next(iter(stream))
        stream.close()
        wait_until(lambda: [a.status for a in read_answers(database.url("llmops_worker"))] == ["failed"])
        wait_until(lambda: ask(base, QUESTION).status_code == 200)


def test_a_new_release_is_swapped_in_without_dropping_a_request(
    database: FreshDatabase, log_url: str
) -> None:
    stop = threading.Event()
    statuses: list[int] = []
    releases: list[str] = []

    with FakeLanguageModel(respond=lambda _: "Fine. [1]") as fake:
        source = chatting(fake, "r0")
        with served(source, log_url) as base:

            def caller() -> None:
                while not stop.is_set():
                    response = ask(base, QUESTION)
                    statuses.append(response.status_code)
                    releases.append(response.json().get("release", "none"))

            threads = [threading.Thread(target=caller) for _ in range(4)]
            for thread in threads:
                thread.start()
            old = []
            for number in range(1, 8):
                old.append(source.production["guide"])
                source.production["guide"] = FakeRelease(f"r{number}", chat_chain(fake.url))
                wait_until(lambda n=number: httpx.get(f"{base}/release").json()["release"] == f"r{n}")
                wait_until(lambda n=number: f"r{n}" in releases)
            stop.set()
            for thread in threads:
                thread.join()
            wait_until(lambda: all(release.closed for release in old if release))
            current = source.production["guide"]
            assert current is not None
            assert not current.closed
    assert set(statuses) == {200}
    assert set(releases) >= {f"r{number}" for number in range(1, 8)}
    assert source.reports[0] == ("guide", "r0")
    assert ("guide", "r7") in source.reports
    logged = read_answers(database.url("llmops_worker"))
    assert len(logged) == len(statuses)
    assert {record.status for record in logged} == {"complete"}


def test_a_request_keeps_the_release_it_started_with(log_url: str) -> None:
    with FakeLanguageModel(Reply("one two three four", pause=0.3)) as fake:
        source = chatting(fake, "old")
        with served(source, log_url) as base:
            old = source.production["guide"]
            assert old is not None
            stream = client(base).chat.completions.create(
                model="guide", messages=[{"role": "user", "content": QUESTION}], stream=True
            )
            pieces = iter(stream)
            next(pieces)
            source.production["guide"] = FakeRelease("new", chat_chain(fake.url))
            wait_until(lambda: httpx.get(f"{base}/release").json()["release"] == "new")
            assert not old.closed
            last = list(pieces)[-1]
            assert last.model_extra is not None
            assert last.model_extra["release"] == "old"
            wait_until(lambda: old.closed)


def test_a_failing_poll_keeps_the_old_release_and_says_so(log_url: str) -> None:
    source = quotes("r1")
    with served(source, log_url) as base:
        source.fail = ServiceUnavailable("the registry is away")
        wait_until(lambda: "away" in str(httpx.get(f"{base}/readyz").json()["assistants"]["guide"]["error"]))
        assert httpx.get(f"{base}/readyz").status_code == 200
        assert ask(base, QUESTION).json()["release"] == "r1"
        source.fail = None
        source.production["guide"] = FakeRelease("r2", extractive_chain(threshold=0.4))
        wait_until(lambda: httpx.get(f"{base}/release").json()["release"] == "r2")
        assert httpx.get(f"{base}/readyz").json()["assistants"]["guide"] == {"release": "r2", "error": None}


def test_a_release_that_cannot_retrieve_is_not_swapped_in(log_url: str) -> None:
    source = quotes("r1")
    with served(source, log_url) as base:
        shelf = Shelf()
        shelf.fail = ServiceUnavailable("the index is away")
        broken = FakeRelease("r2", extractive_chain(shelf))
        source.production["guide"] = broken
        wait_until(lambda: "index" in str(httpx.get(f"{base}/readyz").json()["assistants"]["guide"]["error"]))
        assert ask(base, QUESTION).json()["release"] == "r1"
        assert broken.closed


def test_without_a_release_it_says_what_to_do(log_url: str) -> None:
    source = FakeSource()
    with served(source, log_url, wait=False) as base:
        wait_until(lambda: httpx.get(f"{base}/readyz").json()["answer_log"] == "ok")
        assert httpx.get(f"{base}/readyz").status_code == 503
        response = ask(base, QUESTION)
        assert response.status_code == 503
        assert "release_assistant" in response.json()["error"]["message"]
        assert httpx.get(f"{base}/release").status_code == 404
        source.production["guide"] = FakeRelease("r1", extractive_chain(threshold=0.4))
        wait_until(lambda: httpx.get(f"{base}/readyz").status_code == 200)
        source.production["guide"] = None
        wait_until(lambda: httpx.get(f"{base}/release").status_code == 404)


def test_a_probe_goes_through_the_whole_chain_once_per_release_and_leaves_no_answer(
    database: FreshDatabase, log_url: str
) -> None:
    with FakeLanguageModel("Fine.", "Fine.", "Fine.") as fake, served(chatting(fake), log_url) as base:
        for _ in range(3):
            probed = httpx.post(f"{base}/probe", json={"assistant": "guide"})
            assert (probed.status_code, probed.json()["release"]) == (200, "r1")
            assert probed.json()["code"] == code_digest()
        assert httpx.post(f"{base}/probe", json={"assistant": "nobody"}).status_code == 404
        assert httpx.post(f"{base}/probe", json={"assistant": "guide", "question": "?"}).status_code == 400
    assert len(fake.history) == 1
    assert read_answers(database.url("llmops_worker")) == []


def test_a_release_that_cannot_answer_fails_its_probe_and_is_not_asked_again_at_once(log_url: str) -> None:
    with (
        FakeLanguageModel(*[Failure(500)] * 9) as fake,
        served(chatting(fake, timeout_seconds=1), log_url) as base,
    ):
        first = httpx.post(f"{base}/probe", json={"assistant": "guide"}, timeout=20)
        asked = len(fake.history)
        again = httpx.post(f"{base}/probe", json={"assistant": "guide"}, timeout=20)
    assert (first.status_code, again.status_code, len(fake.history)) == (503, 503, asked)


def test_what_disagrees_with_the_release_is_said_while_it_goes_on_answering(log_url: str) -> None:
    source = FakeSource({"guide": FakeRelease("r1", extractive_chain(threshold=0.4))})
    with served(source, log_url) as base:
        source.doubts["guide"] = "the alias is elsewhere"
        wait_until(lambda: httpx.get(f"{base}/readyz").json()["assistants"]["guide"]["error"])
        ready = httpx.get(f"{base}/readyz")
        assert (ready.status_code, ready.json()["assistants"]["guide"]["error"]) == (
            200,
            "the alias is elsewhere",
        )
        assert ask(base, QUESTION).json()["release"] == "r1"


def test_no_page_or_schema_is_served_that_was_not_asked_for(log_url: str) -> None:
    app = create_app(FakeSource(), log_url, lambda: ["guide"], QUICK)
    assert sorted(getattr(route, "path", "") for route in app.routes) == [
        "/healthz", "/probe", "/readyz", "/release", "/v1/chat/completions", "/v1/feedback", "/v1/models",
    ]  # fmt: skip


def test_documents_and_questions_do_not_speak_with_the_systems_voice(log_url: str) -> None:
    shelf = Shelf([KILN])
    with FakeLanguageModel("Fine. [1]") as fake:
        source = FakeSource({"guide": FakeRelease("r1", chat_chain(fake.url, shelf, PROMPT))})
        with served(source, log_url) as base:
            assert ask(base, QUESTION).status_code == 200
    system, user = fake.history[0].messages
    assert system["role"] == "system"
    assert "damp" not in system["content"]
    assert KILN.text.strip()[:40] in user["content"]
