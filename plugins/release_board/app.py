"""The board's web application: read-only pages, one policy, its own security headers."""

from __future__ import annotations

import hashlib
import logging
from base64 import b64encode
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException

from llmops.errors import LlmopsError, MissingInput, ServiceUnavailable
from release_board import PREFIX
from release_board.policy import DAG, may_read
from release_board.text import finalize, is_digest, moment, number

__all__ = ["Board", "create_board", "render", "shared_board"]

log = logging.getLogger(__name__)

_FOLDER = Path(__file__).parent
_TITLES = {
    400: "This address cannot be read",
    401: "Please sign in",
    403: "Not for this login",
    404: "There is nothing here",
    405: "The board only shows",
    500: "Something broke",
    503: "The database does not answer",
}


class Board(FastAPI):
    """FastAPI whose every response, whoever made it, carries the headers that keep a page to itself."""

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """Answer one request."""

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_headers())
            await send(message)

        await super().__call__(scope, receive, guarded)


def create_board() -> Board:
    """Return the application; every route of it is behind the policy."""
    from release_board.pages import pages

    board = Board(
        title="Release board",
        dependencies=[Depends(may_read)],
        openapi_url=None,  # without it there are no pages of documentation either
        redirect_slashes=False,
    )
    board.include_router(pages)
    board.add_exception_handler(HTTPException, _problem)
    board.add_exception_handler(RequestValidationError, _problem)
    board.add_exception_handler(LlmopsError, _problem)
    board.add_exception_handler(Exception, _problem)
    return board


@cache
def shared_board() -> Board:
    """Return the application of this process, made when it is first asked for."""
    return create_board()


def render(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a page; values are escaped, and what has no shape in them is made visible."""
    board = request.scope.get("root_path", "")
    base = {
        "board": board,
        "airflow": board.removesuffix(PREFIX),
        "dag": DAG,
        "section": request.url.path.removeprefix(board).split("/")[1],
        "stylesheet": _stylesheet(),
    }
    return HTMLResponse(_templates().get_template(template).render(**base, **values), status)


def _stylesheet_hash() -> str:
    """Return the digest by which the policy for content allows the one stylesheet."""
    return b64encode(hashlib.sha256(_stylesheet().encode()).digest()).decode()


@cache
def _stylesheet() -> str:
    return (_FOLDER / "board.css").read_text(encoding="utf-8")


@cache
def _headers() -> dict[str, str]:
    policy = (
        f"default-src 'none'; style-src 'sha256-{_stylesheet_hash()}'; img-src 'self' data:; form-action 'self'; "
        "frame-ancestors 'self'; base-uri 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "SAMEORIGIN",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-store",
    }


@cache
def _templates() -> Environment:
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "moment": moment,
        "number": number,
        "path": lambda part: quote(str(part), safe=""),
    }
    environment.filters["ours"] = Markup  # for files of this package alone
    environment.tests["digest"] = is_digest
    return environment


def _problem(request: Request, error: Exception) -> HTMLResponse:
    """Return a page that says what is wrong; a crash says no more than that, its log does."""
    if isinstance(error, HTTPException):
        status, detail = error.status_code, str(error.detail)
    elif isinstance(error, RequestValidationError):
        status, detail = 400, "; ".join(f"{e['loc'][-1]}: {e['msg']}" for e in error.errors())
    elif isinstance(error, MissingInput):
        status, detail = 404, str(error)
    elif isinstance(error, ServiceUnavailable):
        status, detail = 503, "Try again in a moment. The API server's log says more."
        log.error("The release board cannot read the database: %s", error)
    else:
        status, detail = 500, "The API server's log says more."
        log.error("The release board failed at %r", request.url.path, exc_info=error)
    login = urlencode({"next": request.url.path})
    return render(
        request,
        "problem.html",
        status=status,
        title=_TITLES.get(status, "This did not work"),
        status_code=status,
        detail=detail,
        login=login,
    )
