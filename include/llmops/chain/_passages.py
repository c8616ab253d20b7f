"""A chunk of Markdown as the units that can be quoted: sentences, list items, code blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Passage", "passages"]

_FENCE = re.compile(r"^\s*(```+|~~~+)\s*(\S*)")
_GLUED = re.compile(r"(?<=\S)[ \t]+(```\w*)[ \t]*$", re.MULTILINE)
_HEADING = re.compile(r"^\s{0,3}#{1,6}\s")
_UNDERLINE = re.compile(r"^\s*([=\-~^*+_])\1{2,}\s*$")
_ITEM = re.compile(r"^\s*(?:[-*+•]|\d{1,3}[.)])\s+(?=\S)")
_FIELD = re.compile(r"^\s*:(?:param|type|return|returns|rtype|raises?|arg|keyword)\b[^:]*:\s*")
_DIRECTIVE = re.compile(r"^\s*\.\. \S|^\s*<!--|^\s*!?\[[^\]]*\]\([^)]*\)\s*$|^\s*\|")
_DOCTEST = re.compile(r"^\s*>>> ")
_END = re.compile(r"[.!?][\"'”’)\]*_`]*\s+(?=[\"'“‘(\[*_`]*[A-Z0-9`])")
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|resp|approx|fig|no|al)|\b[A-Z])\.$", re.IGNORECASE)
_STATEMENT = re.compile(
    r"\s*(?:from \S+ import |import \w[\w.]*(?: as \w+)?$"
    r"|(?:async )?(?:def|class|with|for|if|while|try)\b.*:$"
    r"|[\w.\[\]\"']+(?:: [^=]+)? = \S|[\w.]+\(.*[)(\[{,]$|[)\]}]+[,)\]}]*$|@\w[\w.]*(?:\(.*\))?$"
    r"|return\b|[\"'][^\"']*[\"']: .*,$|[(\[{]+$|\w+=\S[^.]*$|\.\w+\(.*$)"
)
_INDENT = 4
_MOSTLY = 0.6


@dataclass(frozen=True)
class Passage:
    """A unit of a chunk at its place; prose is on one line, code is a whole fenced block."""

    text: str
    place: int
    code: bool = False
    block: int = 0


def passages(text: str) -> list[Passage]:
    """Return the quotable units of a chunk in order; headings, tables, images and directives are left out."""
    found: list[Passage] = []
    for number, (block, code) in enumerate(_blocks(text)):
        for unit in [block] if code else _sentences(block):
            found.append(Passage(unit, len(found), code, number))
    return found


def _blocks(text: str) -> Iterator[tuple[str, bool]]:
    """Yield paragraphs and list items on one line, and code blocks with fences around them."""
    lines = _GLUED.sub(r"\n\1", text).splitlines()
    if _starts_inside_code(lines):
        lines.insert(0, "```")
    prose: list[str] = []
    i = 0
    while i < len(lines):
        line = lines[i]
        length = _code_length(lines, i, after_blank=not prose)
        if length:
            yield from _prose(prose)
            if block := _fenced(lines[i : i + length]):
                yield block, True
            prose = []
            i += length
            continue
        i += 1
        if _UNDERLINE.match(line):
            prose = []
            continue
        skipped = _HEADING.match(line) or _DIRECTIVE.match(line) or not line.strip()
        item = _ITEM.match(line) or _FIELD.match(line)
        if skipped or item:
            yield from _prose(prose)
            prose = []
        if not skipped:
            prose.append(_ITEM.sub("", line, count=1))
    yield from _prose(prose)


def _prose(lines: list[str]) -> Iterator[tuple[str, bool]]:
    """Yield a paragraph, or code when most of its lines are code whose fence is in another chunk."""
    coded = sum(_STATEMENT.match(line) is not None for line in lines)
    if lines and coded >= _MOSTLY * len(lines):
        yield _fenced(lines), True
    elif lines:
        yield " ".join(" ".join(lines).split()), False


def _starts_inside_code(lines: list[str]) -> bool:
    """Return whether a chunk begins in the middle of a code block that was cut."""
    fences = [match for line in lines if (match := _FENCE.match(line))]
    return len(fences) % 2 == 1 and not fences[0][2] and not _FENCE.match(lines[0])


def _code_length(lines: list[str], start: int, *, after_blank: bool) -> int:
    """Return how many lines from ``start`` on are one code block, 0 when it is none."""
    fence = _FENCE.match(lines[start])
    if fence:
        closing = (n for n in range(start + 1, len(lines)) if lines[n].strip().startswith(fence[1]))
        return next(closing, len(lines) - 1) - start + 1
    if _DOCTEST.match(lines[start]):
        ends = (n for n in range(start, len(lines)) if not lines[n].strip())
        return next(ends, len(lines)) - start
    indented = " " * _INDENT
    if after_blank and lines[start].startswith(indented) and not _ITEM.match(lines[start]):
        ends = (n for n in range(start, len(lines)) if lines[n].strip() and not lines[n].startswith(indented))
        return next(ends, len(lines)) - start
    return 0


def _fenced(lines: list[str]) -> str:
    """Return code in a fence of its own, closed also where the chunk was cut; nothing for an empty block."""
    language = "python"
    fence = _FENCE.match(lines[0])
    if fence:
        language = fence[2]
        lines = lines[1:]
        if lines and _FENCE.match(lines[-1]):
            lines = lines[:-1]
    while lines and not lines[0].strip():
        lines = lines[1:]
    body = "\n".join(lines).rstrip()
    return f"```{language}\n{body}\n```" if body else ""


def _sentences(block: str) -> list[str]:
    found: list[str] = []
    start = 0
    for end in _END.finditer(block):
        if _ABBREVIATION.search(block[start : end.start() + 1]):
            continue
        found.append(block[start : end.end()].strip())
        start = end.end()
    rest = block[start:].strip()
    return [*found, rest] if rest else found
