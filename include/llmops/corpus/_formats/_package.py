"""Office files: a ZIP archive of XML parts, checked before any library sees it."""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from xml.parsers import expat

from llmops.corpus._formats._reading import within
from llmops.corpus._problems import Unreadable

__all__ = ["Package", "PackageKind", "open_package", "parse_xml"]

_OLE = bytes.fromhex("d0cf11e0a1b11ae1")
_MAX_ENTRIES = 10_000
_MAX_UNPACKED = 400_000_000
_MAX_XML = 200_000_000
_CHUNK = 1 << 20
_TYPES = "[Content_Types].xml"
_CORE = "docProps/core.xml"
_RELATIONSHIP = "{http://schemas.openxmlformats.org/package/2006/relationships}Relationship"
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class PackageKind:
    """A kind of office file: what people call it, its suffix, and the content types of its main part.

    The first content type is the plain one; its sisters with macros or for templates are read as if they
    were it. ``max_part`` bounds a part in bytes, unpacked: a tree of it takes ten times as much memory.
    """

    label: str
    suffix: str
    main_types: tuple[str, ...]
    max_part: int


@dataclass(frozen=True)
class Package:
    """A checked archive: its XML ``parts`` by name, and ``title`` as its properties have it."""

    parts: dict[str, bytes]
    title: str
    archive: bytes

    def stream(self) -> io.BytesIO:
        """Return the archive again, of XML alone: macros, pictures and fonts are empty in it."""
        return io.BytesIO(self.archive)


def open_package(content: bytes, kind: PackageKind) -> Package:
    """Return an office file as parts that are safe to parse; raises Unreadable where one is not.

    Sizes are checked in the archive's directory and again while unpacking. No part may have a DTD, so there
    are no entities to expand or to fetch.
    """
    _check_signature(content, kind)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts, others = _unpack(archive, kind)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, OSError) as error:
        raise Unreadable(
            f"it is no {kind.suffix} file, or a damaged one: its archive cannot be unpacked"
        ) from error
    for name, part in parts.items():
        _refuse_dtd(name, part)
    _make_plain(parts, kind)
    names = {name.lower() for name in (*parts, *others)}
    for name in [name for name in parts if name.endswith(".rels")]:
        parts[name] = _without_dangling(name, parts[name], names)
    return Package(parts, _title(parts), _packed(parts, others))


def parse_xml(part: bytes) -> Any:
    """Return the root of a part as lxml sees it, without entities, network or huge trees."""
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False, load_dtd=False)
    try:
        return etree.fromstring(part, parser)
    except etree.XMLSyntaxError as error:
        raise Unreadable(f"one of its XML parts is damaged (line {error.lineno})") from error


def _check_signature(content: bytes, kind: PackageKind) -> None:
    if content.startswith(_OLE):
        if "EncryptedPackage".encode("utf-16-le") in content:
            raise Unreadable("it is protected by a password: save a copy without one", "encrypted")
        raise Unreadable(
            f"it is a file of an older format in spite of its name: save it as {kind.suffix}", "unsupported"
        )
    if not content.startswith(b"PK"):
        raise Unreadable(f"it is no {kind.suffix} file: it is not a ZIP archive")


def _unpack(archive: zipfile.ZipFile, kind: PackageKind) -> tuple[dict[str, bytes], list[str]]:
    """Return the XML parts and the names of the others, which stay packed."""
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    within(len(entries), _MAX_ENTRIES, "parts")
    within(sum(entry.file_size for entry in entries), _MAX_UNPACKED, "bytes when unpacked")
    if len({entry.filename.lower() for entry in entries}) < len(entries):
        raise Unreadable("its archive holds two parts of one name: save it again")
    parts: dict[str, bytes] = {}
    total = 0
    for entry in entries:
        if entry.flag_bits & 1:
            raise Unreadable("it is protected by a password: save a copy without one", "encrypted")
        if not entry.filename.lower().endswith((".xml", ".rels")):
            continue
        if entry.compress_type not in _METHODS:
            raise Unreadable("its archive is packed in a way that office files are not: save it again")
        parts[entry.filename] = b"".join(_bounded(archive, entry, kind.max_part))
        total += len(parts[entry.filename])
        within(total, _MAX_XML, "bytes of XML when unpacked")
    return parts, [entry.filename for entry in entries if entry.filename not in parts]


def _bounded(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limit: int) -> Iterator[bytes]:
    within(entry.file_size, limit, f"bytes in its part {entry.filename[:80]!r}")
    count = 0
    with archive.open(entry) as part:
        while chunk := part.read(_CHUNK):
            count += len(chunk)
            within(count, limit, f"bytes in its part {entry.filename[:80]!r}")
            yield chunk


class _RootReached(Exception):
    """The prolog, where alone a DTD may stand, is over."""


def _refuse_dtd(name: str, part: bytes) -> None:
    """Raise Unreadable for a document type declaration, in whatever encoding it is written."""

    def refuse(*_: object) -> None:
        raise Unreadable(f"its part {name[:80]!r} declares a document type, as attacks on parsers do")

    def stop(*_: object) -> None:
        raise _RootReached

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = stop
    try:
        parser.Parse(part, True)
    except _RootReached:
        return
    except expat.ExpatError as error:
        raise Unreadable(f"its part {name[:80]!r} is no XML: {expat.errors.messages[error.code]}") from error
    except (ValueError, LookupError) as error:
        raise Unreadable(f"its part {name[:80]!r} is in an encoding that is not known") from error


def _make_plain(parts: dict[str, bytes], kind: PackageKind) -> None:
    """Check that the archive is of this kind, and turn one with macros or a template into the plain kind."""
    from lxml import etree

    if _TYPES not in parts:
        raise Unreadable(f"it is no {kind.suffix} file: its archive has no {_TYPES}")
    if b"purl.oclc.org/ooxml/" in parts.get("_rels/.rels", b""):
        raise Unreadable(
            f"it is in Strict Open XML: save it as an ordinary {kind.suffix} file", "unsupported"
        )
    root = parse_xml(parts[_TYPES])
    accepted = {name.lower() for name in kind.main_types}
    mains = [e for e in root if (e.get("ContentType") or "").lower() in accepted]
    if not mains:
        raise Unreadable(f"it is no {kind.suffix} file: no part of its archive is a {kind.label}")
    for element in mains:
        element.set("ContentType", kind.main_types[0])
    parts[_TYPES] = etree.tostring(root, encoding="UTF-8", xml_declaration=True)


def _without_dangling(name: str, part: bytes, names: set[str]) -> bytes:
    """Return relationships without those to parts that are not in the archive."""
    from lxml import etree

    root = parse_xml(part)
    folder = posixpath.dirname(posixpath.dirname(name))
    for element in root.findall(_RELATIONSHIP):
        if element.get("TargetMode") == "External":
            continue
        target = posixpath.normpath(posixpath.join("/", folder, element.get("Target") or ""))
        if target.lstrip("/").lower() not in names:
            root.remove(element)
    return bytes(etree.tostring(root, encoding="UTF-8", xml_declaration=True))


def _title(parts: dict[str, bytes]) -> str:
    if _CORE not in parts:
        return ""
    found = parse_xml(parts[_CORE]).find("{http://purl.org/dc/elements/1.1/}title")
    return "" if found is None else re.sub(r"\s+", " ", found.text or "").strip()


def _packed(parts: dict[str, bytes], others: list[str]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name in (*parts, *others):
            archive.writestr(zipfile.ZipInfo(name), parts.get(name, b""))
    return stream.getvalue()
