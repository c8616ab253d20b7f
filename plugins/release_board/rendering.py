"""The board's templates and its one stylesheet."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from release_board import PREFIX
from release_board.policy import DAG
from release_board.text import finalize, is_digest, moment, number

__all__ = ["render", "stylesheet"]

_FOLDER = Path(__file__).parent


def render(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a page; values are escaped, and what has no shape in them is made visible."""
    board = request.scope.get("root_path", "")
    base = {
        "board": board,
        "airflow": board.removesuffix(PREFIX),
        "dag": DAG,
        "section": request.url.path.removeprefix(board).split("/")[1],
        "stylesheet": stylesheet(),
    }
    return HTMLResponse(_templates().get_template(template).render(**base, **values), status)


@cache
def stylesheet() -> str:
    """Return the style of every page."""
    return (_FOLDER / "board.css").read_text(encoding="utf-8")


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
