"""Slides (.pptx): one section per slide, with its text, tables and speaker notes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmops.corpus._formats._markdown import blocks, indented, link, plain, tables
from llmops.corpus._formats._package import PackageKind, open_package
from llmops.corpus._formats._reading import Reading, listed, real_title, within

if TYPE_CHECKING:
    from pptx.slide import Slide

__all__ = ["read_slides"]

_TYPE = "application/vnd.openxmlformats-officedocument.presentationml"
_MACROS = "application/vnd.ms-powerpoint"
_KIND = PackageKind(
    label="presentation",
    suffix=".pptx",
    main_types=(
        f"{_TYPE}.presentation.main+xml",
        f"{_TYPE}.slideshow.main+xml",
        f"{_TYPE}.template.main+xml",
        f"{_MACROS}.presentation.macroEnabled.main+xml",
        f"{_MACROS}.slideshow.macroEnabled.main+xml",
        f"{_MACROS}.template.macroEnabled.main+xml",
    ),
    max_part=40_000_000,
)
_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_MAX_SLIDES = 2_000


def read_slides(content: bytes) -> Reading:
    """Return a presentation as Markdown; hidden slides and shapes, pictures and charts are left out."""
    package = open_package(content, _KIND)
    from pptx import Presentation

    presentation = Presentation(package.stream())
    slides = list(presentation.slides)
    within(len(slides), _MAX_SLIDES, "slides")
    size = (int(presentation.slide_width or 0), int(presentation.slide_height or 0))
    lost = _Lost()
    sections, title = [], ""
    for number, slide in enumerate(slides, 1):
        if slide._element.get("show") in ("0", "false"):
            lost.hidden_slides.append(number)
            continue
        body = blocks([*_shapes(slide, size, lost), _notes(slide)])
        heading = _heading(slide)
        title = title or heading
        if body or heading:
            sections.append(blocks([f"## {heading or f'Slide {number}'}", body]))
    return Reading(blocks(sections), real_title(package.title) or title, tuple(lost.warnings()))


@dataclass
class _Lost:
    hidden_slides: list[int] = field(default_factory=list)
    hidden_shapes: int = 0
    drawn: int = 0

    def warnings(self) -> Iterator[str]:
        if self.hidden_slides:
            yield f"hidden slides are left out: {listed(self.hidden_slides)}"
        if self.hidden_shapes:
            yield f"{self.hidden_shapes:,} shapes that are hidden or off their slide are left out"
        if self.drawn:
            yield f"{self.drawn:,} charts and diagrams are left out"


def _heading(slide: Slide) -> str:
    title = slide.shapes.title
    return "" if title is None or _is_hidden(title) else " ".join(_text(title._element, {}).split())


def _shapes(slide: Slide, size: tuple[int, int], lost: _Lost) -> Iterator[str]:
    """Yield what stands on a slide, in the order that screen readers follow."""
    title = slide.shapes.title
    for shape in slide.shapes:
        if title is not None and shape.shape_id == title.shape_id:
            continue
        if _is_hidden(shape) or _is_outside(shape, size):
            lost.hidden_shapes += 1
            continue
        yield from _shape(shape, lost)


def _shape(shape: Any, lost: _Lost) -> Iterator[str]:
    from pptx.shapes.group import GroupShape

    if isinstance(shape, GroupShape):
        for member in shape.shapes:
            if _is_hidden(member):
                lost.hidden_shapes += 1
            else:
                yield from _shape(member, lost)
    elif getattr(shape, "has_table", False):
        yield tables([row for row in map(_cells, shape.table.rows) if any(row)])
    elif shape.has_text_frame:
        if not _is_furniture(shape):
            yield _frame(shape)
    elif shape._element.tag.endswith("}graphicFrame"):
        lost.drawn += 1


def _cells(row: Any) -> list[str]:
    return ["" if cell.is_spanned else _text(cell._tc, {}) for cell in row.cells]


def _frame(shape: Any) -> str:
    """Return a shape's paragraphs: a list where the layout has one for content."""
    from pptx.enum.shapes import PP_PLACEHOLDER

    links = {name: relation.target_ref for name, relation in shape.part.rels.items() if relation.is_external}
    content = (PP_PLACEHOLDER.BODY, PP_PLACEHOLDER.OBJECT, PP_PLACEHOLDER.VERTICAL_BODY)
    listed_here = shape.is_placeholder and shape.placeholder_format.type in content
    lines = []
    for paragraph in shape._element.iter(f"{_A}p"):
        text, properties = _text(paragraph, links), paragraph.find(f"{_A}pPr")
        bullet = _bullet(properties, default="-" if listed_here else "")
        depth = 0 if properties is None else min(int(properties.get("lvl", "0")), 8)
        if text and bullet:
            lines.append(f"{'  ' * depth}{bullet} " + indented(plain(text), 2 * depth + len(bullet) + 1))
        elif text:
            lines.append(f"\n{plain(text)}\n")
    return "\n".join(lines).replace("\n\n\n", "\n\n").strip("\n")


def _bullet(properties: Any, default: str) -> str:
    if properties is None:
        return default
    if properties.find(f"{_A}buNone") is not None:
        return ""
    if properties.find(f"{_A}buAutoNum") is not None:
        return "1."
    return "-" if properties.find(f"{_A}buChar") is not None else default


def _text(element: Any, links: dict[str, str]) -> str:
    """Return the text of an element's paragraphs, with links to web pages."""
    paragraphs = [element] if element.tag == f"{_A}p" else element.iter(f"{_A}p")
    lines = ("".join(_runs(paragraph, links)).strip() for paragraph in paragraphs)
    return "\n".join(line for line in lines if line)


def _runs(paragraph: Iterable[Any], links: dict[str, str]) -> Iterator[str]:
    for run in paragraph:
        if run.tag == f"{_A}br":
            yield "\n"
        elif run.tag in (f"{_A}r", f"{_A}fld"):
            text = "".join(node.text or "" for node in run.findall(f"{_A}t"))
            click = run.find(f"{_A}rPr/{_A}hlinkClick")
            target = "" if click is None else links.get(click.get(f"{_R}id"), "")
            yield link(text, target) if target else text


def _notes(slide: Slide) -> str:
    from pptx.enum.shapes import PP_PLACEHOLDER

    if not slide.has_notes_slide:
        return ""
    placeholders: Any = slide.notes_slide.placeholders
    texts = [
        plain(_text(shape._element, {}))
        for shape in placeholders
        if shape.placeholder_format.type == PP_PLACEHOLDER.BODY
    ]
    text = blocks(texts)
    return f"**Notes:** {text}" if text else ""


def _is_hidden(shape: Any) -> bool:
    return any(
        node.get("hidden") in ("1", "true")
        for part in shape._element
        for node in part
        if node.tag.endswith("}cNvPr")
    )


def _is_furniture(shape: Any) -> bool:
    """Return whether a shape is the date, footer or number that stands on every slide."""
    from pptx.enum.shapes import PP_PLACEHOLDER as KIND

    every = (KIND.DATE, KIND.FOOTER, KIND.HEADER, KIND.SLIDE_NUMBER)
    return bool(shape.is_placeholder and shape.placeholder_format.type in every)


def _is_outside(shape: Any, size: tuple[int, int]) -> bool:
    place = (shape.left, shape.top, shape.width, shape.height)
    if None in place or not all(size):
        return False
    left, top, width, height = map(int, place)
    return left >= size[0] or top >= size[1] or left + width <= 0 or top + height <= 0
