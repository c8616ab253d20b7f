"""The release board: pages about releases in Airflow's navigation, and a record of every answer to a request.

Airflow imports this file in every task process. What it needs to serve pages is imported when the API server gets
the first request.
"""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

__all__ = ["ReleaseBoardPlugin"]

PREFIX = "/release-board"


def _recorder(app: Any) -> Any:
    """Return the middleware that records answers to approval requests, around ``app``."""
    from release_board.attempts import AttemptRecorder

    return AttemptRecorder(app)


class ReleaseBoardPlugin(AirflowPlugin):
    """What Airflow's API server takes from here."""

    name = "release_board"
    fastapi_root_middlewares = [{"name": "Record of answers to approval requests", "middleware": _recorder}]  # noqa: RUF012
