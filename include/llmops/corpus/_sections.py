"""The sections of a Markdown text: heading path and exact place of each body."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["SectionSpan", "sections"]

_FENCE = re.compile(r"^\s*(?:[-*+]\s+|\d+[.)]\s+|>\s*)*(?P<mark>`{3,}|~{3,})(?P<rest>.*)$")
_ATX = re.compile(r"^ {0,3}(?P<level>#{1,6})(?:[ \t]+(?P<text>.*?))?(?:[ \t]+#+)?[ \t]*$")
_SETEXT = re.compile(r"^ {0,3}(?P<mark>=+|-{2,})[ \t]*$")
_NOT_SETEXT = re.compile(r"^(?: {4}|\s*(?:[-*+>|]|\d+[.)])(?:\s|$)|.*\|)")
_ANCHOR = re.compile(r"\s*\{[#:.][^}]*\}\s*$|<[^>]+>")


@dataclass(frozen=True)
class SectionSpan:
    """One section's own text, ``text[start:end]``, without its heading and its subsections."""

    heading_path: tuple[str, ...]
    start: int
    end: int


def sections(text: str, *, markdown: bool = True) -> list[SectionSpan]:
    """Return the sections of a text that have any text of their own, in order.

    Headings are ATX (``## x``) and underlined ones outside code fences; a line that starts with ``#``
    within a fence is code. Text before the first heading has an empty path, and a text without
    headings, or one that is not Markdown, is a single section.
    """
    path: list[tuple[int, str]] = []
    spans, start = [], 0
    for level, heading, begin, after in _headings(text) if markdown else ():
        spans.append(_span(text, path, start, begin))
        path = [*(entry for entry in path if entry[0] < level), (level, heading)]
        start = after
    spans.append(_span(text, path, start, len(text)))
    return [span for span in spans if span.end > span.start]


def _span(text: str, path: list[tuple[int, str]], start: int, end: int) -> SectionSpan:
    body = text[start:end]
    start += len(body) - len(body.lstrip())
    return SectionSpan(tuple(heading for _, heading in path if heading), start, start + len(body.strip()))


def _headings(text: str) -> Iterator[tuple[int, str, int, int]]:
    """Yield (level, heading, where its line begins, where the text after it begins)."""
    fence = ""
    previous, previous_at, before = "", 0, ""
    at = 0
    for line in text.splitlines(keepends=True):
        begin, at = at, at + len(line)
        line = line.rstrip("\n")
        if mark := _FENCE.match(line):
            if not fence and "`" not in mark["rest"]:
                fence = mark["mark"]
            elif fence and mark["mark"].startswith(fence) and not mark["rest"].strip():
                fence = ""
            line = ""
        elif not fence:
            if atx := _ATX.match(line):
                yield len(atx["level"]), _clean(atx["text"] or ""), begin, at
                line = ""
            elif (under := _SETEXT.match(line)) and _can_be_underlined(previous, before):
                yield (1 if under["mark"][0] == "=" else 2), _clean(previous), previous_at, at
                line = ""
        else:
            line = ""
        before, previous, previous_at = previous, line, begin


def _can_be_underlined(line: str, before: str) -> bool:
    return bool(line.strip()) and not before.strip() and not _NOT_SETEXT.match(line)


def _clean(heading: str) -> str:
    return " ".join(_ANCHOR.sub("", heading).replace("`", "").split())[:200]
