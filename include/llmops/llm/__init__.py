"""Language models behind any OpenAI-compatible URL: a client that never hangs, and a fake to test against."""

from llmops.llm._endpoint import ChatEndpoint, EndpointLimits, check_url
from llmops.llm._fake import (
    Drip,
    Failure,
    FakeLanguageModel,
    Malformed,
    Page,
    Reply,
    Reset,
    Stall,
    Truncated,
)
from llmops.llm._messages import Completion, Message, Usage

__all__ = [
    "ChatEndpoint",
    "Completion",
    "Drip",
    "EndpointLimits",
    "Failure",
    "FakeLanguageModel",
    "Malformed",
    "Message",
    "Page",
    "Reply",
    "Reset",
    "Stall",
    "Truncated",
    "Usage",
    "check_url",
]
