"""PDF files: their text layer as paragraphs, under the headings of their outline."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from llmops.corpus._formats._pdf_pages import PageReader
from llmops.corpus._formats._pdf_text import Bookmark, compose
from llmops.corpus._formats._reading import MAX_CHARACTERS, Reading, listed, real_title, within
from llmops.corpus._problems import Unreadable

__all__ = ["read_pdf"]

_HEADER_WITHIN = 1024
_MAX_PAGES = 5_000
_MAX_BOOKMARKS = 5_000
_PASSWORD_ERRORS = (4, 5)  # FPDF_ERR_PASSWORD and FPDF_ERR_SECURITY


def read_pdf(content: bytes) -> Reading:
    """Return a PDF's text as Markdown; pages without a text layer are named in a warning."""
    if b"%PDF-" not in content[:_HEADER_WITHIN]:
        raise Unreadable("it is no PDF: there is no PDF header at its beginning")
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        if error.err_code in _PASSWORD_ERRORS:
            raise Unreadable("it is protected by a password: save a copy without one", "encrypted") from error
        raise Unreadable("it is a damaged PDF: its structure cannot be read") from error
    with document:
        within(len(document), _MAX_PAGES, "pages")
        pages, broken, hidden = _pages(document)
        empty = [n for n, text in enumerate(pages, 1) if not text.strip() and n not in broken]
        if len(empty) + len(broken) == len(pages):
            _refuse(len(pages), len(broken))
        bookmarks = list(islice(_bookmarks(document), _MAX_BOOKMARKS))
        title = real_title(document.get_metadata_value("Title"))
        has_form = document.get_formtype() != 0
    warnings = _warnings(len(pages), empty, sorted(broken), hidden)
    if has_form:
        warnings.append("what is filled in on its form fields is not read")
    return Reading(compose(pages, bookmarks), title, tuple(warnings))


def _refuse(pages: int, broken: int) -> None:
    if broken or not pages:
        raise Unreadable("it is a damaged PDF: none of its pages can be read")
    raise Unreadable(
        f"it has no text layer, on none of its {pages:,} pages: it needs OCR before it can be read", "empty"
    )


def _pages(document: Any) -> tuple[list[str], set[int], int]:
    """Return each page's text, which pages are damaged, and how many hidden characters were left out."""
    texts: list[str] = []
    broken: set[int] = set()
    hidden = total = 0
    reader = PageReader(document)
    for number in range(len(document)):
        found = reader.read(number)
        if found is None:
            broken.add(number + 1)
        text, left_out = found or ("", 0)
        texts.append(text)
        hidden += left_out
        total += len(text)
        within(total, MAX_CHARACTERS, "characters")
    return texts, broken, hidden


def _bookmarks(document: Any) -> Iterator[Bookmark]:
    for bookmark in document.get_toc():
        destination = bookmark.get_dest()
        page = None if destination is None else destination.get_index()
        title = " ".join(bookmark.get_title().split())
        if page is not None and title:
            yield Bookmark(bookmark.level, title, page)


def _warnings(pages: int, empty: list[int], broken: list[int], hidden: int) -> list[str]:
    warnings = []
    if empty:
        warnings.append(
            f"{len(empty):,} of {pages:,} pages have no text layer (OCR adds one): {listed(empty)}"
        )
    if broken:
        warnings.append(f"{len(broken):,} of {pages:,} pages are damaged: {listed(broken)}")
    if hidden:
        warnings.append(f"{hidden:,} characters that nobody sees on their page are left out")
    return warnings
