"""Writing Markdown: what a document says must not become structure that it does not have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

__all__ = ["blocks", "cell", "fence", "indented", "link", "plain", "repeated", "tables"]

_LINE_START = re.compile(r"\n([ \t]*)(?=#{1,6}(?:[ \t\n]|\Z)|(?:=+|-{2,})[ \t]*(?:\n|\Z))")
_FENCES = re.compile(r"(?<![`~\\])(?=`{3}|~{3})")
_SPACE = re.compile(r"\s+")
_SAFE_LINK = re.compile(r"(?:https?://|mailto:)[^\s<>]+", re.IGNORECASE)

_PART = 600
"""Characters of a table's part, header included: what a small chunk holds."""
_HEADER = 300
"""Characters of a header row; a longer one is split by columns, and so is one of more columns than this:"""
_COLUMNS = 12


def plain(text: str) -> str:
    """Return text with what would make its lines headings, underlines or fences escaped."""
    # A literal first character lets the pattern be found fast, on texts of megabytes too.
    text = _LINE_START.sub(r"\n\1\\", f"\n{text}")[1:]
    return _FENCES.sub(r"\\", text) if "```" in text or "~~~" in text else text


def blocks(parts: Iterable[str]) -> str:
    """Return blocks separated by empty lines, without the empty ones."""
    return "\n\n".join(part for part in parts if part.strip())


def fence(code: str, language: str = "") -> str:
    """Return a fenced block whose fence is longer than any within the code."""
    longest = max(map(len, re.findall("`{3,}", code)), default=2)
    ticks = "`" * (longest + 1)
    return f"{ticks}{language}\n{code.rstrip()}\n{ticks}"


def link(label: str, target: str | None) -> str:
    """Return a link to a web page or an address, and only the label of any other."""
    label, target = label.strip(), (target or "").strip()
    if not label or not _SAFE_LINK.fullmatch(target):
        return label
    if label in (target, target.removeprefix("mailto:")):
        return label
    return f"[{label}](<{target}>)" if re.search(r"[()]", target) else f"[{label}]({target})"


def indented(text: str, columns: int) -> str:
    """Indent every line but the first, which stands behind a list marker."""
    return text.replace("\n", "\n" + " " * columns)


def cell(text: str) -> str:
    """Return a text as one cell of a table: in one line, its pipes escaped."""
    return _SPACE.sub(" ", text).strip().replace("|", "\\|")


def tables(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cell texts as Markdown tables, the first row as header; "" without rows.

    A long table becomes several that each repeat the header, a wide one several that each repeat the
    first column: a chunk made of any of them is understood by itself.
    """
    width = max(map(len, rows), default=0)
    full = [[*map(cell, row), *[""] * (width - len(row))] for row in rows]
    return "\n\n".join(part for columns in _groups(full, width) for part in _parts(full, columns))


def _groups(rows: list[list[str]], width: int) -> Iterator[list[int]]:
    """Yield the columns of each table: all of them, or as many as a header can name beside the first."""
    columns, length = [0], len(rows[0][0]) if width else 0
    whole = width <= _COLUMNS and sum(map(len, rows[0] if width else ())) <= _HEADER
    for column in range(1, width):
        long = len(columns) == _COLUMNS or length + len(rows[0][column]) > _HEADER
        if long and not whole and len(columns) > 1:
            yield columns
            columns, length = [0], len(rows[0][0])
        columns.append(column)
        length += len(rows[0][column])
    if width:
        yield columns


def _parts(rows: list[list[str]], columns: list[int]) -> Iterator[str]:
    """Yield the tables of one group of columns, without rows that hold nothing of their own there."""
    own = columns if columns[1:2] in ([], [1]) else columns[1:]
    lines = [_line(row, columns) for row in rows[1:] if any(row[column] for column in own)]
    head = f"{_line(rows[0], columns)}\n|{' --- |' * len(columns)}"
    yield from repeated(head, lines)


def repeated(head: str, lines: Iterable[str]) -> Iterator[str]:
    """Yield tables of a small chunk's size that all begin with the same head: header row and rule."""
    part, length = [head], len(head)
    for line in lines:
        if len(part) > 1 and length + len(line) > _PART:
            yield "\n".join(part)
            part, length = [head], len(head)
        part.append(line)
        length += len(line) + 1
    yield "\n".join(part)


def _line(row: list[str], columns: list[int]) -> str:
    return "| " + " | ".join(row[column] for column in columns) + " |"
