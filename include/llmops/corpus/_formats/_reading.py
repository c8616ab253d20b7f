"""What a reader returns, and the limits that all of them share."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from llmops.corpus._problems import Unreadable

__all__ = ["MAX_CHARACTERS", "Reading", "listed", "real_title", "within"]

MAX_CHARACTERS = 20_000_000
"""A document's text, in characters: ten thousand pages."""

_LISTED = 10
_MADE_UP = re.compile(
    r"(?:microsoft (?:word|powerpoint|excel) - .*|untitled.*|(?:word |new )?document ?\d*|"
    r"(?:powerpoint )?presentation ?\d*|slide \d+|(?:work)?book ?\d*|"
    r".*\.(?:docx?|dotx?|pdf|pptx?|xlsx?|dvi|tex|indd|qxd|ps|odt|rtf|html?))",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class Reading:
    """A file's text as Markdown, the title it gives itself ("" for none), and what the text lacks."""

    text: str
    title: str = ""
    warnings: tuple[str, ...] = ()


def real_title(title: str | None) -> str:
    """Return a title that a person gave, "" for what programs fill in (``Microsoft Word - a.doc``)."""
    line = " ".join((title or "").split())
    return "" if _MADE_UP.fullmatch(line) else line


def listed(names: Iterable[object]) -> str:
    """Return the first names, and how many more there are."""
    shown = [str(name)[:100] for name in names]
    more = f" and {len(shown) - _LISTED:,} more" if len(shown) > _LISTED else ""
    return ", ".join(shown[:_LISTED]) + more


def within(count: int, limit: int, what: str) -> None:
    """Raise Unreadable when a file claims or holds more of something than is read here."""
    if count > limit:
        raise Unreadable(
            f"it has {count:,} {what}, more than the {limit:,} a document may have: split it", "too_large"
        )
