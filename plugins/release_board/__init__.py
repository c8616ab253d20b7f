"""The release board: pages about releases in Airflow's navigation, and a record of every answer to a request.

Airflow imports this file in every task process. What it needs to serve pages is imported when the API server gets
the first request.
"""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

__all__ = ["PREFIX", "ReleaseBoardPlugin"]

PREFIX = "/release-board"


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
    # Without a route of Airflow's own pages it opens in a tab: a frame could not link to the required action.
    external_views = [  # noqa: RUF012
        {"name": "Releases", "href": f"{PREFIX[1:]}/", "destination": "nav", "nav_top_level": True}
    ]
