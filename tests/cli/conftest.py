"""The real stores of the tests about releases, for the commands that read and move them."""

from __future__ import annotations

from release.conftest import (
    approved,
    ask,
    environment,
    notary_key,
    owner,
    record,
    release,
    report,
    serving,
    signed,
    url,
)

__all__ = [
    "approved",
    "ask",
    "environment",
    "notary_key",
    "owner",
    "record",
    "release",
    "report",
    "serving",
    "signed",
    "url",
]
