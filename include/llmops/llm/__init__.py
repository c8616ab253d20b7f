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
from llmops.llm._key import read_key
from llmops.llm._messages import Completion, Message, Usage
from llmops.llm._prices import Price, Prices, load_prices

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
    "Price",
    "Prices",
    "Reply",
    "Reset",
    "Stall",
    "Truncated",
    "Usage",
    "check_url",
    "load_prices",
    "read_key",
]
