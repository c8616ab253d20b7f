"""Text of a PDF that nobody sees on the page: invisible, transparent, tiny, or white on white."""

from __future__ import annotations

import ctypes
import re
import zlib
from collections.abc import Iterator
from typing import Any

__all__ = ["may_hide_text", "visible_text"]

_ALMOST_ONE = rb"(?:1(?:\.0*)?|0?\.9[5-9]\d*)"
_ALMOST_ZERO = rb"(?:0(?:\.0\d*)?|\.0\d*)"
_BELOW_ONE = rb"-?0?\.\d+"
_SIGNS = re.compile(
    rb"(?<![\w.])[37]\s+Tr\b"
    rb"|(?<![\w.])" + _ALMOST_ONE + rb"\s+(?:g|scn?)\b"
    rb"|(?<![\w.])" + rb"\s+".join([_ALMOST_ONE] * 3) + rb"\s+(?:rg|scn?)\b"
    rb"|(?<![\w.])" + rb"\s+".join([_ALMOST_ZERO] * 4) + rb"\s+(?:k|scn?)\b"
    rb"|(?<![\w.])" + _BELOW_ONE + rb"\s+Tf\b"
    rb"|(?<![\w.])" + _BELOW_ONE + rb"\s+\S+\s+\S+\s+" + _BELOW_ONE + rb"\s+\S+\s+\S+\s+(?:Tm|cm)\b"
    rb"|/ca\s+" + _ALMOST_ZERO + rb"(?![\d.])"
)
_STREAM = re.compile(rb"(?<!end)stream\r?\n")
_NO_CONTENT = re.compile(
    rb"/Subtype\s*/(?:Image|Type1C|CIDFontType0C|OpenType|XML)|/Length1\b|/Type\s*/(?:XRef|Metadata)"
)
_PLAIN_FLATE = re.compile(rb"/Filter\s*(?:/FlateDecode|\[\s*/FlateDecode\s*\])")
_HEAD = 2_000
_MOST = 16_000_000

_TEXT, _PATH, _IMAGE, _SHADING, _FORM = 1, 2, 3, 4, 5
_INVISIBLE_MODES = (3, 7)
_TINY = 1.0
_WHITE = 243
_DEPTH = 4


def may_hide_text(content: bytes) -> bool:
    """Return False only where no page can hide text: no operator or state for it is in the file.

    Looking at every object of every page costs a sixth of the reading; looking for what hides costs little.
    """
    if b"/Encrypt" in content or _SIGNS.search(content):
        return True
    return any(data is None or _SIGNS.search(data) is not None for data in _streams(content))


def _streams(content: bytes) -> Iterator[bytes | None]:
    """Yield the packed streams that may be content, unpacked; None for one that is packed in another way."""
    for match in _STREAM.finditer(content):
        head = content[max(0, match.start() - _HEAD) : match.start()]
        head = head[head.rfind(b" obj") + 1 :]
        if _NO_CONTENT.search(head) or b"/Filter" not in head:
            continue
        if not _PLAIN_FLATE.search(head) or b"/DecodeParms" in head:
            yield None
            return
        end = content.find(b"endstream", match.end())
        try:
            unpacker = zlib.decompressobj()
            yield unpacker.decompress(content[match.end() : end if end > 0 else None], _MOST)
            if unpacker.unconsumed_tail:
                yield None
        except zlib.error:
            yield None


def visible_text(page: Any, layer: Any, text: str) -> tuple[str, int]:
    """Return a page's text without what cannot be seen, and how many characters that was."""
    import pypdfium2.raw as pdfium

    hidden = _hidden_objects(page)
    if not hidden:
        return text, 0
    kept: list[str] = []
    left_out = 0
    for at in range(layer.count_chars()):
        owner = pdfium.FPDFText_GetTextObject(layer, at)
        character = chr(pdfium.FPDFText_GetUnicode(layer, at) & 0x1FFFFF)
        if owner and _address(owner) in hidden:
            left_out += not character.isspace()
        elif pdfium.FPDFText_IsHyphen(layer, at) == 1:
            kept.append("\ufffe")
        else:
            kept.append(character)
    return "".join(kept), left_out


def _hidden_objects(page: Any) -> set[int]:
    """Return the addresses of a page's text objects that cannot be seen."""
    texts, grounds, scanned = [], [], False
    width, height = page.get_size()
    for item, kind, depth in _objects(page):
        if kind == _TEXT:
            texts.append((item, depth))
        elif depth == 0 and (kind in (_IMAGE, _SHADING, _FORM) or not _is_white(item)):
            grounds.append(bounds := _bounds(item))
            scanned |= kind == _IMAGE and _area(bounds) > 0.5 * width * height
    return {
        _address(item) for item, depth in texts if _is_hidden(item, grounds if depth == 0 else None, scanned)
    }


def _objects(page: Any) -> Iterator[tuple[Any, int, int]]:
    """Yield the objects of a page and of its forms, with their kind and depth."""
    import pypdfium2.raw as pdfium

    waiting = [(pdfium.FPDFPage_GetObject(page, n), 0) for n in range(pdfium.FPDFPage_CountObjects(page))]
    while waiting:
        item, depth = waiting.pop()
        kind = pdfium.FPDFPageObj_GetType(item)
        yield item, kind, depth
        if kind == _FORM and depth < _DEPTH:
            count = pdfium.FPDFFormObj_CountObjects(item)
            waiting.extend((pdfium.FPDFFormObj_GetObject(item, n), depth + 1) for n in range(count))


def _is_hidden(item: Any, grounds: list[tuple[float, ...]] | None, scanned: bool) -> bool:
    """Return whether a text object cannot be seen.

    The invisible text of a scanned page is what OCR read there, and stays. White text within a form
    stays too: where the form puts it is not known.
    """
    import pypdfium2.raw as pdfium

    if pdfium.FPDFTextObj_GetTextRenderMode(item) in _INVISIBLE_MODES:
        return not scanned
    red, green, blue, alpha = _fill(item)
    if alpha == 0 or _size(item) < _TINY:
        return True
    if grounds is None or min(red, green, blue) < _WHITE:
        return False
    left, bottom, right, top = _bounds(item)
    x, y = (left + right) / 2, (bottom + top) / 2
    return not any(g[0] <= x <= g[2] and g[1] <= y <= g[3] for g in grounds)


def _fill(item: Any) -> tuple[int, ...]:
    import pypdfium2.raw as pdfium

    values = [ctypes.c_uint(0) for _ in range(4)]
    if not pdfium.FPDFPageObj_GetFillColor(item, *map(ctypes.byref, values)):
        return 0, 0, 0, 255
    return tuple(value.value for value in values)


def _is_white(item: Any) -> bool:
    return min(_fill(item)[:3]) >= _WHITE


def _size(item: Any) -> float:
    """Return a text object's font size in points, as it is drawn."""
    import pypdfium2.raw as pdfium

    size, matrix = ctypes.c_float(0), pdfium.FS_MATRIX()
    pdfium.FPDFTextObj_GetFontSize(item, ctypes.byref(size))
    if not pdfium.FPDFPageObj_GetMatrix(item, ctypes.byref(matrix)):
        return float(size.value)
    scale = max((matrix.a**2 + matrix.b**2) ** 0.5, (matrix.c**2 + matrix.d**2) ** 0.5)
    return abs(float(size.value)) * float(scale)


def _bounds(item: Any) -> tuple[float, ...]:
    import pypdfium2.raw as pdfium

    values = [ctypes.c_float(0) for _ in range(4)]
    pdfium.FPDFPageObj_GetBounds(item, *map(ctypes.byref, values))
    return tuple(value.value for value in values)


def _area(bounds: tuple[float, ...]) -> float:
    return (bounds[2] - bounds[0]) * (bounds[3] - bounds[1])


def _address(item: Any) -> int:
    return int(ctypes.cast(item, ctypes.c_void_p).value or 0)
