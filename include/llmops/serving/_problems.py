"""Failures as callers see them: a status and OpenAI's error body. Details stay in the service's log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

from llmops.errors import InvalidRequest, LanguageModelError, MissingInput, RateLimited, ServiceUnavailable

__all__ = ["Problem", "RequestRefused", "problem_of"]


@dataclass(frozen=True)
class Problem:
    """What a caller is told; ``retry_after`` in seconds."""

    status: int
    message: str
    kind: str = "invalid_request_error"
    code: str | None = None
    retry_after: int | None = None

    def body(self) -> dict[str, Any]:
        """Return OpenAI's error body."""
        return {"error": {"message": self.message, "type": self.kind, "param": None, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Return the headers that go with it."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


class RequestRefused(Exception):
    """A request that is answered with a problem and nothing else."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def problem_of(error: BaseException, answer_id: str | None = None) -> Problem:
    """Return what to tell the caller about an error; only what concerns the request is quoted.

    With ``answer_id`` the failure is one of answering: what is missing then is nothing the caller named.
    """
    about = f" (answer {answer_id})" if answer_id else ""
    look = f"The service's log says more{about}."
    match error:
        case RequestRefused():
            return error.problem
        case InvalidRequest():
            return Problem(400, str(error), code="invalid_request")
        case MissingInput() if answer_id is None:
            return Problem(404, str(error), code="not_found")
        case RateLimited():
            wait = max(1, round(error.retry_after or 1))
            message = f"The language model asks to wait. {look}"
            return Problem(429, message, "rate_limit_error", "language_model_busy", wait)
        case LanguageModelError():
            message = f"The language model gave no usable answer. {look}"
            return Problem(502, message, "server_error", "language_model_failed")
        case ServiceUnavailable() | psycopg.OperationalError() | TimeoutError():
            message = f"Something this answer needs does not respond: try again later. {look}"
            return Problem(503, message, "server_error", "unavailable", 2)
        case _:
            return Problem(500, f"The service failed. {look}", "server_error", "internal_error")
