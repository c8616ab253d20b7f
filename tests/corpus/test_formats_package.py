"""What every Office file must be before a library may read it."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import docx
import openpyxl
import pptx
import pytest

from llmops.corpus._formats import _package
from llmops.corpus._parsing import parse
from llmops.corpus._problems import Unreadable
from support.documents import changed, packed

OLE = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(1000)


def saved(document: Any) -> bytes:
    stream = io.BytesIO()
    document.save(stream)
    return stream.getvalue()


@pytest.fixture(scope="module")
def samples() -> dict[str, bytes]:
    """One file of each kind that says ``Text.``."""
    word, slides, workbook = docx.Document(), pptx.Presentation(), openpyxl.Workbook()
    word.add_paragraph("Text.")
    slides.slides.add_slide(slides.slide_layouts[5]).shapes.title.text = "Text."
    workbook.active["A1"] = "Text."
    return {"docx": saved(word), "pptx": saved(slides), "xlsx": saved(workbook)}


KINDS = pytest.mark.parametrize("kind", ["docx", "pptx", "xlsx"])
MAIN = {"docx": "word/document.xml", "pptx": "ppt/slides/slide1.xml", "xlsx": "xl/worksheets/sheet1.xml"}


def refusal(kind: str, content: bytes) -> Unreadable:
    with pytest.raises(Unreadable) as caught:
        parse(f"a.{kind}", None, content)
    return caught.value


@KINDS
def test_the_samples_are_read(kind: str, samples: dict[str, bytes]) -> None:
    assert "Text." in parse(f"a.{kind}", None, samples[kind]).text


@KINDS
@pytest.mark.parametrize(
    ("damage", "problem", "reason"),
    [
        (lambda _: b"no archive", "unreadable", "not a ZIP archive"),
        (lambda _: b"%PDF-1.7 is another format", "unreadable", "not a ZIP archive"),
        (lambda content: content[: len(content) // 2], "unreadable", "cannot be unpacked"),
        (lambda _: OLE + "EncryptedPackage".encode("utf-16-le"), "encrypted", "password"),
        (lambda _: OLE + "WordDocument".encode("utf-16-le"), "unsupported", "older format"),
        (lambda _: packed({"a.xml": b"<a/>"}), "unreadable", "has no .Content_Types"),
        (lambda _: packed({}), "unreadable", "has no .Content_Types"),
        (
            lambda content: content.replace(
                b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"
            ),
            "encrypted",
            "password",
        ),
    ],
    ids=[
        "text",
        "PDF",
        "truncated",
        "encrypted",
        "legacy",
        "other archive",
        "empty archive",
        "encrypted parts",
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(
    kind: str, damage: Callable[[bytes], bytes], problem: str, reason: str, samples: dict[str, bytes]
) -> None:
    content = damage(packed(_parts(samples[kind])))
    error = refusal(kind, content)
    assert error.problem == problem
    assert reason.replace(".", "") in str(error).replace("[", "").replace(".", "")


def _parts(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_one_kind_of_office_file_under_the_name_of_another_is_refused(samples: dict[str, bytes]) -> None:
    error = refusal("xlsx", samples["docx"])
    assert str(error) == "it is no .xlsx file: no part of its archive is a workbook"


LAUGHS = b'<?xml version="1.0"?><!DOCTYPE r [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>'
THEFT = b'<?xml version="1.0"?><!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
FETCH = b'<!DOCTYPE r SYSTEM "http://a.example/x.dtd">'


def _declared(declaration: bytes, encoding: str = "utf-8") -> Callable[[bytes], bytes]:
    def change(part: bytes) -> bytes:
        root = part.partition(b"?>")[2].decode()
        head = declaration.decode().replace('version="1.0"', f'version="1.0" encoding="{encoding}"')
        return (head + root.replace("Text.", "&a;" if b"ENTITY" in declaration else "Text.")).encode(encoding)

    return change


@KINDS
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("declaration", [LAUGHS, THEFT, FETCH])
def test_entities_are_refused_before_any_library_sees_them(
    kind: str, declaration: bytes, encoding: str, samples: dict[str, bytes]
) -> None:
    content = changed(samples[kind], MAIN[kind], _declared(declaration, encoding))
    error = refusal(kind, content)
    assert "declares a document type" in str(error)


@KINDS
@pytest.mark.parametrize("part", ["docProps/core.xml", "_rels/.rels", "[Content_Types].xml"])
def test_no_part_may_declare_entities(kind: str, part: str, samples: dict[str, bytes]) -> None:
    assert "declares a document type" in str(refusal(kind, changed(samples[kind], part, _declared(THEFT))))


def test_a_zip_bomb_is_refused_by_its_directory(samples: dict[str, bytes]) -> None:
    bomb = changed(samples["docx"], "media/bomb.bin", lambda _: bytes(401_000_000))
    assert len(bomb) < 1_000_000
    error = refusal("docx", bomb)
    assert error.problem == "too_large"
    assert "bytes when unpacked" in str(error)


def test_a_part_that_unpacks_to_too_much_is_refused(samples: dict[str, bytes]) -> None:
    bomb = changed(samples["docx"], MAIN["docx"], lambda part: part + b" " * 41_000_000)
    assert refusal("docx", bomb).problem == "too_large"
    # A directory that lies about the size is no way in either.
    size = struct.pack("<L", 41_000_000 + len(_parts(samples["docx"])[MAIN["docx"]]))
    lying = bomb.replace(size, struct.pack("<L", 1_000))
    assert lying != bomb
    assert refusal("docx", lying).problem == "unreadable"


def test_the_size_of_parts_is_counted_while_they_are_unpacked(
    samples: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_package, "_MAX_XML", 5_000)
    assert refusal("docx", samples["docx"]).problem == "too_large"


def test_an_archive_of_too_many_parts_is_refused(samples: dict[str, bytes]) -> None:
    parts = _parts(samples["docx"]) | {f"media/{n}.bin": b"" for n in range(10_001)}
    assert refusal("docx", packed(parts)).problem == "too_large"


def test_two_parts_of_one_name_are_refused(samples: dict[str, bytes]) -> None:
    parts = _parts(samples["docx"]) | {"WORD/document.xml": b"<other/>"}
    assert "two parts of one name" in str(refusal("docx", packed(parts)))


def test_a_part_in_an_unusual_packing_is_refused(samples: dict[str, bytes]) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_LZMA) as archive:
        for name, part in _parts(samples["docx"]).items():
            archive.writestr(name, part)
    assert "packed in a way" in str(refusal("docx", stream.getvalue()))


@KINDS
def test_relationships_to_nowhere_are_no_obstacle(kind: str, samples: dict[str, bytes]) -> None:
    owner = {"docx": "word/_rels/document.xml.rels", "pptx": "ppt/slides/_rels/slide1.xml.rels"}
    dangling = (
        b'<Relationship Id="rId99" Target="NULL" Type="http://schemas.openxmlformats.org/officeDocument/'
        b'2006/relationships/image"/></Relationships>'
    )
    name = owner.get(kind, "xl/_rels/workbook.xml.rels")
    content = changed(samples[kind], name, lambda part: part.replace(b"</Relationships>", dangling))
    assert "Text." in parse(f"a.{kind}", None, content).text


def _png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def test_a_huge_picture_is_never_opened(samples: dict[str, bytes]) -> None:
    document = docx.Document()
    document.add_paragraph("Text.")
    document.add_picture(io.BytesIO(_png(65_000, 65_000)), width=100_000)
    assert parse("a.docx", None, saved(document)).text == "Text.\n"


@KINDS
def test_xml_that_is_nested_too_deeply_has_a_reason(kind: str, samples: dict[str, bytes]) -> None:
    deep = b"<a>" * 50_000 + b"</a>" * 50_000
    content = changed(samples[kind], "docProps/core.xml", lambda _: deep)
    assert refusal(kind, content).problem == "unreadable"


@KINDS
def test_libraries_get_no_macros_and_no_pictures(
    kind: str, samples: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = changed(samples[kind], "word/vbaProject.bin", lambda _: b"Sub AutoOpen()")
    seen: list[bytes] = []
    stream = _package.Package.stream

    def watched(package: _package.Package) -> io.BytesIO:
        seen.append(package.archive)
        return stream(package)

    monkeypatch.setattr(_package.Package, "stream", watched)
    parse(f"a.{kind}", None, content)
    assert _parts(seen[0])["word/vbaProject.bin"] == b""
