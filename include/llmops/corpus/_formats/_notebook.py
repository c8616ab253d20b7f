"""Jupyter notebooks (.ipynb): Markdown cells as they are, code and what it printed in fences."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from llmops.corpus._formats._markdown import blocks, fence
from llmops.corpus._formats._reading import Reading, real_title
from llmops.corpus._formats._visible import without_hidden
from llmops.corpus._problems import Unreadable

__all__ = ["read_notebook"]

_OUTPUT_LINES = 40
_OUTPUT_CHARACTERS = 2_000
_LANGUAGE = re.compile(r"[A-Za-z0-9][\w+#.-]{0,30}")
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_INLINE_IMAGE = re.compile(r"!\[(?P<alt>[^\]\n]*)\]\(\s*<?(?:data|attachment):[^)\n]*\)", re.IGNORECASE)
_IMAGE_ELEMENT = re.compile(r"<img\b[^>]*>", re.IGNORECASE)


def read_notebook(text: str) -> Reading:
    """Return a notebook as Markdown; pictures, widgets and tracebacks are left out, long outputs are cut."""
    try:
        notebook = json.loads(text)
    except ValueError as error:
        raise Unreadable(f"it is no notebook: not valid JSON ({error})") from error
    if not isinstance(notebook, dict) or not isinstance(cells := notebook.get("cells"), list):
        hint = "run `jupyter nbconvert --to notebook` on it" if "worksheets" in str(notebook)[:10_000] else ""
        raise Unreadable(
            f"it has no list of cells, as notebooks have since version 4: {hint or 'save it again'}"
        )
    metadata = notebook.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    language = _language(metadata)
    title = metadata.get("title")
    body = blocks(part for cell in cells if isinstance(cell, dict) for part in _cell(cell, language))
    return Reading(body, real_title(title if isinstance(title, str) else ""))


def _language(metadata: dict[str, Any]) -> str:
    for owner, key in (("language_info", "name"), ("kernelspec", "language")):
        found = metadata.get(owner)
        name = found.get(key) if isinstance(found, dict) else None
        if isinstance(name, str) and _LANGUAGE.fullmatch(name):
            return name.lower()
    return ""


def _cell(cell: dict[str, Any], language: str) -> Iterator[str]:
    source = _joined(cell.get("source"))
    if cell.get("cell_type") == "markdown":
        text = _INLINE_IMAGE.sub(lambda image: image["alt"], source)
        yield without_hidden(_IMAGE_ELEMENT.sub("", text)).strip()
    elif cell.get("cell_type") == "code" and source.strip():
        yield fence(source.strip("\n"), language)
        outputs = cell.get("outputs")
        for output in outputs if isinstance(outputs, list) else ():
            text = _ANSI.sub("", _output(output) if isinstance(output, dict) else "").strip("\n")
            if text.strip():
                yield fence(_cut(text), "text")


def _output(output: dict[str, Any]) -> str:
    match output.get("output_type"):
        case "stream":
            return _joined(output.get("text"))
        case "execute_result" | "display_data":
            data = output.get("data")
            return _joined(data.get("text/plain")) if isinstance(data, dict) else ""
        case "error":
            return f"{output.get('ename', 'Error')}: {output.get('evalue', '')}"
    return ""


def _cut(text: str) -> str:
    lines = text[:_OUTPUT_CHARACTERS].split("\n")[:_OUTPUT_LINES]
    kept = "\n".join(lines)
    left = len(text) - len(kept)
    return f"{kept}\n... ({left:,} more characters)" if left else kept


def _joined(source: object) -> str:
    """Return a multi-line string, which the format also allows as a list of lines."""
    if isinstance(source, list):
        return "".join(line for line in source if isinstance(line, str))
    return source if isinstance(source, str) else ""
