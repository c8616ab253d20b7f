"""Addresses of places outside, as people write them into a configuration file: without any secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from llmops.errors import ConfigurationError, MissingInput, ServiceUnavailable
from llmops.settings import masked

__all__ = ["Options", "Place", "enabled", "without_secrets"]

_USER = re.compile(r"://(?P<user>[^/?#\s]*)@")
_CONTAINER = re.compile(r"abfss?://[^:/@?#\s]+@[^/@?#\s]+(?:/.*)?", re.DOTALL)
_SECRET = re.compile(
    r"(?i)secret|passw|token|credential|signature|connection_string|(?:^|_)(?:sas|auth|bearer)(?:_|$)"
    r"|^(?:key|username|user)$|(?:access|account|api|private|shared|master|encryption|storage)_?key"
)
_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m(?:\u21b3)?")  # deltalake paints its messages


def without_secrets(address: str) -> str:
    """Return an address; raise ValueError where it has room for a secret: a user, a query, a fragment."""
    if not address.strip() or _CONTROL.search(address.replace(" ", "")):
        raise ValueError("must not be empty, and must not hold control characters")
    if _USER.search(address) and not _CONTAINER.fullmatch(address):
        raise ValueError(
            "must not hold a user or a password: credentials come from the environment or the machine's own role"
        )
    if "?" in address:
        raise ValueError("must not have a query ('?'): signatures and tokens do not belong in this file")
    return address


def _options(options: dict[str, str]) -> dict[str, str]:
    secret = sorted(key for key in options if _SECRET.search(key))
    if secret:
        raise ValueError(
            f"{secret} look like secrets: credentials come from the environment, a profile of the provider's own "
            "files or the machine's role, never from this file"
        )
    for key, value in options.items():
        try:
            without_secrets(value)
        except ValueError as error:
            raise ValueError(f"{key!r} {error}") from None
    return options


Options = Annotated[dict[str, str], AfterValidator(_options)]
"""What a storage must be told that is no secret, such as ``region`` or ``endpoint_url``."""


@dataclass(frozen=True)
class Place:
    """Where a source is, and the errors that say so."""

    source: str
    address: str

    def missing(self, reason: object) -> MissingInput:
        """Return the error that there is nothing at this place."""
        return MissingInput(
            f"source {self.source!r}: nothing is at {self.address!r} ({_shown(reason)}): correct the address, or "
            "put documents there. Its documents here stay as they are"
        )

    def denied(self, reason: object) -> ConfigurationError:
        """Return the error that this process may not read here."""
        return ConfigurationError(
            f"source {self.source!r}: reading {self.address!r} is refused ({_shown(reason)}): give this process "
            "credentials with the right to list and to read, through the environment or the machine's role"
        )

    def wrong(self, reason: object) -> ConfigurationError:
        """Return the error that the storage does not understand what it is asked."""
        return ConfigurationError(
            f"source {self.source!r}: the storage refuses requests for {self.address!r} ({_shown(reason)}): "
            "check the address and `storage_options`, such as the region"
        )

    def unavailable(self, reason: object) -> ServiceUnavailable:
        """Return the error that the storage does not answer as it should."""
        return ServiceUnavailable(
            f"source {self.source!r}: {self.address!r} cannot be read now ({_shown(reason)}). Nothing was taken "
            "from it; run this again later"
        )

    def of(self, path: str) -> Place:
        """Return the place of one file below this one."""
        return Place(self.source, f"{self.address.rstrip('/')}/{path}")


def _shown(reason: object) -> str:
    """Return an error's message on one line, of bounded length, without credentials and colours."""
    text = " ".join(_COLOURS.sub("", str(reason)).split()) or type(reason).__name__
    return masked(re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\"]*", r"\1", text))[:300]


def enabled(options: Mapping[str, str], key: str) -> bool:
    """Return a yes-or-no option, no where it is not given."""
    return options.get(key, "false").lower() in ("true", "1", "yes")
