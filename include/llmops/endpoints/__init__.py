"""What everybody needs who asks a model over HTTP: a client that never hangs, keys, and what is sent and read."""

from llmops.endpoints._endpoint import Again, EndpointLimits, JsonEndpoint, base_url
from llmops.endpoints._key import find_key, read_key
from llmops.endpoints._transport import Countdown
from llmops.endpoints._wire import Wire, WireError, parse

__all__ = [
    "Again",
    "Countdown",
    "EndpointLimits",
    "JsonEndpoint",
    "Wire",
    "WireError",
    "base_url",
    "find_key",
    "parse",
    "read_key",
]
