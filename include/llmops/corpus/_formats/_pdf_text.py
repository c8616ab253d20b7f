"""The lines of a PDF's pages as paragraphs: a PDF knows where ink goes, and nothing of words or sections."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llmops.corpus._formats._markdown import plain

__all__ = ["Bookmark", "compose"]

_HYPHEN = "\ufffe"
"""PDFium's mark where a hyphen at the end of a line cut a word; it has joined the lines."""
_LINE_HYPHEN = re.compile(r"-\r?\n(?=[a-z])")
_LAST_WORD = re.compile(r"[^\W\d_]*\Z")
_FIRST_WORD = re.compile(r"[^\W\d_]*")
_LONGEST_WORD = 60
_DIGITS = re.compile(r"\d+")
_PAGE_WORDS = re.compile(
    r"\W*(?:page|pg|p|seite|s|página|pagina|pag|page n|sida|side|strona|str|slide|folie)?\W*"
    r"#(?:\W*(?:of|von|de|di|sur|/)?\W*#)?\W*",
    re.IGNORECASE,
)
_EDGE = 2
"""How many lines at the top and at the bottom of a page may be its running header and footer."""
_MIN_PAGES = 4
_ITEM = re.compile(r"(?P<bullet>[•◦▪‣●○■□–‐⁃∙·*-])(?: +|$)|(?:\d{1,3}|[a-zA-Z])[.)] \S|\(\w{1,3}\) \S")
_AFTER_MARK = " .)0123456789"
_FULL = 0.75
"""A line of at least this share of its page's width goes on in the next one."""
_ENDS = frozenset(".!?:;。！？")


@dataclass(frozen=True)
class Bookmark:
    """An entry of a PDF's outline; ``level`` and ``page`` start at 0."""

    level: int
    title: str
    page: int


def compose(pages: Sequence[str], bookmarks: Sequence[Bookmark]) -> str:
    """Return the pages' text as Markdown, each page beginning a paragraph of its own.

    Words cut at line ends are whole again, running headers, footers and page numbers are gone, and each
    bookmark is a heading: where its title stands on its page, or else at the page's top.
    """
    lines = [
        [line for raw in text.splitlines() if (line := raw.strip())] for text in _with_whole_words(pages)
    ]
    if len(lines) >= _MIN_PAGES:
        _drop_running_lines(lines)
    by_page: dict[int, list[Bookmark]] = {}
    for bookmark in bookmarks:
        by_page.setdefault(bookmark.page, []).append(bookmark)
    parts = [part for n, page in enumerate(lines) for part in _page(page, by_page.get(n, []))]
    return "\n\n".join(part for part in parts if part)


def _with_whole_words(pages: Sequence[str]) -> list[str]:
    """Return pages whose words at line ends are whole, the hyphen kept where it belongs to the word.

    It belongs there when the document also writes the word with it, or writes both halves as words but
    never the whole.
    """
    marked = [_LINE_HYPHEN.sub(_HYPHEN, text) if "-\r\n" in text else text for text in pages]
    if not any(_HYPHEN in text for text in marked):
        return marked
    words = set("\n".join(marked).lower().split())
    return [_rejoined(text, words) if _HYPHEN in text else text for text in marked]


def _rejoined(text: str, words: set[str]) -> str:
    out: list[str] = []
    for part in text.split(_HYPHEN):
        if out and not _is_one_word(out[-1], part, words):
            out.append("-")
        out.append(part)
    return "".join(out)


def _is_one_word(left: str, right: str, words: set[str]) -> bool:
    first = _LAST_WORD.search(left[-_LONGEST_WORD:])
    second = _FIRST_WORD.match(right[:_LONGEST_WORD])
    a, b = (first[0] if first else "").lower(), second[0] if second else ""
    if not a or not b.islower():
        return False
    return f"{a}{b}" in words or not (f"{a}-{b}" in words or (a in words and b in words))


def _drop_running_lines(pages: list[list[str]]) -> None:
    """Remove from the edges of pages what stands there on most of them, or on every other one."""
    places: dict[str, dict[int, str]] = {}
    for number, lines in enumerate(pages):
        for line in _edges(lines):
            places.setdefault(_DIGITS.sub("#", line), {}).setdefault(number, line)
    enough = max(3, (len(pages) - 1) // 2)
    running = {key for key, found in places.items() if len(found) >= enough and _is_running(key, found)}
    for lines in pages:
        for edge in (slice(0, _EDGE), slice(max(len(lines) - _EDGE, 0), None)):
            lines[edge] = [line for line in lines[edge] if _DIGITS.sub("#", line) not in running]


def _edges(lines: list[str]) -> list[str]:
    return lines[:_EDGE] + lines[max(len(lines) - _EDGE, _EDGE) :]


def _is_running(key: str, found: dict[int, str]) -> bool:
    """Return whether lines that differ in nothing but numbers are a header, footer or page number.

    Their number then grows with the page, and stands beside words of its own: ``Exercise 3`` is content.
    """
    if len(set(found.values())) == 1:
        return bool(re.search(r"\w", key)) and key.strip("# ") != ""
    numbers = {page: [int(digits[:9]) for digits in _DIGITS.findall(line)] for page, line in found.items()}
    shifts = [Counter(values[at] - page for page, values in numbers.items()) for at in range(key.count("#"))]
    grows = any(shift.most_common(1)[0][1] >= 0.8 * len(found) for shift in shifts)
    return grows and bool(_PAGE_WORDS.fullmatch(key) or len(re.findall(r"[^\W\d_]{2,}", key)) >= 2)


def _page(lines: list[str], bookmarks: list[Bookmark]) -> Iterator[str]:
    """Yield a page's blocks: headings, and the text between them."""
    at = 0
    for bookmark in bookmarks:
        place = _find(lines, at, bookmark.title)
        if place is not None:
            yield _paragraphs(lines[at : place[0]])
            at = place[1]
        yield f"{'#' * min(bookmark.level + 1, 6)} {bookmark.title}"
    yield _paragraphs(lines[at:])


def _find(lines: list[str], start: int, title: str) -> tuple[int, int] | None:
    """Return the lines, at most three, that are a bookmark's title, with or without its number."""
    wanted = _letters(title)
    for at in range(start, len(lines)):
        joined = ""
        for end in range(at, min(at + 3, len(lines))):
            joined += _letters(lines[end])
            if not wanted.startswith(joined):
                break
            if joined == wanted and joined:
                return at, end + 1
    return None


def _letters(text: str) -> str:
    return "".join(filter(str.isalpha, text)).casefold()


def _paragraphs(lines: list[str]) -> str:
    """Return lines joined into paragraphs; lines that were ended early stay lines."""
    if not lines:
        return ""
    lengths = sorted(map(len, lines))
    full = _FULL * lengths[int(0.9 * (len(lengths) - 1))]
    out: list[str] = []
    previous = 0
    ended = True
    for line in lines:
        item = _ITEM.match(line) if line[1:2] in _AFTER_MARK or line[0] == "(" else None
        if item:
            out.append("\n")
        elif previous >= full:
            out.append(" ")
        else:
            out.append("\n\n" if ended or len(line) >= full else "\n")
        previous, ended = len(line), line[-1] in _ENDS
        out.append(f"- {line[item.end() :]}" if item and item["bullet"] else line)
    return plain("".join(out[1:]))
