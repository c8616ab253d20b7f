"""The text of a PDF's pages, without what nobody sees there: invisible, transparent, tiny, white on white."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

__all__ = ["PageReader"]

_TEXT, _PATH, _IMAGE, _SHADING, _FORM = 1, 2, 3, 4, 5
_INVISIBLE_MODES = (3, 7)
_TINY = 1.0
_WHITE = 243
_DEPTH = 4
_FORM_OBJECTS = 200_000
"""Objects of forms on one page that are looked at: forms within forms can be made to have any number."""


@dataclass(frozen=True)
class _Calls:
    """PDFium's functions on plain integers: a page has hundreds of objects, and pypdfium2 wraps each in Python.

    Only what comes first is declared; what a function writes to is passed by reference, which ctypes
    hands on as it is.
    """

    load: Callable[[int, int], int]
    close: Callable[[int], None]
    paper: Callable[..., int]
    load_text: Callable[[int], int]
    close_text: Callable[[int], None]
    characters: Callable[[int], int]
    text: Callable[..., int]
    unicode: Callable[[int, int], int]
    owner: Callable[[int, int], int]
    count: Callable[[int], int]
    get: Callable[[int, int], int]
    form_count: Callable[[int], int]
    form_get: Callable[[int, int], int]
    kind: Callable[[int], int]
    mode: Callable[[int], int]
    size: Callable[..., int]
    matrix: Callable[..., int]
    bounds: Callable[..., int]
    fill: Callable[..., int]


@cache
def _calls() -> _Calls:
    import pypdfium2.raw as pdfium

    def function(name: str, *arguments: Any, result: Any = ctypes.c_int) -> Any:
        address = ctypes.cast(getattr(pdfium, name), ctypes.c_void_p).value
        return ctypes.PYFUNCTYPE(result, *arguments)(address or 0)

    pointer, number = ctypes.c_size_t, ctypes.c_int
    return _Calls(
        load=function("FPDF_LoadPage", pointer, number, result=pointer),
        close=function("FPDF_ClosePage", pointer, result=None),
        paper=function("FPDF_GetPageBoundingBox", pointer),
        load_text=function("FPDFText_LoadPage", pointer, result=pointer),
        close_text=function("FPDFText_ClosePage", pointer, result=None),
        characters=function("FPDFText_CountChars", pointer),
        text=function("FPDFText_GetText", pointer, number, number),
        unicode=function("FPDFText_GetUnicode", pointer, number, result=ctypes.c_uint),
        owner=function("FPDFText_GetTextObject", pointer, number, result=pointer),
        count=function("FPDFPage_CountObjects", pointer),
        get=function("FPDFPage_GetObject", pointer, number, result=pointer),
        form_count=function("FPDFFormObj_CountObjects", pointer),
        form_get=function("FPDFFormObj_GetObject", pointer, ctypes.c_ulong, result=pointer),
        kind=function("FPDFPageObj_GetType", pointer),
        mode=function("FPDFTextObj_GetTextRenderMode", pointer),
        size=function("FPDFTextObj_GetFontSize", pointer),
        matrix=function("FPDFPageObj_GetMatrix", pointer),
        bounds=function("FPDFPageObj_GetBounds", pointer),
        fill=function("FPDFPageObj_GetFillColor", pointer),
    )


class PageReader:
    """Reads the pages of one open document of pypdfium2."""

    def __init__(self, document: Any) -> None:
        self._document = int(ctypes.cast(document.raw, ctypes.c_void_p).value or 0)
        self._calls = _calls()
        # Arrays are read faster than what ctypes has, which is laid over them for PDFium to write to.
        self._color, self._box = array("I", [0] * 4), array("f", [0] * 4)
        color, box = (ctypes.c_uint * 4).from_buffer(self._color), (ctypes.c_float * 4).from_buffer(self._box)
        self._color_at = tuple(ctypes.byref(color, 4 * n) for n in range(4))
        self._box_at = tuple(ctypes.byref(box, 4 * n) for n in range(4))

    def read(self, number: int) -> tuple[str, int] | None:
        """Return the text of a page from 0, and how many hidden characters it lacks; None for a damaged page."""
        page = self._calls.load(self._document, number)
        layer = self._calls.load_text(page) if page else 0
        try:
            return self._text(page, layer) if layer else None
        finally:
            if layer:
                self._calls.close_text(layer)
            if page:
                self._calls.close(page)

    def _text(self, page: int, layer: int) -> tuple[str, int]:
        count = self._calls.characters(layer)
        if count <= 0:
            return "", 0
        paper = self._paper(page)
        suspects = self._suspects(page, paper)
        hidden = self._confirmed(page, paper, suspects) if suspects else set()
        if hidden:
            return self._without(layer, count, hidden)
        buffer = ctypes.create_string_buffer(4 * count + 4)
        written = self._calls.text(layer, 0, count, buffer)
        return buffer.raw[: 2 * max(written - 1, 0)].decode("utf-16-le", "ignore"), 0

    def _paper(self, page: int) -> tuple[float, ...]:
        """Return what of a page is shown, as left, bottom, right and top."""
        corners = (ctypes.c_float * 4)()
        self._calls.paper(page, ctypes.byref(corners))
        left, top, right, bottom = corners
        return left, bottom, right, top

    def _suspects(self, page: int, paper: tuple[float, ...]) -> list[tuple[int, int]]:
        """Return the text objects that are off the page, invisible, transparent, white or tiny, and their depth.

        Most objects are none of it: this loop is written for them, and decides how fast a PDF is read.
        """
        get, mode_of, fill, color = self._calls.get, self._calls.mode, self._calls.fill, self._color
        bounds_of, box = self._calls.bounds, self._box
        red, green, blue, alpha = self._color_at
        at_left, at_bottom, at_right, at_top = self._box_at
        paper_left, paper_bottom, paper_right, paper_top = paper
        found: list[tuple[int, int]] = []
        forms = False
        for item in [get(page, number) for number in range(self._calls.count(page))]:
            if mode := mode_of(item):
                if mode < 0:
                    forms = forms or self._calls.kind(item) == _FORM
                    continue
                if mode in _INVISIBLE_MODES:
                    found.append((item, 0))
                    continue
            bounds_of(item, at_left, at_bottom, at_right, at_top)
            fill(item, red, green, blue, alpha)
            left, bottom, right, top = box
            if (
                not (left < paper_right and right > paper_left and bottom < paper_top and top > paper_bottom)
                or top - bottom < _TINY
                or right - left < _TINY
                or not (color[3] and (color[0] < _WHITE or color[1] < _WHITE or color[2] < _WHITE))
            ):
                found.append((item, 0))
        if forms:
            found.extend(
                (item, depth) for item, kind, depth in self._objects(page) if kind == _TEXT and depth
            )
        return found

    def _objects(self, page: int) -> Iterator[tuple[int, int, int]]:
        """Yield the objects of a page and of the forms on it, with their kind and depth."""
        get, kind_of, form_get = self._calls.get, self._calls.kind, self._calls.form_get
        forms = []
        for number in range(self._calls.count(page)):
            item = get(page, number)
            kind = kind_of(item)
            yield item, kind, 0
            if kind == _FORM:
                forms.append((item, 1))
        seen = 0
        while forms and seen < _FORM_OBJECTS:
            form, depth = forms.pop()
            for number in range(min(self._calls.form_count(form), _FORM_OBJECTS - seen)):
                item = form_get(form, number)
                kind = kind_of(item)
                yield item, kind, depth
                if kind == _FORM and depth < _DEPTH:
                    forms.append((item, depth + 1))
                seen += 1

    def _confirmed(self, page: int, paper: tuple[float, ...], suspects: list[tuple[int, int]]) -> set[int]:
        """Return the suspects that are indeed not seen.

        The invisible text of a scanned page is what OCR read there, and stays. So does white text on
        anything that is not white, and what is in a form and may be anywhere on the page.
        """
        surface = (paper[2] - paper[0]) * (paper[3] - paper[1])
        grounds, scanned = [], False
        for item, kind, depth in self._objects(page):
            if kind != _TEXT and depth == 0 and (kind != _PATH or min(self._fill(item)[:3]) < _WHITE):
                grounds.append(box := self._bounds(item))
                scanned |= kind == _IMAGE and (box[2] - box[0]) * (box[3] - box[1]) > 0.5 * surface
        hidden = set()
        for item, depth in suspects:
            if self._calls.mode(item) in _INVISIBLE_MODES:
                unseen = not scanned
            else:
                unseen = self._fill(item)[3] == 0 or self._size(item) < _TINY
            if unseen or (depth == 0 and self._is_lost(item, paper, grounds)):
                hidden.add(item)
        return hidden

    def _is_lost(self, item: int, paper: tuple[float, ...], grounds: list[tuple[float, ...]]) -> bool:
        """Return whether a text object is off the page, or white on it with nothing behind."""
        left, bottom, right, top = self._bounds(item)
        if left >= paper[2] or right <= paper[0] or bottom >= paper[3] or top <= paper[1]:
            return True
        x, y = (left + right) / 2, (bottom + top) / 2
        behind = any(box[0] <= x <= box[2] and box[1] <= y <= box[3] for box in grounds)
        return min(self._fill(item)[:3]) >= _WHITE and not behind

    def _fill(self, item: int) -> list[int]:
        return self._color.tolist() if self._calls.fill(item, *self._color_at) else [0, 0, 0, 255]

    def _size(self, item: int) -> float:
        """Return a text object's font size in points, as it is drawn."""
        size, matrix = ctypes.c_float(0), (ctypes.c_float * 6)()
        self._calls.size(item, ctypes.byref(size))
        self._calls.matrix(item, ctypes.byref(matrix))
        return abs(size.value) * max(map(abs, matrix[:4]))

    def _bounds(self, item: int) -> tuple[float, ...]:
        return tuple(self._box) if self._calls.bounds(item, *self._box_at) else (0.0, 0.0, 0.0, 0.0)

    def _without(self, layer: int, count: int, hidden: set[int]) -> tuple[str, int]:
        """Return a page's text character by character, without those of hidden objects."""
        kept: list[str] = []
        left_out = 0
        for at in range(count):
            character = chr(self._calls.unicode(layer, at) & 0xFFFFF)
            if self._calls.owner(layer, at) in hidden:
                left_out += not character.isspace()
            else:
                kept.append(character)
        # Characters beyond 16 bits come in two halves.
        return "".join(kept).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore"), left_out
