"""What goes to a language model and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Completion", "Message", "Usage"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Usage:
    """Tokens as the endpoint counted them."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Completion:
    """A whole answer of a language model.

    ``finish_reason`` is ``"length"`` when the model was cut at its token limit, ``"stop"`` otherwise;
    ``usage`` is None when the endpoint did not say.
    """

    text: str
    finish_reason: Literal["stop", "length"]
    usage: Usage | None
    model: str
