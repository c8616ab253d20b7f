"""Files in other formats, made by hand: small PDFs, and Office archives with parts changed."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterable, Sequence

__all__ = ["changed", "drawn", "packed", "pdf"]


def drawn(lines: Iterable[str], x: int = 60, y: int = 780) -> str:
    """Return a page's operators that write lines from a place downwards."""
    escaped = (line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)") for line in lines)
    shown = "\n".join(f"({line}) Tj T*" for line in escaped)
    return f"BT /F1 11 Tf 14 TL {x} {y} Td\n{shown}\nET"


def pdf(
    pages: Sequence[str | Sequence[str]],
    outline: Sequence[tuple[str, int]] = (),
    title: str = "",
    count: int | None = None,
    trailer: str = "",
    objects: Sequence[str] = (),
    resources: str = "",
) -> bytes:
    """Return a PDF of pages that are lines or operators; ``outline`` has titles and pages from 0.

    ``objects`` follow the outline, of which the first has the number 5.
    """
    first = 5 + (len(outline) + 1 if outline else 0) + len(objects)
    numbers = [first + 2 * n for n in range(len(pages))]
    made = [
        f"<</Type/Catalog/Pages 2 0 R{'/Outlines 5 0 R' if outline else ''}>>",
        f"<</Type/Pages/Count {len(pages) if count is None else count}"
        f"/Kids[{' '.join(f'{n} 0 R' for n in numbers)}]>>",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
        f"<</Title({title})>>",
    ]
    if outline:
        last = 5 + len(outline)
        made.append(f"<</Type/Outlines/First 6 0 R/Last {last} 0 R/Count {len(outline)}>>")
        for n, (name, page) in enumerate(outline, 6):
            after = f"/Next {n + 1} 0 R" if n < last else ""
            made.append(f"<</Title({name})/Parent 5 0 R{after}/Dest[{numbers[page]} 0 R/Fit]>>")
    made.extend(objects)
    for number, page in zip(numbers, pages, strict=True):
        content = page if isinstance(page, str) else drawn(page)
        made.append(
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents {number + 1} 0 R"
            f"/Resources<</Font<</F1 3 0 R>>{resources}>>>>"
        )
        made.append(f"<</Length {len(content.encode('cp1252'))}>>stream\n{content}\nendstream")
    return _file(made, trailer)


def _file(objects: Sequence[str], trailer: str) -> bytes:
    out, offsets = b"%PDF-1.7\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode("cp1252")
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    end = (
        f"trailer<</Size {len(objects) + 1}/Root 1 0 R/Info 4 0 R{trailer}>>\nstartxref\n{len(out)}\n%%EOF\n"
    )
    return out + f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{end}".encode()


def packed(parts: dict[str, bytes]) -> bytes:
    """Return a ZIP archive of parts."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return stream.getvalue()


def changed(content: bytes, name: str, change: Callable[[bytes], bytes]) -> bytes:
    """Return an Office file with one of its parts changed, or made from nothing."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {entry: archive.read(entry) for entry in archive.namelist()}
    return packed(parts | {name: change(parts.get(name, b""))})
