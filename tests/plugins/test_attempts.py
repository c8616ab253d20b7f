from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import anyio
import psycopg
import pytest
from fastapi import FastAPI, HTTPException, Request
from fastapi.testclient import TestClient

from llmops.release import RunReference, chosen_options
from llmops.settings import Environment
from release_board import attempts
from release_board.attempts import LARGEST_BODY, AttemptRecorder, _matches
from support.services import FreshDatabase

PATH = "/api/v2/dags/release_assistant/dagRuns/manual 1/taskInstances/ask_reviewer/-1/hitlDetails"
APPROVE = {"chosen_options": ["Approve"], "params_input": {}}
TOKENS = {"reviewers-token": "reviewer"}


@pytest.fixture
def asked(database: FreshDatabase) -> None:
    """An approval request of run ``manual 1``."""
    release, report = "a" * 64, "b" * 64
    with psycopg.connect(database.url("llmops_worker")) as connection:
        connection.execute(
            "INSERT INTO releases (release_id, assistant, manifest) VALUES (%s, 'g', '{}')", (release,)
        )
        connection.execute(
            "INSERT INTO gate_reports (report_hash, release_id, verdict, report, markdown) "
            "VALUES (%s, %s, 'PASS', '{}', '')",
            (report, release),
        )
        connection.execute(
            "INSERT INTO approval_requests (release_id, report_hash, assistant, environment, deadline, dag_id, run_id, "
            "task_id) VALUES (%s, %s, 'g', 'dev', now(), 'release_assistant', 'manual 1', 'ask_reviewer')",
            (release, report),
        )


@pytest.fixture
def airflow(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TestClient]:
    """A server behind the recorder that answers with one status; tokens stand for Airflow's authentication."""
    from airflow.api_fastapi.core_api import security

    async def user_of(token: str | None) -> Any:
        if token not in TOKENS:
            raise HTTPException(401 if token is None else 403)

        class User:
            def get_name(self) -> str:
                return TOKENS[token]

        return User()

    monkeypatch.setattr(security, "resolve_user_from_token", user_of)
    monkeypatch.setattr(attempts, "load_environment", lambda: environment)

    def make(status: int = 200, crash: bool = False) -> TestClient:
        app = FastAPI()

        @app.api_route("/{rest:path}", methods=["PATCH", "GET"])
        async def answer(rest: str, request: Request) -> Any:
            body = await request.body()
            if crash:
                raise RuntimeError("crashed")
            if status >= 400:
                raise HTTPException(status)
            return {"bytes": len(body)}

        app.add_middleware(AttemptRecorder)
        return TestClient(
            app, raise_server_exceptions=False, headers={"Authorization": "Bearer reviewers-token"}
        )

    return make


@pytest.fixture
def rows(database: FreshDatabase) -> Callable[[], list[tuple[Any, ...]]]:
    def read() -> list[tuple[Any, ...]]:
        with psycopg.connect(database.url("llmops_worker")) as connection:
            return connection.execute(
                "SELECT dag_id, run_id, task_id, person, chosen, status FROM approval_attempts ORDER BY attempt"
            ).fetchall()

    return read


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize("status", [200, 403, 409])
def test_an_answer_is_recorded_with_person_choice_and_status(airflow: Any, rows: Any, status: int) -> None:
    assert airflow(status).patch(PATH, json=APPROVE).status_code == status
    assert rows() == [("release_assistant", "manual 1", "ask_reviewer", "reviewer", "Approve", status)]


@pytest.mark.usefixtures("asked")
def test_a_person_is_known_by_the_cookie_of_the_user_interface_too(airflow: Any, rows: Any) -> None:
    client = airflow()
    del client.headers["Authorization"]
    client.cookies.set("_token", "reviewers-token")
    client.patch(PATH, json=APPROVE)
    assert [row[3] for row in rows()] == ["reviewer"]


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize("token", [None, "Bearer forged", "Basic cmV2aWV3ZXI6"])
def test_a_refused_answer_of_nobody_is_logged_and_not_stored(
    airflow: Any, rows: Any, token: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    client = airflow(401)
    del client.headers["Authorization"]
    client.patch(PATH, json=APPROVE, headers={"Authorization": token} if token else {})
    assert rows() == []
    assert "Nobody who is logged in answered" in caplog.text


@pytest.mark.usefixtures("asked")
def test_a_forged_token_beside_a_good_cookie_makes_nobody(airflow: Any, rows: Any) -> None:
    client = airflow(403)
    client.cookies.set("_token", "reviewers-token")
    client.patch(PATH, json=APPROVE, headers={"Authorization": "Bearer forged"})
    assert rows() == []


@pytest.mark.usefixtures("asked")
def test_an_accepted_answer_is_stored_even_if_nobody_knows_who_gave_it(airflow: Any, rows: Any) -> None:
    client = airflow(200)
    del client.headers["Authorization"]
    client.patch(PATH, json=APPROVE)
    assert [row[3:] for row in rows()] == [(None, "Approve", 200)]


@pytest.mark.usefixtures("asked")
def test_answers_to_other_requests_in_airflow_are_not_stored(airflow: Any, rows: Any) -> None:
    client = airflow()
    for other in (PATH.replace("manual", "other"), PATH.replace("manual 1", "a%00b")):
        assert client.patch(other, json=APPROVE).status_code == 200
    client.get(PATH)
    assert rows() == []


@pytest.mark.usefixtures("asked")
def test_a_line_break_behind_the_path_does_not_slip_past(airflow: Any, rows: Any) -> None:
    airflow().patch(PATH + "%0a", json=APPROVE)
    assert len(rows()) == 1


@pytest.mark.usefixtures("asked")
def test_a_crash_of_airflow_is_recorded_as_such(airflow: Any, rows: Any) -> None:
    assert airflow(crash=True).patch(PATH, json=APPROVE).status_code == 500
    assert [row[-1] for row in rows()] == [500]


@pytest.mark.usefixtures("asked")
def test_a_large_body_is_passed_on_whole_and_not_read(airflow: Any, rows: Any) -> None:
    body = json.dumps({**APPROVE, "params_input": {"x": "y" * LARGEST_BODY}})
    assert airflow().patch(PATH, content=body).json() == {"bytes": len(body)}
    assert [row[4] for row in rows()] == ["(unreadable)"]


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(("status", "stored"), [(200, 1), (403, 0), (409, 0)])
def test_a_task_that_answers_with_its_own_token_is_recorded_as_no_person(
    airflow: Any, rows: Any, monkeypatch: pytest.MonkeyPatch, status: int, stored: int
) -> None:
    from airflow.utils import session

    known = uuid4()

    class Session:
        def get(self, model: type, key: UUID) -> RunReference | None:
            assert model.__name__ == "TaskInstance"
            run = RunReference("release_assistant", "manual 1", "ask_reviewer")
            return run if key == known else None

    monkeypatch.setattr(session, "create_session", lambda: nullcontext(Session()))
    client = airflow(status)
    client.patch(f"/execution/hitlDetails/{known}", json=APPROVE)
    client.patch(f"/execution/hitlDetails/{uuid4()}", json=APPROVE)
    assert [row[3:] for row in rows()] == [(None, "Approve", 200)] * stored


@pytest.mark.usefixtures("asked", "airflow")
def test_chunks_pass_one_by_one_and_the_answer_does_not_wait_for_the_record(
    rows: Any,
) -> None:
    asked = [
        {"type": "http.request", "body": b'{"chosen_options": ["App', "more_body": True},
        {"type": "http.request", "body": b'rove"]}', "more_body": False},
    ]
    answered = [
        {"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]},
        {"type": "http.response.body", "body": b"a", "more_body": True},
        {"type": "http.response.body", "body": b"b", "more_body": False},
    ]
    received: list[Any] = []
    sent: list[Any] = []
    waiting = iter(asked)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        received.extend([await receive(), await receive()])
        for message in answered:
            await send(message)
        sent.append(rows())

    async def receive() -> Any:
        return next(waiting)

    async def send(message: Any) -> None:
        sent.append(message)

    token = [(b"authorization", b"Bearer reviewers-token")]
    scope = {"type": "http", "method": "PATCH", "path": PATH, "headers": token, "query_string": b""}
    anyio.run(AttemptRecorder(app), scope, receive, send)
    assert received == asked
    assert sent == [*answered, []]
    assert [row[3:] for row in rows()] == [("reviewer", "Approve", 200)]


@pytest.mark.parametrize(
    ("body", "chosen"),
    [
        (b'{"chosen_options": ["Approve", "Reject"]}', "Approve, Reject"),
        (b'{"chosen_options": ["\\u202e\\u001b[31mx\\ud800\\u0000 \\n y"]}', "[31mx y"),
        (json.dumps({"chosen_options": ["x" * 999]}).encode(), "x" * 200),
        (b'{"chosen_options": "Approve"}', "(unreadable)"),
        (b'{"chosen_options": [1]}', "(unreadable)"),
        (b"[" * 60_000, "(unreadable)"),
        (b"\xff", "(unreadable)"),
        (b"", "(unreadable)"),
    ],
)
def test_a_choice_becomes_one_harmless_line(body: bytes, chosen: str) -> None:
    assert chosen_options(body) == chosen


@pytest.mark.usefixtures("asked")
def test_an_outage_of_the_database_is_logged_and_breaks_no_answer(
    airflow: Any, environment: Environment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    away = environment.model_copy(update={"database_url": _secret("postgresql://u:hidden@127.0.0.1:9/x")})
    monkeypatch.setattr(attempts, "load_environment", lambda: away)
    client = airflow()
    assert client.patch(PATH, json=APPROVE).json() == {
        "bytes": len(json.dumps(APPROVE, separators=(",", ":")))
    }
    found = [r for r in caplog.records if "NOT RECORDED" in r.getMessage()]
    assert [r.levelno for r in found] == [logging.ERROR]
    assert "'reviewer' answered 'Approve'" in found[0].getMessage()
    assert "hidden" not in caplog.text


def _secret(url: str) -> Any:
    from pydantic import SecretStr

    return SecretStr(url)


def test_every_route_of_airflow_that_can_answer_a_request_is_recorded() -> None:
    from airflow.api_fastapi.core_api.routes.public import public_router
    from airflow.api_fastapi.execution_api.routes import execution_api_router

    routes = [(route, "") for route in public_router.routes]
    routes += [(route, "/execution") for route in execution_api_router.routes]
    writing = [
        (method, prefix + route.path)
        for route, prefix in routes
        for method in getattr(route, "methods", ())
        if "hitl" in route.path.lower() and method not in ("GET", "HEAD")
    ]
    # A task writes its question by POST; it takes an earlier answer away and gives none.
    assert ("POST", "/execution/hitlDetails/{task_instance_id}") in writing
    answering = [one for one in writing if one[0] != "POST"]
    assert len(answering) == 2
    for method, path in answering:
        example = path.replace("{", "").replace("}", "")
        assert any(_matches({"type": "http", "method": method, "path": example})), path
        assert any(
            _matches({"type": "http", "method": method, "path": f"/sub{example}", "root_path": "/sub"})
        )


def test_the_plugin_imports_next_to_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, time; import airflow.plugins_manager; before = set(sys.modules); "
        "start = time.perf_counter(); import release_board; took = time.perf_counter() - start; "
        "print(sorted(set(sys.modules) - before), took < 0.1)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={
            "PYTHONPATH": str(Path(attempts.__file__).parent.parent),
            "AIRFLOW_HOME": str(tmp_path),
            "PATH": "",
        },
    )
    assert run.stdout.splitlines()[-1] == "['release_board'] True"


def test_airflow_loads_the_plugin_and_no_other_file_of_it() -> None:
    from airflow._shared.plugins_manager import _load_plugins_from_plugin_directory

    folder = Path(attempts.__file__).parent.parent
    plugins, errors = _load_plugins_from_plugin_directory(str(folder))
    assert errors == {}
    known = {plugin.name: plugin for plugin in plugins}
    assert set(known) == {"data_docs", "release_board"}
    (view,) = known["release_board"].external_views
    # Airflow 3.3.2 draws an entry without a route at the top level as a button that does nothing.
    assert "url_route" not in view
    assert view["category"] == "browse"
    from airflow._shared.module_loading.file_discovery import find_path_from_directory

    files = [
        Path(path).relative_to(folder) for path in find_path_from_directory(str(folder), ".airflowignore")
    ]
    assert sorted(str(path) for path in files if path.suffix == ".py") == [
        "data_docs/__init__.py",
        "release_board/__init__.py",
    ]
