"""The notary's reader asks Airflow over HTTP, logs in again when its token has expired, and never guesses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from llmops.errors import ServiceUnavailable
from llmops.release import AirflowReader, ApprovalRequest
from support.http import FakeService, listening

_RUN = "/api/v2/dags/release_assistant/dagRuns/manual%2F%C3%BC"
_ANSWER = f"{_RUN}/taskInstances/ask_reviewer/-1/hitlDetails"


class Airflow:
    """What the fake answers: a page per path, to whoever shows a token that was not revoked."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[int, str]] = {}
        self.logins: list[dict[str, str]] = []
        self.tokens: set[str] = set()
        self.url = ""

    def serve(self, path: str, page: Any, status: int = 200) -> None:
        self.pages[path] = (status, page if isinstance(page, str) else json.dumps(page))

    def log_in(self, login: dict[str, str]) -> str:
        self.logins.append(login)
        token = f"token-{len(self.logins)}"
        self.tokens = {token}
        return token


@pytest.fixture
def airflow() -> Iterator[Airflow]:
    fake = Airflow()

    class Handler(FakeService):
        def do_POST(self) -> None:
            login = json.loads(self.body())
            if self.path == "/auth/token" and login["password"] == "secret":
                self.reply(201, json.dumps({"access_token": fake.log_in(login)}).encode())
            else:
                self.reply(401)

        def do_GET(self) -> None:
            if self.headers["Authorization"].removeprefix("Bearer ") not in fake.tokens:
                return self.reply(401)
            status, page = fake.pages.get(self.path, (404, ""))
            return self.reply(status, page.encode())

    with listening(Handler) as fake.url:
        yield fake


@pytest.fixture
def request_of_a_run() -> ApprovalRequest:
    return ApprovalRequest(
        nonce=uuid4(), release_id="a" * 64, report_hash="b" * 64, assistant="guide", environment="dev",
        deadline=datetime.now(UTC), dag_id="release_assistant", run_id="manual/ü", task_id="ask_reviewer",
        opened_at=datetime.now(UTC),
    )  # fmt: skip


@pytest.fixture
def reader(airflow: Airflow) -> AirflowReader:
    return AirflowReader(airflow.url, "notary", "secret")


def test_it_reads_the_answer_of_a_run_with_one_login(
    airflow: Airflow, reader: AirflowReader, request_of_a_run: ApprovalRequest
) -> None:
    assert reader.answer(request_of_a_run) is None
    airflow.serve(_ANSWER, {"response_received": True})
    assert reader.answer(request_of_a_run) == {"response_received": True}
    assert airflow.logins == [{"username": "notary", "password": "secret"}]


def test_it_logs_in_again_when_its_token_has_expired(
    airflow: Airflow, reader: AirflowReader, request_of_a_run: ApprovalRequest
) -> None:
    airflow.serve(_ANSWER, {"response_received": False})
    reader.answer(request_of_a_run)
    airflow.tokens.clear()
    assert reader.answer(request_of_a_run) == {"response_received": False}
    assert len(airflow.logins) == 2


def test_it_reads_the_run_that_asks_until_that_is_deleted(
    airflow: Airflow, reader: AirflowReader, request_of_a_run: ApprovalRequest
) -> None:
    assert reader.run(request_of_a_run) is None
    airflow.serve(_RUN, {"state": "running", "triggered_by": "ui", "triggering_user_name": "author"})
    assert (reader.run(request_of_a_run) or {})["triggering_user_name"] == "author"


@pytest.mark.parametrize(
    "break_it",
    [
        lambda airflow: airflow.serve(_ANSWER, "no", status=500),
        lambda airflow: airflow.serve(_ANSWER, "<html>"),
        lambda airflow: airflow.serve(_ANSWER, ["a list"]),
        lambda airflow: airflow.serve(_ANSWER, "no", status=403),
    ],
    ids=["error", "no JSON", "no record", "forbidden"],
)
def test_what_is_no_answer_is_an_outage_and_not_a_missing_answer(
    airflow: Airflow,
    reader: AirflowReader,
    request_of_a_run: ApprovalRequest,
    break_it: Callable[[Airflow], None],
) -> None:
    break_it(airflow)
    with pytest.raises(ServiceUnavailable, match="Airflow at"):
        reader.answer(request_of_a_run)


def test_a_wrong_password_and_a_silent_airflow_are_outages_too(
    airflow: Airflow, request_of_a_run: ApprovalRequest
) -> None:
    for reader in (
        AirflowReader(airflow.url, "notary", "wrong"),
        AirflowReader("http://127.0.0.1:9", "notary", "secret"),
    ):
        with pytest.raises(ServiceUnavailable, match="Airflow at"):
            reader.answer(request_of_a_run)
