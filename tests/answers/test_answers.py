from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from llmops.answers import (
    AnswerChunk,
    AnswerOutcome,
    Feedback,
    close_answer,
    open_answer,
    open_pool,
    read_answer,
    read_answers,
    read_feedback,
    record_feedback,
)
from llmops.errors import ConfigurationError, MissingInput, ServiceUnavailable
from support.services import FreshDatabase

OUTCOME = AnswerOutcome(
    text="Use a pool [1].",
    chunks=(AnswerChunk("c1", "d1", "v1", True), AnswerChunk("c2", "d2", "v7", False)),
    usage={"prompt_tokens": 12, "completion_tokens": 5},
    latency_seconds=0.25,
)


@pytest.fixture
def url(database: FreshDatabase) -> str:
    return database.url("llmops_serving")


@pytest.fixture
def pool(url: str) -> Iterator[ConnectionPool]:
    with open_pool(url, size=4) as pool:
        yield pool


def opened(database: str | ConnectionPool, question: str = "How do I pool?", assistant: str = "guide") -> str:
    return open_answer(database, assistant=assistant, release_id="r" * 64, question=question)


def test_an_answer_is_in_the_log_before_its_first_byte_and_whole_after_its_last(pool: ConnectionPool) -> None:
    answer_id = opened(pool)
    before = read_answer(pool, answer_id)
    assert (before.status, before.text, before.chunks, before.closed_at) == ("open", "", (), None)
    assert (before.assistant, before.release_id, before.question) == ("guide", "r" * 64, "How do I pool?")

    close_answer(pool, answer_id, OUTCOME)

    after = read_answer(pool, answer_id)
    assert (after.status, after.text, after.refused) == ("complete", OUTCOME.text, False)
    assert after.chunks == OUTCOME.chunks
    assert after.usage == OUTCOME.usage
    assert after.latency_seconds == 0.25
    assert after.closed_at is not None
    assert after.closed_at >= after.created_at == before.created_at


def test_closing_twice_keeps_the_first_outcome(url: str) -> None:
    answer_id = opened(url)
    close_answer(url, answer_id, OUTCOME)
    once = read_answer(url, answer_id)
    close_answer(url, answer_id, replace(OUTCOME, text="Something else.", status="failed"))
    assert read_answer(url, answer_id) == once


def test_a_failed_answer_and_a_refusal_are_told_apart(url: str) -> None:
    failed, refused = opened(url), opened(url)
    close_answer(url, failed, AnswerOutcome(text="Use a", status="failed"))
    close_answer(url, refused, AnswerOutcome(text="I cannot answer that.", refused=True))
    assert (read_answer(url, failed).status, read_answer(url, failed).refused) == ("failed", False)
    assert (read_answer(url, refused).status, read_answer(url, refused).refused) == ("complete", True)


def test_an_answer_that_was_never_opened_cannot_be_closed_or_read(url: str) -> None:
    with pytest.raises(MissingInput, match="'unknown'"):
        close_answer(url, "unknown", OUTCOME)
    with pytest.raises(MissingInput, match="'unknown'"):
        read_answer(url, "unknown")


def test_answers_are_read_by_time_and_assistant_oldest_first(url: str, database: FreshDatabase) -> None:
    first, second, other = opened(url), opened(url), opened(url, assistant="other")
    times = [read_answer(url, answer_id).created_at for answer_id in (first, second, other)]
    reader = database.url("llmops_worker")

    assert [a.answer_id for a in read_answers(reader)] == [first, second, other]
    assert [a.answer_id for a in read_answers(reader, assistant="guide")] == [first, second]
    assert [a.answer_id for a in read_answers(reader, since=times[1])] == [second, other]
    assert [a.answer_id for a in read_answers(reader, until=times[1])] == [first]
    assert [a.answer_id for a in read_answers(reader, limit=1)] == [first]
    assert read_answers(reader, since=datetime.now(UTC) + timedelta(days=1)) == []


def test_feedback_lands_on_the_answer_it_was_given_for_not_on_the_newest(pool: ConnectionPool) -> None:
    meant, newest = opened(pool), opened(pool)
    feedback = Feedback(meant, "down", comment="Wrong.", correction="Use AsyncConnectionPool.", person="ada")

    feedback_id = record_feedback(pool, feedback)

    assert read_feedback(pool, answer_id=newest) == []
    (stored,) = read_feedback(pool)
    assert stored.feedback_id == feedback_id
    assert (stored.answer_id, stored.rating, stored.comment) == (meant, "down", "Wrong.")
    assert (stored.correction, stored.person) == ("Use AsyncConnectionPool.", "ada")


def test_an_answer_without_feedback_has_no_rating_of_any_kind(url: str, database: FreshDatabase) -> None:
    rated, silent = opened(url), opened(url)
    record_feedback(url, Feedback(rated, "up"))
    worker = database.url("llmops_worker")
    assert [(f.answer_id, f.rating) for f in read_feedback(worker)] == [(rated, "up")]
    assert read_feedback(worker, answer_id=silent) == []


def test_feedback_on_an_unknown_answer_or_with_unusable_values_is_refused(url: str) -> None:
    answer_id = opened(url)
    with pytest.raises(MissingInput, match="take the id from the answer"):
        record_feedback(url, Feedback("unknown", "up"))
    for wrong in (
        Feedback(answer_id, "sideways"),  # type: ignore[arg-type]
        Feedback(answer_id, "up", comment="x" * 10_001),
        Feedback(answer_id, "up", correction="x" * 20_001),
        Feedback(answer_id, "up", person="x" * 201),
    ):
        with pytest.raises(ConfigurationError):
            record_feedback(url, wrong)
    assert read_feedback(url) == []


def test_texts_that_postgres_cannot_store_are_stored_as_near_as_possible(url: str) -> None:
    for question in ("NUL \0", "half a pair \ud83d", "'; DROP TABLE answer_log; --", "%s {0} \\"):
        answer_id = opened(url, question)
        close_answer(url, answer_id, AnswerOutcome(text=question))
        record_feedback(url, Feedback(answer_id, "up", comment=question))
        kept = read_answer(url, answer_id)
        assert kept.question == kept.text
        assert len(kept.question) == len(question)
        assert kept.question[:4] == question[:4].replace("\0", "\N{REPLACEMENT CHARACTER}")


def test_what_cannot_be_logged_is_refused_as_unavailable() -> None:
    away = "host=/nowhere/at/all user=llmops_serving dbname=llmops password=canary"
    with pytest.raises(ServiceUnavailable) as refused:
        opened(away)
    assert "canary" not in str(refused.value)
    with open_pool(away, wait_seconds=0.2) as pool, pytest.raises(ServiceUnavailable) as refused:
        opened(pool)
    assert "canary" not in str(refused.value)


def test_a_pool_heals_after_all_its_connections_were_cut(
    pool: ConnectionPool, database: FreshDatabase
) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: opened(pool), range(20)))
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE usename = 'llmops_serving' AND datname = current_database()"
        )
    answer_id = opened(pool)
    assert read_answer(pool, answer_id).status == "open"
    assert len(read_answers(pool)) == 21


def test_the_service_cannot_rewrite_history_and_the_worker_cannot_write_at_all(
    url: str, database: FreshDatabase
) -> None:
    answer_id = opened(url)
    forbidden = {
        "llmops_serving": [
            "DELETE FROM answer_log",
            "UPDATE answer_log SET question = 'x'",
            "UPDATE answer_log SET created_at = now()",
            "UPDATE answer_log SET release_id = 'x'",
            "INSERT INTO answer_log (answer_id, assistant, release_id, question, created_at) "
            "VALUES ('x', 'x', 'x', 'x', now())",
            "DELETE FROM feedback",
            "UPDATE feedback SET rating = 'up'",
            "TRUNCATE answer_log CASCADE",
        ],
        "llmops_worker": [
            "DELETE FROM answer_log",
            "UPDATE answer_log SET text = 'x'",
            "DELETE FROM feedback",
        ],
        "llmops_notary": ["SELECT * FROM answer_log", "SELECT * FROM feedback"],
    }
    for role, statements in forbidden.items():
        with psycopg.connect(database.url(role), autocommit=True) as connection:
            for statement in statements:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement)
    assert read_answer(url, answer_id).question == "How do I pool?"
