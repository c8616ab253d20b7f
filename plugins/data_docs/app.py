"""The pages' web application: files of one kind of folder, one policy, headers that let a page load nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi import Path as PathParam
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import MutableHeaders

from data_docs.policy import may_read
from llmops.settings import home

__all__ = ["Pages", "create_pages", "root", "shared_pages"]

_TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".png": "image/png"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_NOTHING = "There are no such Data Docs. Those of the last 30 runs of an assistant are kept."

Assistant = Annotated[str, PathParam(pattern="^[a-z][a-z0-9_]{0,39}$")]
Run = Annotated[str, PathParam(pattern="^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]
File = Annotated[str, PathParam(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\.(?:html|css|png)$")]


class Pages(FastAPI):
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
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await super().__call__(scope, receive, guarded)


files = APIRouter()


def root() -> Path:
    """Return the folder that holds the Data Docs of all assistants."""
    return home() / "data_docs"


@files.api_route("/{assistant}/{run}/{file}", methods=["GET", "HEAD"], response_class=Response)
def show(assistant: Assistant, run: Run, file: File, folder: Annotated[Path, Depends(root)]) -> Response:
    """Return one file of the Data Docs of one run."""
    base = folder.resolve()
    path = (base / assistant / run / file).resolve()
    if not path.is_relative_to(base / assistant / run) or not path.is_file():
        raise HTTPException(404, _NOTHING)
    return Response(path.read_bytes(), media_type=_TYPES[path.suffix])


def create_pages() -> Pages:
    """Return the application; every route of it is behind the policy."""
    pages = Pages(
        title="Data Docs",
        dependencies=[Depends(may_read)],
        openapi_url=None,  # without it there are no pages of documentation either
        redirect_slashes=False,
    )
    pages.include_router(files)
    pages.add_exception_handler(RequestValidationError, _nothing)
    return pages


def _nothing(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": _NOTHING}, 404)


@cache
def shared_pages() -> Pages:
    """Return the application of this process, made when it is first asked for."""
    return create_pages()
