"""The bytes of one file as normalised Markdown with a title."""

from __future__ import annotations

import logging
import re
import unicodedata
from dataclasses import dataclass
from pathlib import PurePosixPath

from llmops.corpus._files import MAX_BYTES
from llmops.corpus._problems import Unreadable
from llmops.corpus._rst import rst_to_markdown
from llmops.errors import ParseError

__all__ = ["Parsed", "media_type_of", "parse", "parsers_digest"]

log = logging.getLogger(__name__)

_MEDIA_TYPES = {
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".rst": "text/x-rst",
    ".html": "text/html",
    ".htm": "text/html",
    ".xhtml": "text/html",
    ".txt": "text/plain",
    ".text": "text/plain",
}
_MAX_MARKUP_BYTES = 4_000_000
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(?P<yaml>.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_LEADING_COMMENT = re.compile(r"\A\s*<!--(?P<body>.*?)-->", re.DOTALL)
_TITLE_LINE = re.compile(
    r"^[ \t]*[\"']?title[\"']?[ \t]*:[ \t]*(?P<title>.+?)[ \t]*,?[ \t]*$", re.IGNORECASE | re.MULTILINE
)
_FIRST_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(?P<title>.+?)[ \t#]*$", re.MULTILINE)
_SETEXT = re.compile(r"\A(?P<title>[^\n]{1,200})\n(?:=+|-{2,})[ \t]*$", re.MULTILINE)
_CHARSET = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([a-zA-Z0-9_:.-]+)", re.IGNORECASE)
_CONTROL = {c: None for c in range(32) if chr(c) not in "\n\t"} | {0x7F: None, 0xFEFF: None}


def parsers_digest() -> str:
    """Return a digest."""
    return "0"


@dataclass(frozen=True)
class Parsed:
    """A document's normalised text, its title and the format it came in.

    ``warnings`` name what the text lacks, such as pages without a text layer.
    """

    text: str
    title: str
    media_type: str
    warnings: tuple[str, ...] = ()


def media_type_of(path: str, declared: str | None = None) -> str:
    """Return a file's format, as declared or by its name; raises Unreadable when none here reads it."""
    suffix = PurePosixPath(path).suffix.lower()
    found = declared or _MEDIA_TYPES.get(suffix)
    if found is None:
        raise Unreadable(
            f"its format ({suffix or 'no suffix'}) is not supported: "
            "Markdown, reStructuredText, HTML and plain text are",
            "unsupported",
        )
    return found


def parse(path: str, declared: str | None, content: bytes) -> Parsed:
    """Return a file's content as a document: Unix line ends, NFC, no control characters.

    ``declared`` is the media type where the source knows it, None where the name in ``path`` decides.

    Markdown, reStructuredText and HTML become Markdown; plain text stays as it is. Raises Unreadable
    with the reason for quarantine.
    """
    media_type = media_type_of(path, declared)
    limit = _MAX_MARKUP_BYTES if media_type in ("text/html", "text/x-rst") else MAX_BYTES
    if len(content) > limit:
        raise Unreadable(
            f"it has {len(content):,} bytes, more than the {limit:,} a {media_type} document may have: "
            "split it"
        )
    text = _normalised(_decoded(content, media_type))
    try:
        parsed = _READERS[media_type](text)
    except RecursionError as error:
        raise Unreadable("its elements are nested too deeply to be read") from error
    except ParseError as error:
        raise Unreadable(str(error)) from error
    except Exception as error:  # The edge to parsers: on a hostile file they raise anything.
        log.warning("The reader of %s failed on %s", media_type, path, exc_info=True)
        # No message: one that names an address in memory would make every run's reason a new one.
        raise Unreadable(f"the reader of {media_type} failed on it ({type(error).__name__})") from error
    body, title = _normalised(parsed[0]), parsed[1]
    if not body.strip():
        raise Unreadable("it has no text", "empty")
    name = PurePosixPath(path).name if media_type == "text/plain" else PurePosixPath(path).stem
    return Parsed(body.strip("\n") + "\n", _one_line(title) or name, media_type)


def _decoded(content: bytes, media_type: str) -> str:
    """Decode UTF-8, UTF-16 with a byte order mark, or what an HTML page declares; never guess."""
    if not content.strip():
        raise Unreadable("it has no text", "empty")
    encoding = "utf-8-sig"
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif b"\0" in content:
        raise Unreadable("it is a binary file: it contains NUL bytes")
    elif media_type == "text/html" and (declared := _CHARSET.search(content[:4096])):
        encoding = declared[1].decode("ascii").lower()
        encoding = "utf-8-sig" if encoding in ("utf-8", "utf8") else encoding
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise Unreadable(
            f"it is not valid {error.encoding.upper()}: byte {content[error.start]:#04x} "
            f"at offset {error.start}; save it as UTF-8"
        ) from error
    except (LookupError, ValueError) as error:
        raise Unreadable(f"it declares the unknown encoding {encoding!r}: save it as UTF-8") from error
    if not isinstance(text, str) or sum(map(text.count, map(chr, range(1, 9)))) > max(8, len(text) // 100):
        raise Unreadable("it is a binary file: it is full of control characters")
    return text


def _normalised(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(_CONTROL)
    return unicodedata.normalize("NFC", text)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


def _markdown(text: str) -> tuple[str, str]:
    title = ""
    if front := _FRONT_MATTER.match(text):
        text, title = text[front.end() :], _titled(front["yaml"])
    while comment := _LEADING_COMMENT.match(text):
        text, title = text[comment.end() :], title or _titled(comment["body"])
    return text, title or _heading(text)


def _titled(block: str) -> str:
    found = _TITLE_LINE.search(block)
    return found["title"].strip("\"'") if found else ""


def _heading(text: str) -> str:
    found = _SETEXT.match(text.lstrip()) or _FIRST_HEADING.search(
        re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    )
    return re.sub(r"[`*]|\s*\{#[^}]*\}$", "", found["title"]) if found else ""


def _rst(text: str) -> tuple[str, str]:
    body = rst_to_markdown(text)
    return body, _heading(body)


def _html(text: str) -> tuple[str, str]:
    """Return the readable part of a page: no scripts, styles, forms or navigation."""
    from bs4 import BeautifulSoup, Comment
    from markdownify import ATX, MarkdownConverter

    comment = _LEADING_COMMENT.match(text)
    soup = BeautifulSoup(text, "lxml")
    title = soup.title.get_text() if soup.title else ""
    for tag in soup(
        ["script", "style", "noscript", "template", "nav", "form", "iframe", "object", "svg", "head"]
    ):
        tag.decompose()
    for note in soup.find_all(string=lambda s: isinstance(s, Comment)):
        note.extract()
    options = {"heading_style": ATX, "bullets": "-", "strip": ["img"], "escape_underscores": False}
    body = MarkdownConverter(**options, escape_asterisks=False, escape_misc=False).convert_soup(soup)
    body = re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+\n", "\n", body))
    return body, title or (_titled(comment["body"]) if comment else "") or _heading(body)


def _plain(text: str) -> tuple[str, str]:
    first = next((line for line in text.split("\n") if line.strip()), "")
    return text, first if len(first) <= 120 else ""


_READERS = {"text/markdown": _markdown, "text/x-rst": _rst, "text/html": _html, "text/plain": _plain}
