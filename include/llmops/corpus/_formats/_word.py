"""Word files (.docx): paragraphs, headings, lists, tables and footnotes in the order they are read in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from llmops.corpus._formats._markdown import blocks, indented, link, plain, tables
from llmops.corpus._formats._package import PackageKind, open_package, parse_xml
from llmops.corpus._formats._reading import Reading, real_title

__all__ = ["read_word"]

_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml"
_KIND = PackageKind(
    label="Word document",
    suffix=".docx",
    main_types=(
        f"{_TYPE}.document.main+xml",
        "application/vnd.ms-word.document.macroEnabled.main+xml",
        f"{_TYPE}.template.main+xml",
        "application/vnd.ms-word.template.macroEnabledTemplate.main+xml",
    ),
    max_part=40_000_000,
)
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_HEADING = re.compile(r"heading (\d)")
_AROUND = {
    f"{_W}{name}"
    for name in ("ins", "moveTo", "smartTag", "sdt", "sdtContent", "customXml", "fldSimple", "dir", "bdo")
}
"""Elements that hold what is around them: insertions, content controls, fields."""
_NOTES = ("footnote", "endnote")
_UNREADABLY_SMALL = 2  # half-points


def read_word(content: bytes) -> Reading:
    """Return a Word file as Markdown; deleted and hidden text, comments, headers and footers are left out."""
    package = open_package(content, _KIND)
    from docx import Document

    document = Document(package.stream())
    reader = _Reader(document)
    body = blocks([*reader.blocks(document.element.body), *reader.notes()])
    warnings = []
    if reader.hidden:
        warnings.append(f"{reader.hidden:,} characters of hidden text are left out")
    return Reading(body, reader.title or real_title(package.title), tuple(warnings))


@dataclass(frozen=True)
class _Style:
    name: str
    based_on: str
    hidden: bool | None
    outline: int | None
    numbering: tuple[str, int] | None


@dataclass
class _Reader:
    """Walks one document; ``hidden`` counts the characters it left out."""

    document: Any
    title: str = ""
    hidden: int = 0
    _counts: dict[tuple[str, int], int] = field(default_factory=dict)
    _used_notes: list[tuple[str, str]] = field(default_factory=list)
    _in_shape: int = 0

    def blocks(self, parent: Any) -> list[str]:
        """Return the paragraphs and tables of an element, lists as one block each."""
        found: list[str] = []
        in_list = False
        for element in _children(parent):
            if element.tag == f"{_W}tbl":
                found.append(self._table(element))
                in_list = False
                continue
            for text, is_item in self._paragraph(element):
                if is_item and in_list:
                    found[-1] += f"\n{text}"
                elif text.strip():
                    found.append(text)
                in_list = is_item or (in_list and not text.strip())
        return found

    def notes(self) -> Iterator[str]:
        """Yield the footnotes and endnotes that the text refers to."""
        for kind, number in self._used_notes:
            text = " ".join(self.blocks(self._notes[kind, number])).strip()
            if text:
                yield f"[^{_note_label(kind, number)}]: {indented(text, 4)}"

    def _part(self, kind: str) -> Any:
        """Return the root of a part that belongs to the document, None where it has none.

        python-docx would read its own template instead, from a file.
        """
        for relation in self.document.part.rels.values():
            if not relation.is_external and relation.reltype.endswith(f"/{kind}"):
                return parse_xml(relation.target_part.blob)
        return None

    @cached_property
    def _notes(self) -> dict[tuple[str, str], Any]:
        return {
            (kind, note.get(f"{_W}id")): note
            for kind in _NOTES
            if (root := self._part(f"{kind}s")) is not None
            for note in root.findall(f"{_W}{kind}")
        }

    def _paragraph(self, paragraph: Any) -> Iterator[tuple[str, bool]]:
        """Yield a paragraph as a block, and whether it is an item of a list; then its text boxes."""
        shapes: list[Any] = []
        properties = paragraph.find(f"{_W}pPr")
        style = self._style_of(properties)
        text = "".join(self._inline(paragraph, style, shapes)).strip()
        name = style[0].name if style else ""
        level = _level(properties, style)
        if name.startswith("toc ") or (not text and not shapes):
            yield "", False
        elif name == "title" and text:
            self.title = self.title or _one_line(text)
            yield f"# {_one_line(text)}", False
        elif level is not None and text:
            yield f"{'#' * min(level + 1, 6)} {_one_line(text)}", False
        elif (item := self._item(properties, style)) and text:
            yield f"{'  ' * item[0]}{item[1]} " + indented(plain(text), 2 * item[0] + len(item[1]) + 1), True
        else:
            yield plain(text), False
        for shape in shapes:
            self._in_shape += 1
            yield from ((text, False) for text in self.blocks(shape))
            self._in_shape -= 1

    def _inline(self, parent: Any, style: list[_Style], shapes: list[Any]) -> Iterator[str]:
        for child in parent:
            match child.tag:
                case tag if tag == f"{_W}r":
                    yield self._run(child, style, shapes)
                case tag if tag == f"{_W}hyperlink":
                    label = "".join(self._inline(child, style, shapes))
                    yield link(label, self._target(child.get(f"{_R}id"))) + " " * label.endswith(" ")
                case tag if tag in _AROUND:
                    yield from self._inline(child, style, shapes)
                case tag if tag in (f"{_M}oMath", f"{_M}oMathPara"):
                    yield "".join(node.text or "" for node in child.iter(f"{_M}t"))

    def _run(self, run: Any, style: list[_Style], shapes: list[Any]) -> str:
        properties = run.find(f"{_W}rPr")
        text = "".join(self._run_texts(run, shapes))
        if text and self._is_hidden(properties, style, run):
            self.hidden += len(text)
            return ""
        return text

    def _run_texts(self, run: Any, shapes: list[Any]) -> Iterator[str]:
        for child in run:
            match str(child.tag).removeprefix(_W):
                case "t":
                    yield child.text or ""
                case "tab":
                    yield " "
                case "cr":
                    yield "\n"
                case "br" if child.get(f"{_W}type") in (None, "textWrapping"):
                    yield "\n"
                case "noBreakHyphen":
                    yield "-"
                case "footnoteReference" | "endnoteReference" as tag:
                    yield self._note(tag.removesuffix("Reference"), child.get(f"{_W}id"))
                case "drawing" | "pict":
                    shapes.extend(child.iter(f"{_W}txbxContent"))
                case tag if tag == f"{_MC}AlternateContent":
                    # The same shape stands here twice, for newer and for older programs.
                    choice = child.find(f"{_MC}Choice")
                    shapes.extend(() if choice is None else choice.iter(f"{_W}txbxContent"))

    def _note(self, kind: str, number: str | None) -> str:
        if number is None or (kind, number) not in self._notes:
            return ""
        if (kind, number) not in self._used_notes:
            self._used_notes.append((kind, number))
        return f"[^{_note_label(kind, number)}]"

    def _is_hidden(self, properties: Any, style: list[_Style], run: Any) -> bool:
        """Return whether a run cannot be seen: marked as hidden, tiny, or white on a white page."""
        own = None if properties is None else _switch(properties.find(f"{_W}vanish"))
        if own is None and properties is not None:
            character = properties.find(f"{_W}rStyle")
            chain = [] if character is None else self._chain(character.get(f"{_W}val"))
            own = next((s.hidden for s in chain if s.hidden is not None), None)
        if own is None:
            own = next((s.hidden for s in style if s.hidden is not None), None)
        if own or properties is None:
            return bool(own)
        size = _value(properties, "sz")
        if size and size.isdigit() and int(size) <= _UNREADABLY_SMALL:
            return True
        white = (_value(properties, "color") or "").upper() == "FFFFFF"
        return white and not self._in_shape and not _has_ground(run)

    def _item(self, properties: Any, style: list[_Style]) -> tuple[int, str] | None:
        """Return an item's depth and marker, None for a paragraph that is in no list."""
        found = None if properties is None else _numbering(properties)
        if found is None:
            found = next((s.numbering for s in style if s.numbering), None)
        if found is None or found[0] == "0":
            return None
        number, level = found
        level = min(level, 8)
        for key in [key for key in self._counts if key[0] == number and key[1] > level]:
            del self._counts[key]
        self._counts[number, level] = count = self._counts.get((number, level), 0) + 1
        bullet = self._formats.get((number, level), "bullet") in ("bullet", "none")
        return level, "-" if bullet else f"{count}."

    @cached_property
    def _formats(self) -> dict[tuple[str, int], str]:
        """The number format of each list and level."""
        root = self._part("numbering")
        if root is None:
            return {}
        abstract = {
            definition.get(f"{_W}abstractNumId"): {
                int(level.get(f"{_W}ilvl", "0")): _value(level, "numFmt") or "decimal"
                for level in definition.findall(f"{_W}lvl")
            }
            for definition in root.findall(f"{_W}abstractNum")
        }
        return {
            (number.get(f"{_W}numId"), level): kind
            for number in root.findall(f"{_W}num")
            for level, kind in abstract.get(_value(number, "abstractNumId"), {}).items()
        }

    @cached_property
    def _styles(self) -> dict[str, _Style]:
        root = self._part("styles")
        styles = () if root is None else root.findall(f"{_W}style")
        return {element.get(f"{_W}styleId"): _style(element) for element in styles}

    def _style_of(self, properties: Any) -> list[_Style]:
        return self._chain(None if properties is None else _value(properties, "pStyle"))

    def _chain(self, name: str | None) -> list[_Style]:
        """Return a style and those it is based on, the nearest first."""
        chain: list[_Style] = []
        while name in self._styles and len(chain) < 20:
            chain.append(self._styles[name])
            name = chain[-1].based_on
        return chain

    def _target(self, relation: str | None) -> str:
        relations = self.document.part.rels
        return str(relations[relation].target_ref) if relation in relations else ""

    def _table(self, table: Any) -> str:
        rows = [self._row(row) for row in _rows(table)]
        if max(map(len, rows), default=0) <= 1:
            # One column is a frame around text, not a table.
            return blocks(text for row in rows for cell in row for text in self.blocks(cell))
        texts = [["" if cell is None else " ".join(self.blocks(cell)) for cell in row] for row in rows]
        return tables([row for row in texts if any(row)])

    def _row(self, row: Any) -> list[Any]:
        """Return a row's cells, None where a cell goes on from its left or from above."""
        cells: list[Any] = []
        for cell in _children(row, f"{_W}tc"):
            properties = cell.find(f"{_W}tcPr")
            span = merge = None
            if properties is not None:
                span, merge = _value(properties, "gridSpan"), properties.find(f"{_W}vMerge")
            goes_on = merge is not None and merge.get(f"{_W}val") != "restart"
            cells.append(None if goes_on else cell)
            cells.extend([None] * (min(int(span), 64) - 1 if span and span.isdigit() else 0))
        return cells


def _children(parent: Any, *tags: str) -> Iterator[Any]:
    """Yield the paragraphs and tables of an element, or those of other tags, through what is only around them."""
    for child in parent:
        if child.tag in (tags or (f"{_W}p", f"{_W}tbl")):
            yield child
        elif child.tag in _AROUND:
            yield from _children(child, *tags)


def _rows(table: Any) -> Iterator[Any]:
    return _children(table, f"{_W}tr")


def _style(element: Any) -> _Style:
    run, paragraph = element.find(f"{_W}rPr"), element.find(f"{_W}pPr")
    outline = None if paragraph is None else _value(paragraph, "outlineLvl")
    return _Style(
        name=(_value(element, "name") or "").lower(),
        based_on=_value(element, "basedOn") or "",
        hidden=None if run is None else _switch(run.find(f"{_W}vanish")),
        outline=int(outline) if outline and outline.isdigit() else None,
        numbering=None if paragraph is None else _numbering(paragraph),
    )


def _level(properties: Any, style: list[_Style]) -> int | None:
    """Return a heading's level from 0, None for what is no heading."""
    own = None if properties is None else _value(properties, "outlineLvl")
    if own and own.isdigit():
        return int(own) if int(own) < 9 else None
    for entry in style:
        if found := _HEADING.fullmatch(entry.name):
            return max(int(found[1]), 1) - 1
        if entry.outline is not None:
            return entry.outline if entry.outline < 9 else None
    return None


def _numbering(properties: Any) -> tuple[str, int] | None:
    found = properties.find(f"{_W}numPr")
    number = None if found is None else _value(found, "numId")
    level = None if found is None else _value(found, "ilvl")
    return (number, int(level) if level and level.isdigit() else 0) if number else None


def _value(parent: Any, name: str) -> str | None:
    found = parent.find(f"{_W}{name}")
    value = None if found is None else found.get(f"{_W}val")
    return None if value is None else str(value)


def _switch(element: Any) -> bool | None:
    """Return a toggle property's state, None where it is not set."""
    return None if element is None else element.get(f"{_W}val") not in ("0", "false", "off")


def _has_ground(run: Any) -> bool:
    """Return whether a run may stand on a colour: it is shaded, or in a table whose style may be."""
    node = run
    while node is not None:
        properties = [child for child in node if str(child.tag).endswith("Pr")]
        grounds = [child.find(f"{_W}{name}") for child in properties for name in ("shd", "highlight")]
        if node.tag == f"{_W}tbl" or any(ground is not None for ground in grounds):
            return True
        node = node.getparent()
    return False


def _note_label(kind: str, number: str) -> str:
    return number if kind == "footnote" else f"e{number}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
