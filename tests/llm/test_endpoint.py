"""The client against a real HTTP server that does everything wrong that a server can."""

import logging
import socket
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from llmops.errors import ConfigurationError, LanguageModelError, LlmopsError, RateLimited, ServiceUnavailable
from llmops.llm import (
    ChatEndpoint,
    Completion,
    Drip,
    EndpointLimits,
    Failure,
    FakeLanguageModel,
    Malformed,
    Message,
    Page,
    Reply,
    Reset,
    Stall,
    Truncated,
)

QUESTION = [Message("system", "Be brief."), Message("user", "What is a pool?")]
QUICK = EndpointLimits(timeout=3, stall=1, attempts=3, backoff=0.01, longest_backoff=0.02, cooldown=0.3)
KEY = "canary-9f31c7-key"


def ask(fake: FakeLanguageModel, streamed: bool, limits: EndpointLimits = QUICK) -> Completion:
    with closing(ChatEndpoint(fake.url, "small", limits=limits)) as endpoint:
        if not streamed:
            return endpoint.complete(QUESTION)
        *pieces, last = endpoint.stream(QUESTION)
        assert isinstance(last, Completion)
        assert "".join(pieces) == last.text
        return last


both = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])


@both
def test_an_answer_comes_whole_with_its_usage(streamed: bool) -> None:
    with FakeLanguageModel("A pool  keeps\nconnections. [1]") as fake:
        answer = ask(fake, streamed)
    assert answer.text == "A pool  keeps\nconnections. [1]"
    assert answer.finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (11, 7)
    asked = fake.history[0]
    assert asked.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is a pool?"},
    ]
    assert asked.body["model"] == "small"


def test_pieces_come_before_the_answer_is_finished() -> None:
    with FakeLanguageModel(Reply("one two three", pause=0.2)) as fake:
        endpoint = ChatEndpoint(fake.url, "small", limits=QUICK)
        began = time.monotonic()
        stream = endpoint.stream(QUESTION)
        assert next(stream) == "one "
        assert time.monotonic() - began < 0.4
        assert [piece for piece in stream if isinstance(piece, str)] == ["two ", "three"]


@both
def test_an_answer_cut_at_the_token_limit_says_so(streamed: bool) -> None:
    with FakeLanguageModel(Reply("It is", finish_reason="length")) as fake:
        assert ask(fake, streamed).finish_reason == "length"


@both
@pytest.mark.parametrize(
    "failure",
    [Failure(500), Failure(503), Failure(429), Failure(429, headers={"Retry-After": "0"}), Reset(), Stall(9)],
    ids=["500", "503", "429", "429 with Retry-After", "reset", "stall"],
)
def test_a_failure_before_the_answer_is_tried_again(streamed: bool, failure: object) -> None:
    with FakeLanguageModel(failure, "A pool.") as fake:
        assert ask(fake, streamed).text == "A pool."
    assert len(fake.history) == 2


@both
@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (Failure(500), ServiceUnavailable),
        (Failure(429), RateLimited),
        (Reset(), ServiceUnavailable),
        (Truncated("A pool keeps connections.", events=0), LanguageModelError),
    ],
    ids=["500", "429", "reset", "truncated"],
)
def test_attempts_are_bounded(streamed: bool, failure: object, error: type[LlmopsError]) -> None:
    with FakeLanguageModel(*[failure] * 5) as fake, pytest.raises(error):
        ask(fake, streamed)
    assert len(fake.history) == QUICK.attempts


@both
@pytest.mark.parametrize(
    "failure",
    [
        Failure(400, "context too long"),
        Failure(401),
        Failure(404),
        Failure(302, headers={"Location": "http://127.0.0.1:1/"}),
        Failure(429, "no money", code="insufficient_quota"),
        Page(),
        Page(content_type="text/plain"),
        Malformed(),
        Malformed(b"data: \xff\xfe\n\n"),
        Malformed(b'data: {"choices": "none"}\n\n'),
        Malformed(b'data: {"error": {"message": "overloaded"}}\n\n'),
        Reply(""),
        Reply("I cannot", finish_reason="content_filter"),
        Reply("", finish_reason="tool_calls"),
    ],
    ids=lambda failure: f"{type(failure).__name__} {str(failure)[:60]}",
)
def test_what_trying_again_does_not_change_fails_at_once(streamed: bool, failure: object) -> None:
    with (
        FakeLanguageModel(failure, failure, failure, "Never asked.") as fake,
        pytest.raises(LanguageModelError),
    ):
        ask(fake, streamed)
    without_any_event = streamed and failure == Page(content_type="text/plain")
    assert len(fake.history) == (QUICK.attempts if without_any_event else 1)


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (Truncated("A pool keeps connections open.", events=2), LanguageModelError),
        (Reset("A pool keeps connections open.", events=2), ServiceUnavailable),
        (Stall(9, "A pool keeps connections open.", events=2), ServiceUnavailable),
    ],
    ids=["truncated", "reset", "stall"],
)
def test_a_stream_that_breaks_after_its_first_piece_raises_and_is_not_repeated(
    failure: object, error: type[LlmopsError]
) -> None:
    pieces: list[object] = []
    with FakeLanguageModel(failure, "Another answer.") as fake:
        endpoint = ChatEndpoint(fake.url, "small", limits=QUICK)
        with pytest.raises(error):
            pieces.extend(iter(endpoint.stream(QUESTION)))
    assert len(fake.history) == 1


@both
@pytest.mark.parametrize("headers", [False, True], ids=["body", "headers"])
def test_a_dripping_server_is_left_at_the_deadline(streamed: bool, headers: bool) -> None:
    limits = EndpointLimits(timeout=1.0, stall=0.8, attempts=2)
    began = time.monotonic()
    with (
        FakeLanguageModel(*[Drip(0.1, headers)] * 2) as fake,
        pytest.raises(ServiceUnavailable, match="deadline"),
    ):
        ask(fake, streamed, limits)
    assert time.monotonic() - began < 1.6


def test_retry_after_is_honoured_within_the_deadline() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    with FakeLanguageModel(Failure(429, headers={"Retry-After": soon}), "A pool.") as fake:
        began = time.monotonic()
        assert ask(fake, False).text == "A pool."
    assert 0.8 < time.monotonic() - began < 2.8


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_beyond_the_deadline_is_not_waited_for(status: int) -> None:
    began = time.monotonic()
    with (
        FakeLanguageModel(Failure(status, headers={"Retry-After": "3600"}), "A pool.") as fake,
        pytest.raises((RateLimited, ServiceUnavailable)) as caught,
    ):
        ask(fake, False)
    assert time.monotonic() - began < 1
    assert len(fake.history) == 1
    assert status != 429 or caught.value.retry_after == 3600


def test_an_endpoint_that_is_down_is_not_waited_for_again_and_again() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    endpoint = ChatEndpoint(f"http://127.0.0.1:{port}/v1", "small", limits=QUICK)
    for _ in range(QUICK.failures):
        with pytest.raises(ServiceUnavailable, match="cannot be reached"):
            endpoint.complete(QUESTION)
    began = time.monotonic()
    with pytest.raises(ServiceUnavailable, match="in a row"):
        endpoint.complete(QUESTION)
    assert time.monotonic() - began < 0.01
    with FakeLanguageModel("Back again.", port=port):
        time.sleep(QUICK.cooldown)
        assert endpoint.complete(QUESTION).text == "Back again."


def test_errors_of_the_request_do_not_count_as_being_down() -> None:
    with FakeLanguageModel(*[Failure(400)] * 6, "Fine.") as fake:
        endpoint = ChatEndpoint(fake.url, "small", limits=QUICK)
        for _ in range(6):
            with pytest.raises(LanguageModelError):
                endpoint.complete(QUESTION)
        assert endpoint.complete(QUESTION).text == "Fine."


@both
def test_an_endless_answer_is_cut_off(streamed: bool) -> None:
    limits = EndpointLimits(timeout=5, response_bytes=10_000)
    with FakeLanguageModel("word " * 5_000) as fake, pytest.raises(LanguageModelError, match="10000 bytes"):
        ask(fake, streamed, limits)


def test_the_key_is_sent_and_in_no_error_or_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    echoes = [
        Failure(500, f"your key {KEY}"),
        Failure(400, f"bad key {KEY}"),
        Page(f"<p>{KEY}", "text/plain"),
    ]
    with FakeLanguageModel(*echoes, "Fine.", key=KEY) as fake:
        endpoint = ChatEndpoint(fake.url, "small", key=KEY, limits=QUICK)
        messages = []
        for _ in range(2):
            with pytest.raises(LanguageModelError) as caught:
                endpoint.complete(QUESTION)
            messages.append(str(caught.value))
        assert endpoint.complete(QUESTION).text == "Fine."
    assert KEY not in "".join(messages)
    assert KEY not in caplog.text
    assert "***" in messages[0]


def test_many_threads_share_one_endpoint() -> None:
    with FakeLanguageModel(respond=lambda messages: messages[-1]["content"]) as fake:
        endpoint = ChatEndpoint(fake.url, "small", limits=EndpointLimits(connections=4))
        answers: dict[int, str] = {}

        def one(number: int) -> None:
            answers[number] = endpoint.complete([Message("user", f"number {number}")]).text

        threads = [threading.Thread(target=one, args=(n,)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == {n: f"number {n}" for n in range(20)}


def test_an_endpoint_that_refuses_to_count_streams_is_asked_without() -> None:
    refusal = Failure(400, "unknown field stream_options")
    with FakeLanguageModel(refusal, "One.", "Two.") as fake:
        endpoint = ChatEndpoint(fake.url, "small", limits=QUICK)
        for text in ("One.", "Two."):
            *_, last = endpoint.stream(QUESTION)
            assert isinstance(last, Completion)
            assert last.text == text
    assert ["stream_options" in asked.body for asked in fake.history] == [True, False, False]


def test_an_abandoned_stream_gives_its_connection_back() -> None:
    with FakeLanguageModel(Reply("one two three", pause=0.05), "Fine.") as fake:
        endpoint = ChatEndpoint(fake.url, "small", limits=EndpointLimits(timeout=2, connections=1))
        stream = endpoint.stream(QUESTION)
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        assert endpoint.complete(QUESTION).text == "Fine."


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("{host}", "/v1/chat/completions"),
        ("{host}/v1/", "/v1/chat/completions"),
        ("{host}/v1/chat/completions", "/v1/chat/completions"),
    ],
)
def test_the_url_may_be_written_in_the_usual_ways(url: str, path: str) -> None:
    with FakeLanguageModel("Fine.") as fake:
        ChatEndpoint(url.format(host=fake.url.removesuffix("/v1")), "small", limits=QUICK).complete(QUESTION)
    assert fake.history[0].path == path


@pytest.mark.parametrize(
    "url",
    ["ftp://host/v1", "host:8000", "http://user:secret@host/v1", "http://host/v1?key=secret", "http://"],
)
def test_a_url_that_is_no_plain_base_url_is_refused_without_quoting_a_secret(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ChatEndpoint(url, "small")
    assert "secret" not in str(caught.value)
