from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import HTTPException
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from starlette.routing import Route

import release_board
from llmops.errors import ServiceUnavailable
from plugins.conftest import Story
from release_board import pages
from release_board.app import create_board
from release_board.pages import environment as board_environment
from release_board.policy import DAG, may_read

PATHS = [
    "/",
    "/approvals",
    "/ledger",
    "/receipts",
    "/releases/aaaaaaaa",
    "/nothing/here",
    "/docs",
    "/openapi.json",
]


# --- who may see it


@pytest.fixture
def airflow_login(board: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The real policy over an auth manager that knows two people, one of whom may read the DAG."""
    from airflow.api_fastapi.core_api import security
    from airflow.models import DagModel

    async def user_of(token: str | None) -> str:
        if token not in ("reader", "stranger"):
            raise HTTPException(401 if token is None else 403)
        return token

    class Manager:
        asked: list[str] = []  # noqa: RUF012

        def is_authorized_dag(self, *, method: str, user: str, details: Any, **_: Any) -> bool:
            self.asked.append(f"{method} {details.id}")
            return user == "reader"

    monkeypatch.setattr(security, "resolve_user_from_token", user_of)
    monkeypatch.setattr(security, "get_auth_manager", Manager)
    monkeypatch.setattr(DagModel, "get_team_name", staticmethod(lambda dag_id: None))
    del board.dependency_overrides[may_read]
    return Manager


@pytest.mark.parametrize("path", PATHS)
def test_without_a_login_every_address_answers_401_and_offers_one(
    airflow_login: Any, client: TestClient, path: str
) -> None:
    for method in ("GET", "HEAD", "POST", "DELETE"):
        assert client.request(method, path).status_code == 401
    assert 'href="/api/v2/auth/login?next=%2F' in client.get(path).text


@pytest.mark.parametrize("path", PATHS)
def test_a_login_that_may_not_read_the_dag_gets_403(
    airflow_login: Any, client: TestClient, path: str
) -> None:
    response = client.get(path, headers={"Authorization": "Bearer stranger"})
    assert response.status_code == 403
    assert airflow_login.asked[-1] == f"GET {DAG}"


def test_a_reader_sees_pages_and_404_where_there_is_none(airflow_login: Any, client: TestClient) -> None:
    client.headers["Authorization"] = "Bearer reader"
    found = [client.get(path).status_code for path in PATHS]
    assert found == [200, 200, 200, 200, 404, 404, 404, 404]
    assert client.post("/").status_code == 405


def test_a_forged_token_is_nobody_even_beside_a_good_cookie(airflow_login: Any, client: TestClient) -> None:
    client.cookies.set("_token", "reader")
    assert client.get("/").status_code == 200
    assert client.get("/", headers={"Authorization": "Bearer forged"}).status_code == 403


def _unguarded(app: Any) -> list[str]:
    """Return the routes that do not ask the policy before everything else."""
    guarded = [
        route
        for route in app.routes
        if isinstance(route, APIRoute) and any(d.call is may_read for d in route.dependant.dependencies)
    ]
    return [route.path for route in app.routes if route not in guarded]


def test_every_route_asks_the_policy() -> None:
    board = create_board()
    assert len(board.routes) >= 5
    assert _unguarded(board) == []


def test_a_route_past_the_policy_would_be_found() -> None:
    board = create_board()
    board.router.routes.append(Route("/secret", lambda request: None))
    board.mount("/files", lambda scope, receive, send: None)
    assert _unguarded(board) == ["/secret", "/files"]


# --- headers


def test_every_response_keeps_to_itself(
    airflow_login: Any, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = TestClient(client.app, raise_server_exceptions=False, headers={"Authorization": "Bearer reader"})
    responses = [
        client.get("/"),
        quiet.get("/"),
        quiet.get("/nothing"),
        quiet.get("/?page=x"),
        quiet.post("/"),
    ]
    monkeypatch.setattr(pages, "board_assistants", lambda url: 1 / 0)
    responses.append(quiet.get("/"))
    assert [response.status_code for response in responses] == [401, 200, 404, 400, 405, 500]
    for response in responses:
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["referrer-policy"] == "no-referrer"
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "frame-ancestors 'self'" in policy
        assert "unsafe" not in policy
        style = re.search("<style>(.*?)</style>", response.text, re.DOTALL)
        assert style is not None
        digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_a_crash_says_nothing_of_its_cause(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(url: str) -> Any:
        raise RuntimeError(f"password in {url}")

    monkeypatch.setattr(pages, "board_assistants", crash)
    response = TestClient(client.app, raise_server_exceptions=False).get("/")
    assert response.status_code == 500
    assert "password" not in response.text


def test_an_outage_of_the_database_is_a_page_too(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(url: str) -> Any:
        raise ServiceUnavailable("Postgres does not answer at secret-host")

    monkeypatch.setattr(pages, "board_assistants", away)
    response = client.get("/")
    assert response.status_code == 503
    assert "secret-host" not in response.text


# --- the mount, and colours


def test_links_carry_the_path_under_which_airflow_serves(board: Any, story: Story) -> None:
    first, _ = story.whole()
    client = TestClient(board, root_path="/airflow/release-board")
    found = client.get("/").text
    assert f'href="/airflow/release-board/releases/{first}"' in found
    assert 'href="/airflow/required_actions?response_received=false"' in found


def _contrast(one: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2 (https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio)."""

    def luminance(colour: str) -> float:
        full = colour if len(colour) == 6 else "".join(c * 2 for c in colour)
        parts = [int(full[n : n + 2], 16) / 255 for n in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1])
def test_colours_have_enough_contrast_in_both_schemes(scheme: int) -> None:
    sheet = (Path(release_board.__file__).parent / "board.css").read_text()
    block = re.findall(r":root \{(.*?)\}", sheet, re.DOTALL)[scheme]
    colours = dict(re.findall(r"--([\w-]+): #([0-9a-f]{3,6});", block))
    for text in ("ink", "quiet", "link", "good", "bad", "unsure"):
        for ground in ("page", "card", "good-tint", "bad-tint", "unsure-tint"):
            assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert _contrast(colours["plot"], colours["page"]) >= 3


def test_the_environment_of_the_process_is_read_for_each_page(
    board: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    del board.dependency_overrides[board_environment]
    monkeypatch.setenv("LLMOPS_ENV", "nowhere")
    assert TestClient(board).get("/").status_code == 500
