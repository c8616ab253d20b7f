"""Requests and responses in OpenAI's shape, with what this service adds to them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmops.chain import Answer, check_question
from llmops.errors import InvalidRequest

__all__ = [
    "ChatRequest",
    "FeedbackRequest",
    "ProbeRequest",
    "added_fields",
    "chunk",
    "completion",
    "event",
    "parse",
    "usage_chunk",
]

RequestT = TypeVar("RequestT", bound=BaseModel)


class _Part(BaseModel):
    type: Literal["text"]
    text: str


class _Turn(BaseModel):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_Part] | None = None

    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class _StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    """A request for an answer.

    The last message is the question. What the release pins (prompt, sampling, retrieval) cannot be set by
    a caller: earlier messages and sampling parameters are accepted, since clients send them, and not used.
    """

    model: Annotated[str, Field(max_length=200)]
    messages: Annotated[list[_Turn], Field(min_length=1, max_length=200)]
    stream: bool = False
    stream_options: _StreamOptions | None = None
    n: Literal[1] | None = None

    def question(self) -> str:
        """Return the text of the last message; raise InvalidRequest unless it is a user's question."""
        last = self.messages[-1]
        if last.role != "user":
            raise InvalidRequest(f"the last message must be the user's question, its role is {last.role!r}")
        question = last.text()
        check_question(question)
        return question


class FeedbackRequest(BaseModel):
    """An opinion on one answer."""

    model_config = ConfigDict(extra="forbid")

    answer_id: Annotated[str, Field(min_length=1, max_length=100)]
    rating: Literal["up", "down"]
    comment: Annotated[str, Field(max_length=10_000)] | None = None
    correction: Annotated[str, Field(max_length=20_000)] | None = None


class ProbeRequest(BaseModel):
    """Asks a replica to show that it can answer."""

    model_config = ConfigDict(extra="forbid")

    assistant: Annotated[str, Field(max_length=200)]


def parse(model: type[RequestT], body: bytes) -> RequestT:
    """Return a body as a request; raise InvalidRequest that names every wrong field and quotes none."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        raise InvalidRequest(
            "; ".join(f"{'.'.join(map(str, p['loc'])) or 'body'}: {p['msg']}" for p in problems[:5])
        ) from error


def added_fields(answer_id: str, release_id: str, answer: Answer) -> dict[str, Any]:
    """Return what an answer carries beyond OpenAI's fields."""
    return {
        "answer_id": answer_id,
        "release": release_id,
        "refused": answer.refused,
        "confidence": answer.confidence,
        "citations": [asdict(citation) for citation in answer.citations],
    }


def completion(model: str, answer_id: str, release_id: str, answer: Answer) -> dict[str, Any]:
    """Return a whole answer as a chat completion."""
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    return {
        "id": answer_id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {"index": 0, "message": message, "finish_reason": answer.finish_reason, "logprobs": None}
        ],
        "usage": _usage(answer),
        **added_fields(answer_id, release_id, answer),
    }


def chunk(
    model: str,
    answer_id: str,
    delta: Mapping[str, str],
    finish_reason: str | None = None,
    added: Mapping[str, Any] | None = None,
) -> bytes:
    """Return a piece of a streamed answer as one event."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
    return event({**_head(model, answer_id), "choices": [choice], **(added or {})})


def usage_chunk(model: str, answer_id: str, answer: Answer) -> bytes:
    """Return the event that clients ask for with ``include_usage``."""
    return event({**_head(model, answer_id), "choices": [], "usage": _usage(answer)})


def event(data: Mapping[str, Any]) -> bytes:
    """Return one server-sent event."""
    return b"data: " + json.dumps(data, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"


def _head(model: str, answer_id: str) -> dict[str, Any]:
    return {"id": answer_id, "object": "chat.completion.chunk", "created": int(time.time()), "model": model}


def _usage(answer: Answer) -> dict[str, int] | None:
    if answer.usage is None:
        return None
    total = answer.usage.prompt_tokens + answer.usage.completion_tokens
    return {**asdict(answer.usage), "total_tokens": total}
