from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi import HTTPException
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from starlette.routing import Route

from data_docs.app import create_pages, root
from data_docs.policy import DAG, may_read
from llmops.quality import docs_folder

PAGE = "/guide/manual_1-abc/index.html"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Data Docs of one run, and files around them that nobody may read."""
    run = tmp_path / "data_docs" / "guide" / "manual_1-abc"
    run.mkdir(parents=True)
    (run / "index.html").write_text("<h1>Fine</h1>")
    (run / "style.css").write_text("h1 {}")
    (run / "plot.png").write_bytes(b"\x89PNG")
    for name in ("script.js", "notes.txt", ".hidden.html", "index"):
        (run / name).write_text("secret")
    (tmp_path / "secret.html").write_text("secret")
    (run.parent / "secret.html").write_text("secret")
    (run / "link.html").symlink_to(tmp_path / "secret.html")
    (run / "folder.html").mkdir()
    return tmp_path / "data_docs"


@pytest.fixture
def pages(folder: Path) -> Any:
    app = create_pages()
    app.dependency_overrides[root] = lambda: folder
    return app


@pytest.fixture
def client(pages: Any) -> TestClient:
    pages.dependency_overrides[may_read] = lambda: None
    return TestClient(pages)


# --- what is shown


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("index.html", "text/html; charset=utf-8"),
        ("style.css", "text/css; charset=utf-8"),
        ("plot.png", "image/png"),
    ],
)
def test_a_file_of_a_run_is_shown_as_what_it_is(
    client: TestClient, folder: Path, file: str, kind: str
) -> None:
    response = client.get(f"/guide/manual_1-abc/{file}")
    assert (response.status_code, response.headers["content-type"]) == (200, kind)
    assert response.content == (folder / "guide" / "manual_1-abc" / file).read_bytes()
    head = client.head(f"/guide/manual_1-abc/{file}")
    assert (head.status_code, head.content) == (200, b"")


def test_every_response_keeps_to_itself(client: TestClient) -> None:
    for response in (
        client.get(PAGE),
        client.get("/nothing"),
        client.post(PAGE),
        client.get("/guide/x/none.html"),
    ):
        policy = response.headers["content-security-policy"]
        assert policy.startswith(
            "default-src 'none'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
        )
        assert "script" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        "/guide/manual_1-abc/script.js",
        "/guide/manual_1-abc/notes.txt",
        "/guide/manual_1-abc/index",
        "/guide/manual_1-abc/.hidden.html",
        "/guide/manual_1-abc/link.html",
        "/guide/manual_1-abc/folder.html",
        "/guide/manual_1-abc/none.html",
        "/guide/manual_1-abc/",
        "/guide/manual_1-abc",
        "/guide/none/index.html",
        "/none/manual_1-abc/index.html",
        "/guide/%2e%2e/secret.html",
        "/guide/../secret.html",
        "/guide/..%2f..%2f/secret.html",
        "/guide/manual_1-abc%2f..%2f../secret.html",
        "/guide/manual_1-abc/..%2f..%2fsecret.html",
        "/guide/manual_1-abc/..%5csecret.html",
        "/%2e%2e/guide/secret.html",
        "/../data_docs/guide/secret.html",
        "/guide/manual_1-abc/index.html%00.png",
        "/guide/manual_1-abc/index.html%0a",
        "//guide/manual_1-abc/index.html",
        "/docs",
        "/openapi.json",
    ],
)
def test_nothing_else_is_shown(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert "secret" not in response.text


def test_the_folder_that_a_run_publishes_into_is_the_one_that_is_shown(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path))
    folder = docs_folder("guide", "scheduled__2026-03-02T00:00:00+00:00")
    folder.mkdir(parents=True)
    (folder / "source-My.Site-2.html").write_text("its page")
    assert client.get(f"/guide/{folder.name}/source-My.Site-2.html").text == "its page"
    assert root() == tmp_path / "data_docs"


# --- who may see it


@pytest.fixture
def airflow_login(pages: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
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
    return Manager


@pytest.mark.parametrize("path", [PAGE, "/nothing", "/guide/none/index.html", "/docs"])
def test_who_may_not_read_the_dag_sees_nothing(airflow_login: Any, pages: Any, path: str) -> None:
    client = TestClient(pages)
    known = path.count("/") == 3
    assert client.get(path).status_code == (401 if known else 404)
    assert client.get(path, headers={"Authorization": "Bearer forged"}).status_code == (403 if known else 404)
    assert client.get(path, headers={"Authorization": "Bearer stranger"}).status_code == (
        403 if known else 404
    )


def test_a_reader_of_the_dag_sees_the_pages(airflow_login: Any, pages: Any) -> None:
    client = TestClient(pages, headers={"Authorization": "Bearer reader"})
    assert client.get(PAGE).text == "<h1>Fine</h1>"
    assert airflow_login.asked == ["GET ingest_documents"] == [f"GET {DAG}"]
    client = TestClient(pages, cookies={"_token": "reader"})
    assert client.get(PAGE).status_code == 200


def _unguarded(app: Any) -> list[str]:
    """Return the routes that do not ask the policy before everything else."""
    guarded = [
        route
        for route in app.routes
        if isinstance(route, APIRoute) and any(d.call is may_read for d in route.dependant.dependencies)
    ]
    return [route.path for route in app.routes if route not in guarded]


def test_every_route_asks_the_policy_and_one_past_it_would_be_found() -> None:
    app = create_pages()
    assert len(app.routes) == 1
    assert _unguarded(app) == []
    app.router.routes.append(Route("/secret", lambda request: None))
    assert _unguarded(app) == ["/secret"]
