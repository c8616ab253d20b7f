"""The bytes of one file as normalised Markdown with a title."""

from __future__ import annotations

import functools
import logging
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import PurePosixPath

from llmops.corpus._files import MAX_BYTES
from llmops.corpus._formats._html import read_html
from llmops.corpus._formats._mail import read_mail
from llmops.corpus._formats._media import (
    CSV,
    DOCX,
    EML,
    HTML,
    IPYNB,
    MARKDOWN,
    PDF,
    PPTX,
    RST,
    TEXT,
    TSV,
    XLSX,
    media_type_of,
)  # fmt: skip
from llmops.corpus._formats._notebook import read_notebook
from llmops.corpus._formats._pdf import read_pdf
from llmops.corpus._formats._reading import Reading, within
from llmops.corpus._formats._sheets import read_csv, read_tsv, read_workbook
from llmops.corpus._formats._slides import read_slides
from llmops.corpus._formats._visible import normalised, without_hidden
from llmops.corpus._formats._word import read_word
from llmops.corpus._problems import Unreadable
from llmops.corpus._rst import rst_to_markdown
from llmops.errors import ParseError
from llmops.manifest import content_hash

__all__ = ["PARSERS", "Parsed", "media_type_of", "parse", "parsers_digest"]

_NAMED_BY_HEADING = {RST, HTML, DOCX, IPYNB}
"""Formats whose first heading is the document's title where it has no other."""

log = logging.getLogger(__name__)

PARSERS = 2
"""Raise it when a reader here would give another text for the same bytes: all files are then read anew."""

_LIBRARIES = (
    "pypdfium2", "python-docx", "python-pptx", "openpyxl", "lxml", "beautifulsoup4", "markdownify", "docutils",
)  # fmt: skip
_MAX_MARKUP_BYTES = 4_000_000
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(?P<yaml>.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_LEADING_COMMENT = re.compile(r"\A\s*<!--(?P<body>.*?)-->", re.DOTALL)
_TITLE_LINE = re.compile(
    r"^[ \t]*[\"']?title[\"']?[ \t]*:[ \t]*(?P<title>.+?)[ \t]*,?[ \t]*$", re.IGNORECASE | re.MULTILINE
)
_FIRST_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(?P<title>.+?)[ \t#]*$", re.MULTILINE)
_SETEXT = re.compile(r"\A(?P<title>[^\n]{1,200})\n(?:=+|-{2,})[ \t]*$", re.MULTILINE)
_CHARSET = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([a-zA-Z0-9_:.-]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Parsed:
    """A document's normalised text, its title and the format it came in.

    ``warnings`` name what the text lacks, such as pages without a text layer.
    """

    text: str
    title: str
    media_type: str
    warnings: tuple[str, ...] = ()


@functools.cache
def parsers_digest() -> str:
    """Return 16 hexadecimal digits that change when the same bytes may give another text."""
    versions = {name: metadata.version(name) for name in _LIBRARIES}
    return content_hash({"parsers": PARSERS, "unicode": unicodedata.unidata_version, **versions})[:16]


def parse(path: str, declared: str | None, content: bytes) -> Parsed:
    """Return a file's content as a document: Unix line ends, NFC, no control or invisible characters.

    ``declared`` is the media type where the source knows it, None where the name in ``path`` decides.

    Everything but plain text becomes Markdown. Raises Unreadable with the reason for quarantine and its
    class.
    """
    media_type = media_type_of(path, declared)
    within(len(content), _MAX_MARKUP_BYTES if media_type in (HTML, RST) else MAX_BYTES, "bytes")
    if not content.strip():
        raise Unreadable("it has no text", "empty")
    try:
        reading = _read(media_type, content)
    except Unreadable:
        raise
    except RecursionError as error:
        raise Unreadable("its elements are nested too deeply to be read") from error
    except MemoryError as error:
        raise Unreadable("it needs more memory than a document may: split it", "memory") from error
    except ParseError as error:
        raise Unreadable(str(error)) from error
    except Exception as error:  # The edge to parsers: on a hostile file they raise anything.
        log.warning("The reader of %s failed on %s", media_type, path, exc_info=True)
        # No message: one that names an address in memory would make every run's reason a new one.
        raise Unreadable(f"the reader of {media_type} failed on it ({type(error).__name__})") from error
    body, title = normalised(reading.text), _one_line(normalised(reading.title))
    if not body.strip():
        raise Unreadable("it has no text", "empty")
    within(len(body), MAX_BYTES, "characters")
    name = PurePosixPath(path).name if media_type == TEXT else PurePosixPath(path).stem
    if not title and media_type in _NAMED_BY_HEADING:
        title = _one_line(_heading(body))
    return Parsed(body.strip("\n") + "\n", title or name, media_type, reading.warnings)


def _read(media_type: str, content: bytes) -> Reading:
    if reader := _FILE_READERS.get(media_type):
        return reader(content)
    return _READERS[media_type](normalised(_decoded(content, media_type)))


def _decoded(content: bytes, media_type: str) -> str:
    """Decode UTF-8, UTF-16 with a byte order mark, or what an HTML page declares; never guess."""
    encoding = "utf-8-sig"
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif b"\0" in content:
        raise Unreadable("it is a binary file: it contains NUL bytes")
    elif media_type == HTML and (declared := _CHARSET.search(content[:4096])):
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


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


def _markdown(text: str) -> Reading:
    title = ""
    if front := _FRONT_MATTER.match(text):
        text, title = text[front.end() :], _titled(front["yaml"])
    while comment := _LEADING_COMMENT.match(text):
        text, title = text[comment.end() :], title or _titled(comment["body"])
    text = without_hidden(text)
    return Reading(text, title or _heading(text))


def _titled(block: str) -> str:
    found = _TITLE_LINE.search(block)
    return found["title"].strip("\"'") if found else ""


def _heading(text: str) -> str:
    found = _SETEXT.match(text.lstrip()) or _FIRST_HEADING.search(
        re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    )
    return re.sub(r"[`*]|\s*\{#[^}]*\}$", "", found["title"]) if found else ""


def _rst(text: str) -> Reading:
    return Reading(rst_to_markdown(text))


def _html(text: str) -> Reading:
    reading = read_html(text)
    comment = _LEADING_COMMENT.match(text)
    title = reading.title.strip() or (_titled(comment["body"]) if comment else "")
    return Reading(reading.text, title, reading.warnings)


def _plain(text: str) -> Reading:
    first = next((line for line in text.split("\n") if line.strip()), "")
    return Reading(text, first if len(first) <= 120 else "")


_READERS: dict[str, Callable[[str], Reading]] = {
    MARKDOWN: _markdown,
    RST: _rst,
    HTML: _html,
    TEXT: _plain,
    CSV: read_csv,
    TSV: read_tsv,
    IPYNB: read_notebook,
}
"""Readers of text, which is decoded before."""

_FILE_READERS: dict[str, Callable[[bytes], Reading]] = {
    PDF: read_pdf,
    DOCX: read_word,
    PPTX: read_slides,
    XLSX: read_workbook,
    EML: read_mail,
}
"""Readers of files that have an encoding of their own."""
