"""The release board: pages about releases in Airflow's navigation, and a record of every answer to a request.

Airflow imports this file in every task process. What it needs to serve pages is imported when the API server gets
the first request.
"""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

__all__ = ["PREFIX", "ReleaseBoardPlugin"]

PREFIX = "/release-board"

_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24' fill='none' "
    "stroke='%23{colour}' stroke-width='2' stroke-linecap='round' stroke-linejoin='round'%3E"
    "%3Cpath d='M5 21V4m0 1h13l-3 4 3 4H5'/%3E%3C/svg%3E"
)


def _recorder(app: Any) -> Any:
    """Return the middleware that records answers to approval requests, around ``app``."""
    from release_board.attempts import AttemptRecorder

    return AttemptRecorder(app)


async def _board(scope: Any, receive: Any, send: Any) -> None:
    """Pass one request to the pages."""
    from release_board.app import shared_board

    await shared_board()(scope, receive, send)


class ReleaseBoardPlugin(AirflowPlugin):
    """What Airflow's API server takes from here."""

    name = "release_board"
    fastapi_root_middlewares = [{"name": "Record of answers to approval requests", "middleware": _recorder}]  # noqa: RUF012
    fastapi_apps = [{"app": _board, "url_prefix": PREFIX, "name": "Release board"}]  # noqa: RUF012
    # Without a route of Airflow's own pages it opens in a tab: a frame could not link to the required action. In the
    # menu "Browse", since Airflow 3.3.2 makes a button without an action of such an entry at the top level.
    external_views = [  # noqa: RUF012
        {
            "name": "Releases",
            "href": f"{PREFIX[1:]}/",
            "destination": "nav",
            "category": "browse",
            "icon": _ICON.format(colour="3f4a5a"),
            "icon_dark_mode": _ICON.format(colour="d5dbe5"),
        }
    ]
