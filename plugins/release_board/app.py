"""The board's web application: read-only pages, one policy, its own security headers."""

from __future__ import annotations

import hashlib
import logging
from base64 import b64encode
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cache
from typing import Any
from urllib.parse import urlencode

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException

from llmops.errors import LlmopsError, MissingInput, ServiceUnavailable
from release_board.pages import pages
from release_board.policy import may_read
from release_board.rendering import render, stylesheet

__all__ = ["Board", "create_board", "shared_board"]

log = logging.getLogger(__name__)

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


def _stylesheet_hash() -> str:
    """Return the digest by which the policy for content allows the one stylesheet."""
    return b64encode(hashlib.sha256(stylesheet().encode()).digest()).decode()


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
