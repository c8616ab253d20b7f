"""Text that others wrote, made fit to be shown: nothing in it is hidden, and nothing in it acts."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

__all__ = ["finalize", "is_digest", "moment", "number", "shown"]

_DIGEST = re.compile(r"(?:[a-z0-9]+:)?[0-9a-f]{64}")
_MARK = "⟨U+{:04X}⟩"


def shown(text: str) -> str:
    """Return foreign text with every character that has no shape as its code, in ``⟨⟩``.

    Terminal escapes, bidirectional overrides and what joins or hides letters come out as ``⟨U+202E⟩``; other spaces
    become plain ones, other line ends ``\\n``. Escaping for HTML is done where it is shown.
    """
    return "".join(map(_visible, text.replace("\r\n", "\n")))


def _visible(letter: str) -> str:
    if letter.isprintable() or letter in "\n\t":
        return letter
    category = unicodedata.category(letter)
    if category == "Zs":
        return " "
    return "\n" if category in ("Zl", "Zp") else _MARK.format(ord(letter))


def finalize(value: Any) -> Any:
    """Return what a template shows of a value: a dash for nothing, text made visible, markup as it is.

    Templates pass every expression through it, so that none can forget to.
    """
    if value is None:
        return "–"
    return value if isinstance(value, Markup) else shown(str(value))


def moment(at: datetime) -> str:
    """Return a time in UTC, to the minute."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def number(value: float | None) -> str:
    """Return a figure with three decimals, or three digits when it is large."""
    if value is None:
        return "missing"
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:.3g}"


def is_digest(value: object) -> bool:
    """Tell whether a value is a sha-256 as hexadecimal digits, perhaps with the name of the method before it."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None
