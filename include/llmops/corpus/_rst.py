"""reStructuredText to Markdown, through docutils with file access and raw output switched off."""

from __future__ import annotations

import functools
import logging
import re
from typing import TYPE_CHECKING, Any

from llmops.errors import ParseError

if TYPE_CHECKING:
    from docutils import nodes

__all__ = ["labelled", "plain_roles", "rst_to_markdown"]

log = logging.getLogger(__name__)

_ROLE = re.compile(r":(?P<role>[a-zA-Z][\w:+.-]*):`(?P<text>[^`]+)`")
_TARGET = re.compile(r"^(?P<label>.*?)\s*<(?P<target>[^>]+)>$", re.DOTALL)
_PLAIN_LINE = re.compile(r"(?!\w{1,4}[.)]\s)[A-Za-z][A-Za-z0-9 ,;'\"()/!?.-]*|")
"""A line without any markup: a text of such lines needs no parser."""
_PROSE_ROLES = {"ref", "doc", "term", "abbr", "std:ref", "std:doc", "title"}
_SPHINX_NOTES = {
    "versionadded": "Added in version",
    "versionchanged": "Changed in version",
    "deprecated": "Deprecated since version",
    "seealso": "See also",
    "todo": "To do",
}
_FIELD_GROUPS = {
    "param": "Parameters",
    "parameter": "Parameters",
    "arg": "Parameters",
    "argument": "Parameters",
    "key": "Parameters",
    "keyword": "Parameters",
    "return": "Returns",
    "returns": "Returns",
    "rtype": "Return type",
    "raise": "Raises",
    "raises": "Raises",
    "except": "Raises",
    "exception": "Raises",
    "yield": "Yields",
    "yields": "Yields",
    "var": "Attributes",
    "ivar": "Attributes",
    "cvar": "Attributes",
}
_HIDDEN_FIELDS = {"type", "vartype", "meta"}


def rst_to_markdown(text: str) -> str:
    """Return reStructuredText as Markdown; Sphinx's roles, fields and notes are understood.

    What docutils cannot make sense of stays as it was written. Raises ParseError when the text is
    nested deeper than the parser can follow, or the parser fails on it.
    """
    if all(map(_PLAIN_LINE.fullmatch, text.strip().split("\n"))):
        return text.strip() + "\n"
    try:
        document = _parse(text)
        return _Writer().blocks(document).strip() + "\n"
    except RecursionError as error:
        raise ParseError("the reStructuredText is nested too deeply: flatten its lists and quotes") from error
    except Exception as error:  # The edge to docutils: on hostile text it raises anything.
        log.warning("docutils failed on a text of %d characters", len(text), exc_info=True)
        raise ParseError(f"docutils failed on the reStructuredText ({type(error).__name__})") from error


def plain_roles(text: str) -> str:
    """Return text with Sphinx roles (``:class:`~a.B```) replaced by code or by their own label."""
    return _ROLE.sub(_role_as_markdown, text)


def _role_label(match: re.Match[str]) -> tuple[str, bool]:
    """Return what a reader should see of a role, and whether that is prose."""
    label = match["text"].strip()
    role = match["role"].lower()
    if target := _TARGET.match(label):
        return target["label"] or target["target"], role in _PROSE_ROLES or " " in target["label"]
    if label.startswith("~"):
        label = label.rsplit(".", 1)[-1].lstrip("~")
    return label.lstrip("!"), role in _PROSE_ROLES and " " in label


def _role_as_markdown(match: re.Match[str]) -> str:
    label, prose = _role_label(match)
    return label if prose else f"`{label}`"


def _role_as_rst(match: re.Match[str]) -> str:
    label, prose = _role_label(match)
    return label if prose else f"``{label}``"


@functools.cache
def _settings() -> Any:
    from docutils.frontend import get_default_settings
    from docutils.parsers.rst import Parser

    _register_directives()
    settings = get_default_settings(Parser)
    settings.file_insertion_enabled = False
    settings.raw_enabled = False
    settings.report_level = 5
    settings.halt_level = 6
    settings.syntax_highlight = "none"
    settings.smart_quotes = False
    settings.warning_stream = ""
    settings.line_length_limit = 100_000
    settings._disable_config = True
    return settings


def _parse(text: str) -> nodes.document:
    from docutils.parsers.rst import Parser
    from docutils.utils import new_document

    document = new_document("<document>", _settings().copy())
    Parser().parse(_ROLE.sub(_role_as_rst, text), document)
    return document


def _register_directives() -> None:
    """Teach docutils Sphinx's version notes, and to keep the text of directives it does not know."""
    from docutils import nodes
    from docutils.parsers.rst import Directive, directives
    from docutils.statemachine import StringList

    class Note(Directive):  # type: ignore[misc]  # docutils is seen as untyped
        has_content = True
        optional_arguments = 1
        final_argument_whitespace = True

        def run(self) -> list[nodes.Node]:
            given = " ".join(self.arguments).split(None, 1)
            versioned = self.name.startswith(("version", "deprecated")) and bool(given)
            label = f"{_SPHINX_NOTES[self.name]} {given.pop(0)}" if versioned else _SPHINX_NOTES[self.name]
            block = nodes.container()
            body = StringList([*given, *([""] if given and self.content else []), *self.content], "")
            self.state.nested_parse(body, self.content_offset, block)
            lead = nodes.strong("", f"{label}:" if block.children else label)
            if block.children and isinstance(block.children[0], nodes.paragraph):
                block.children[0].insert(0, [lead, nodes.Text(" ")])
            else:
                block.insert(0, nodes.paragraph("", "", lead))
            return [block]

    for name in _SPHINX_NOTES:
        directives.register_directive(name, Note)


class _Writer:
    """Writes a docutils tree as Markdown, one method per kind of node."""

    def __init__(self) -> None:
        self._depth = 0

    def blocks(self, parent: nodes.Node) -> str:
        """Return the block-level children of ``parent``, separated by empty lines."""
        return "\n\n".join(filter(None, (self._block(child).rstrip() for child in parent.children)))

    def _block(self, node: nodes.Node) -> str:
        method = getattr(self, f"_{node.tagname.lstrip('#')}", None)
        if method is not None:
            return str(method(node))
        if any(hasattr(child, "tagname") and child.tagname != "#text" for child in node.children):
            from docutils import nodes

            inline = all(isinstance(child, nodes.Inline | nodes.Text) for child in node.children)
            return self._inline(node) if inline else self.blocks(node)
        return self._inline(node)

    def _section(self, node: nodes.Node) -> str:
        self._depth += 1
        text = self.blocks(node)
        self._depth -= 1
        return text

    def _title(self, node: nodes.Node) -> str:
        return f"{'#' * min(max(self._depth, 1), 6)} {self._inline(node)}"

    def _rubric(self, node: nodes.Node) -> str:
        return f"**{self._inline(node)}**"

    def _paragraph(self, node: nodes.Node) -> str:
        return self._inline(node)

    def _literal_block(self, node: nodes.Node) -> str:
        language = next((name for name in node["classes"] if name not in ("code", "literal-block")), "")
        return _fence(node.astext(), language)

    def _doctest_block(self, node: nodes.Node) -> str:
        return _fence(node.astext(), "python")

    def _bullet_list(self, node: nodes.Node) -> str:
        return "\n".join(self._item(item, "- ") for item in node.children)

    def _enumerated_list(self, node: nodes.Node) -> str:
        first = int(node.get("start", 1))
        return "\n".join(self._item(item, f"{n}. ") for n, item in enumerate(node.children, first))

    def _item(self, node: nodes.Node, marker: str) -> str:
        return marker + _indented(self.blocks(node), len(marker))

    def _definition_list_item(self, node: nodes.Node) -> str:
        terms = [c for c in node.children if c.tagname in ("term", "classifier")]
        bodies = [self.blocks(c) for c in node.children if c.tagname == "definition"]
        return f"- {' : '.join(map(self._inline, terms))}\n  " + _indented("\n\n".join(bodies), 2)

    def _definition_list(self, node: nodes.Node) -> str:
        return "\n".join(map(self._definition_list_item, node.children))

    def _block_quote(self, node: nodes.Node) -> str:
        return self.blocks(node)

    def _comment(self, node: nodes.Node) -> str:
        return ""

    _target = _substitution_definition = _pending = _raw = _meta = _comment

    def _transition(self, node: nodes.Node) -> str:
        return "---"

    def _image(self, node: nodes.Node) -> str:
        return str(node.get("alt", ""))

    def _system_message(self, node: nodes.Node) -> str:
        literal = [child for child in node.children if child.tagname == "literal_block"]
        if "Unknown directive type" not in node.astext() or not literal:
            return ""
        lines = literal[0].astext().splitlines()[1:]
        body = "\n".join(line for line in lines if not re.match(r"\s+:[\w-]+:", line))
        return "\n".join(line.strip() for line in body.splitlines())

    def _admonition(self, node: nodes.Node) -> str:
        label = node.tagname.capitalize()
        return labelled(label, self.blocks(node))

    _note = _warning = _tip = _hint = _important = _caution = _danger = _attention = _error = _admonition

    def _table(self, node: nodes.Node) -> str:
        rows = [
            [self.blocks(entry).replace("\n", " ").replace("|", "\\|") for entry in row.children]
            for row in node.findall(lambda n: n.tagname == "row")
        ]
        if not rows:
            return ""
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])

    def _field_list(self, node: nodes.Node) -> str:
        groups: dict[str, list[str]] = {}
        for field in node.children:
            name, body = field.children[0].astext(), self.blocks(field.children[1])
            kind, _, subject = name.partition(" ")
            if kind in _HIDDEN_FIELDS:
                continue
            label = _FIELD_GROUPS.get(kind)
            if label is None:
                groups.setdefault("", []).append(f"- {name}: " + _indented(body, 2))
            elif subject:
                lead = f"- `{subject.split()[-1]}`" + (": " if body else "")
                groups.setdefault(label, []).append(lead + _indented(body, 2))
            else:
                groups.setdefault(label, []).append(body)
        return "\n\n".join(_group(label, entries) for label, entries in groups.items())

    def _inline(self, node: nodes.Node) -> str:
        if node.tagname == "#text":
            return str(node.astext())
        inner = "".join(map(self._inline, node.children))
        match node.tagname:
            case "emphasis":
                return f"*{inner}*"
            case "strong":
                return f"**{inner}**"
            case "literal":
                return _code(inner)
            case "title_reference":
                return _code(inner.lstrip("!"))
            case "reference" if node.get("refuri", "").startswith(("http://", "https://")):
                uri = node["refuri"]
                return inner if inner == uri else f"[{inner}]({uri})"
            case "image":
                return str(node.get("alt", ""))
            case "target" | "footnote_reference" | "substitution_reference" | "system_message" | "raw":
                return ""
        return inner


def labelled(label: str, body: str) -> str:
    """Return a body behind its label: on the same line when it begins with prose, below it otherwise."""
    prose = body[:1].isalnum() and not re.match(r"\d+[.)] ", body)
    return f"**{label}:** {body}" if prose else f"**{label}:**\n\n{body}"


def _group(label: str, entries: list[str]) -> str:
    joined = "\n".join(entries)
    return f"**{label}:**\n\n{joined}" if label else joined


def _fence(code: str, language: str = "") -> str:
    ticks = "````" if "```" in code else "```"
    return f"{ticks}{language}\n{code.rstrip()}\n{ticks}"


def _code(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _indented(text: str, columns: int) -> str:
    """Indent every line but the first, which stands behind a list marker."""
    return text.replace("\n", "\n" + " " * columns).replace("\n" + " " * columns + "\n", "\n\n")
