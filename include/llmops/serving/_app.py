"""The routes of the service."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import psycopg
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from psycopg_pool import ConnectionPool
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from llmops.answers import Feedback, open_pool, record_feedback
from llmops.errors import ConfigurationError, LlmopsError
from llmops.serving._answering import Answering, Failed, Finished, Opened
from llmops.serving._follower import Assistants, ReleaseFollower, ReleaseSource
from llmops.serving._limits import ServiceLimits
from llmops.serving._probes import Probes
from llmops.serving._problems import Problem, RequestRefused, problem_of
from llmops.serving._wire import (
    ChatRequest,
    FeedbackRequest,
    ProbeRequest,
    added_fields,
    chunk,
    completion,
    event,
    parse,
    usage_chunk,
)
from llmops.serving._workers import Workers

__all__ = ["create_app"]

log = logging.getLogger(__name__)

_SMALL_JOBS = 4


def create_app(
    source: ReleaseSource, database_url: str, assistants: Assistants, limits: ServiceLimits | None = None
) -> FastAPI:
    """Return the service for the assistants there are now or later, following the releases of ``source``.

    ``database_url`` is the ``llmops`` database as the serving role, where answers and feedback are logged.
    Without an assistant it raises ConfigurationError.
    """
    if not assistants():
        raise ConfigurationError("there is no assistant to serve: write include/assistants/<name>.yaml")
    service = _Service(source, database_url, assistants, limits or ServiceLimits())
    app = FastAPI(title="llmops", lifespan=service.lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_api_route("/v1/chat/completions", service.chat, methods=["POST"])
    app.add_api_route("/v1/models", service.models, methods=["GET"])
    app.add_api_route("/v1/feedback", service.feedback, methods=["POST"])
    app.add_api_route("/healthz", service.healthz, methods=["GET"])
    app.add_api_route("/readyz", service.readyz, methods=["GET"])
    app.add_api_route("/release", service.release, methods=["GET"])
    app.add_api_route("/probe", service.probe, methods=["POST"])
    app.add_exception_handler(RequestRefused, _refused)
    app.add_exception_handler(LlmopsError, _refused)
    app.add_exception_handler(HTTPException, _not_served)
    return app


class _Service:
    def __init__(
        self, source: ReleaseSource, database_url: str, assistants: Assistants, limits: ServiceLimits
    ) -> None:
        self._limits = limits
        self._database_url = database_url
        self._follower = ReleaseFollower(source, assistants, poll=limits.poll, report=limits.report)
        self._probes = Probes(self._follower, self._limits.request)
        self._answers = Workers(limits.running, limits.waiting, "answer")
        self._jobs = Workers(_SMALL_JOBS, 8 * _SMALL_JOBS, "job")
        self._database: ConnectionPool

    @contextlib.asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Follow releases and hold connections while the service runs."""
        self._database = open_pool(self._database_url, size=self._limits.running + _SMALL_JOBS)
        self._follower.start()
        try:
            yield
        finally:
            self._answers.close()
            self._jobs.close()
            await asyncio.to_thread(self._follower.stop)
            await asyncio.to_thread(self._database.close)

    async def chat(self, request: Request) -> Response:
        """Answer the last message; streamed when asked to."""
        asked = parse(ChatRequest, await _body(request, self._limits))
        self._known(asked.model)
        question = asked.question()
        answering = Answering(self._follower, self._database, self._limits, asked.model)
        if asked.stream:
            return await self._stream(answering, asked, question)

        def whole() -> Finished | Failed:
            *_, last = answering.run(question, stream=False)
            assert isinstance(last, Finished | Failed)
            return last

        last = await self._in_time(answering, asyncio.wrap_future(self._answers.submit(whole)))
        if isinstance(last, Failed):
            raise RequestRefused(last.problem)
        return JSONResponse(completion(asked.model, last.answer_id, last.release_id, last.answer))

    async def _stream(self, answering: Answering, asked: ChatRequest, question: str) -> Response:
        """Turn what comes into events; a failure before the first piece is a plain error."""
        pieces = _Pieces(answering, asyncio.get_running_loop())
        self._answers.submit(lambda: pieces.fill(question))
        opened = await self._in_time(answering, pieces.get())
        first = await self._in_time(answering, pieces.get()) if isinstance(opened, Opened) else opened
        if isinstance(first, Failed):
            raise RequestRefused(first.problem)
        return _TimedStream(_events(asked, opened.answer_id, first, pieces), answering)

    async def _in_time(self, answering: Answering, result: Awaitable[Any]) -> Any:
        """Wait for a thread until the request's deadline; whoever stops waiting abandons the answer."""
        try:
            return await asyncio.wait_for(result, max(0.0, answering.seconds_left()))
        except TimeoutError as error:
            answering.abandon()
            raise RequestRefused(problem_of(error)) from error
        except asyncio.CancelledError:
            answering.abandon()
            raise

    async def feedback(self, request: Request) -> dict[str, str]:
        """Store an opinion on one answer."""
        given = parse(FeedbackRequest, await _body(request, self._limits))
        opinion = Feedback(given.answer_id, given.rating, given.comment, given.correction)
        return {"feedback_id": await self._job(lambda: record_feedback(self._database, opinion))}

    async def models(self) -> dict[str, Any]:
        """List the assistants in OpenAI's shape."""
        data = [
            {
                "id": f.assistant,
                "object": "model",
                "created": 0,
                "owned_by": "llmops",
                "release": f.release_id,
            }
            for f in self._follower.status()
        ]
        return {"object": "list", "data": data}

    async def healthz(self) -> dict[str, str]:
        """Say that the process answers."""
        return {"status": "ok"}

    async def readyz(self) -> JSONResponse:
        """Say whether answers can be given, and per assistant from which release and what is wrong."""
        followed = self._follower.status()
        try:
            await self._job(lambda: _ping(self._database))
            logged = "ok"
        except (psycopg.OperationalError, RequestRefused, TimeoutError) as error:
            logged = f"{type(error).__name__}: answers cannot be logged"
        ready = logged == "ok" and all(f.polled for f in followed) and any(f.release_id for f in followed)
        details = {f.assistant: {"release": f.release_id, "error": f.error} for f in followed}
        body = {"ready": ready, "answer_log": logged, "assistants": details}
        return JSONResponse(body, 200 if ready else 503)

    async def release(self, assistant: str | None = None) -> dict[str, str]:
        """Say which release an assistant answers with, by default the first assistant."""
        name = assistant or self._follower.status()[0].assistant
        self._known(name)
        (release_id,) = (f.release_id for f in self._follower.status() if f.assistant == name)
        if release_id is None:
            message = (
                f"No release of assistant {name!r} is in production: run release_assistant and approve it."
            )
            raise RequestRefused(Problem(404, message, code="no_release"))
        return {"assistant": name, "release": release_id}

    async def probe(self, request: Request) -> dict[str, Any]:
        """Show that the release can answer: a question of no meaning goes through the whole chain, once per release.

        Nobody is told what was said, so nothing is logged. Whoever asks again gets the first result, or waits out
        the pause after a failure: the route cannot be used to make a language model work.
        """
        asked = parse(ProbeRequest, await _body(request, self._limits))
        self._known(asked.assistant)
        return await asyncio.wait_for(
            asyncio.wrap_future(self._answers.submit(lambda: self._probes.probe(asked.assistant))),
            self._limits.request,
        )

    def _known(self, assistant: str) -> None:
        known = [f.assistant for f in self._follower.status()]
        if assistant not in known:
            message = f"The model {assistant[:80]!r} does not exist; there is: {', '.join(known)}."
            raise RequestRefused(Problem(404, message, code="model_not_found"))

    async def _job(self, call: Callable[[], Any]) -> Any:
        return await asyncio.wait_for(asyncio.wrap_future(self._jobs.submit(call)), self._limits.request)


class _Pieces:
    """Carries an answer from the thread that makes it to the loop that sends it, a few pieces ahead."""

    def __init__(self, answering: Answering, loop: asyncio.AbstractEventLoop) -> None:
        self._answering = answering
        self._loop = loop
        self._queue: asyncio.Queue[Opened | str | Finished | Failed] = asyncio.Queue(maxsize=16)

    def fill(self, question: str) -> None:
        """Make the answer; give up when the queue stays full until the deadline (a reader too slow)."""
        with contextlib.closing(self._answering.run(question, stream=True)) as items:
            for item in items:
                put = asyncio.run_coroutine_threadsafe(self._queue.put(item), self._loop)
                try:
                    put.result(timeout=max(0.1, self._answering.seconds_left()))
                except TimeoutError:
                    put.cancel()
                    self._answering.abandon()
                    return

    async def get(self) -> Opened | str | Finished | Failed:
        """Return the next item."""
        return await self._queue.get()


async def _events(
    asked: ChatRequest, answer_id: str, first: str | Finished | Failed, pieces: _Pieces
) -> AsyncIterator[bytes]:
    yield chunk(asked.model, answer_id, {"role": "assistant", "content": ""})
    item: Opened | str | Finished | Failed = first
    while isinstance(item, str):
        yield chunk(asked.model, answer_id, {"content": item})
        item = await pieces.get()
    if isinstance(item, Finished):
        added = added_fields(answer_id, item.release_id, item.answer)
        yield chunk(asked.model, answer_id, {}, item.answer.finish_reason, added)
        if asked.stream_options and asked.stream_options.include_usage:
            yield usage_chunk(asked.model, answer_id, item.answer)
        yield b"data: [DONE]\n\n"
    elif isinstance(item, Failed):
        yield event(item.problem.body())


class _TimedStream(StreamingResponse):
    """A stream of events that ends at the request's deadline, also when the reader does not read."""

    def __init__(self, content: AsyncIterator[bytes], answering: Answering) -> None:
        super().__init__(content, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self._answering = answering

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await asyncio.wait_for(
                super().__call__(scope, receive, send), max(0.1, self._answering.seconds_left())
            )
        except TimeoutError:
            log.warning("A reader was too slow for its answer: the connection is closed")
        finally:
            self._answering.abandon()


async def _body(request: Request, limits: ServiceLimits) -> bytes:
    """Return the body of a request; refuse one that is too long, too slow, or not JSON."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise RequestRefused(Problem(415, "Send JSON with Content-Type: application/json."))
    too_long = Problem(413, f"The body is longer than {limits.body_bytes} bytes.", code="body_too_long")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limits.body_bytes:
        raise RequestRefused(too_long)
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body):
            async for part in request.stream():
                body += part
                if len(body) > limits.body_bytes:
                    raise RequestRefused(too_long)
    except TimeoutError as error:
        raise RequestRefused(Problem(408, "The body did not arrive in time.")) from error
    return bytes(body)


def _ping(database: ConnectionPool) -> None:
    with database.connection(timeout=2) as connection:
        connection.execute("SELECT 1")


async def _refused(request: Request, error: Exception) -> Response:
    problem = problem_of(error)
    return JSONResponse(problem.body(), problem.status, problem.headers())


async def _not_served(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse(Problem(error.status_code, str(error.detail)).body(), error.status_code)
