"""A docstring, whatever its style, as Markdown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from llmops.corpus._rst import labelled, plain_roles, rst_to_markdown

if TYPE_CHECKING:
    import griffe

__all__ = ["docstring_markdown"]

_GOOGLE = re.compile(
    r"^(Args|Arguments|Parameters|Params|Returns|Yields|Raises|Example|Examples|Note|Attributes):\s*$",
    re.MULTILINE,
)
_NUMPY = re.compile(r"^(Parameters|Returns|Yields|Raises|Examples|Attributes|Notes)\n-{3,}\s*$", re.MULTILINE)
_LITERAL = re.compile(r"``([^`\n]+)``")
_HEADING = re.compile(r"^(#{1,6})(?= )", re.MULTILINE)
_LABELS = {
    "parameters": "Parameters",
    "other parameters": "Other parameters",
    "raises": "Raises",
    "warns": "Warns",
    "returns": "Returns",
    "yields": "Yields",
    "receives": "Receives",
    "attributes": "Attributes",
    "type parameters": "Type parameters",
}


def docstring_markdown(docstring: griffe.Docstring) -> str:
    """Return a docstring as Markdown without headings: parameters as lists, code blocks kept.

    Google and numpy styles are read by griffe; everything else is reStructuredText.
    """
    text = docstring.value
    if _NUMPY.search(text):
        style = "numpy"
    elif _GOOGLE.search(text) or "```" in text:
        style = "google"
    else:
        return _without_headings(rst_to_markdown(text)).strip()
    import griffe

    sections = griffe.parse(docstring, griffe.Parser(style), warnings=False)
    return _without_headings("\n\n".join(filter(None, map(_section, sections)))).strip()


def _section(section: Any) -> str:
    kind = section.kind.value
    if kind == "text":
        return _prose(section.value)
    if kind == "examples":
        parts = [
            _prose(text) if part.value == "text" else f"```python\n{text}\n```"
            for part, text in section.value
        ]
        return "\n\n".join([_label(section, "Example"), *parts])
    if kind == "admonition":
        label = section.title or section.value.kind.replace("-", " ").capitalize()
        return labelled(label, _prose(section.value.description))
    if kind == "deprecated":
        return labelled(
            f"Deprecated since version {section.value.version}", _prose(section.value.description)
        )
    if kind not in _LABELS:
        return ""
    return "\n".join([_label(section, _LABELS[kind]), "", *map(_element, section.value)])


def _label(section: Any, default: str) -> str:
    return f"**{section.title or default}:**"


def _element(element: Any) -> str:
    """Return one parameter, return value or exception as a list item."""
    name = getattr(element, "name", "") or ""
    annotation = str(element.annotation) if element.annotation else ""
    lead = " ".join(filter(None, [f"`{name}`" if name else "", _typed(annotation, bool(name))]))
    body = _prose(element.description).replace("\n", "\n  ")
    return f"- {lead}: {body}" if lead else f"- {body}"


def _typed(annotation: str, named: bool) -> str:
    if not annotation:
        return ""
    return f"(`{annotation}`)" if named else f"`{annotation}`"


def _prose(text: str) -> str:
    """Return Markdown prose with Sphinx roles and double backticks read as code; fences untouched."""
    parts = re.split(r"(^```.*?^```[ \t]*$)", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(
        part if part.startswith("```") else _LITERAL.sub(r"`\1`", plain_roles(part)) for part in parts
    ).strip()


def _without_headings(text: str) -> str:
    """Turn headings into bold lines, for only names are headings of a document, and close open fences."""
    lines, fenced = [], False
    for line in text.split("\n"):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and _HEADING.match(line):
            line = f"**{line.lstrip('#').strip()}**"
        lines.append(line)
    return "\n".join([*lines, "```"] if fenced else lines)
