"""What the sandbox runs: a closed list of names, each a function that reads untrusted bytes.

Adding one is one line in TASKS. The function takes what JSON has, and bytes; it raises Unreadable with a
reason; its return annotation (a dataclass, or types of JSON) is what the caller gets, checked.
"""

from __future__ import annotations

import encodings
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TASKS", "function_of", "preload", "result_type"]

TASKS = {
    "document": "llmops.corpus._document:read_document",
    "links": "llmops.corpus._pages:links",
    "parse": "llmops.corpus._parsing:parse",
    "sitemap": "llmops.corpus._pages:sitemap",
}

_PRELOADED = (
    "bs4",
    "docx",
    "pptx",
    "openpyxl",
    "pypdfium2",
    "defusedxml.ElementTree",
    "docutils.frontend",
    "docutils.parsers.rst.directives.misc",
    "docutils.parsers.rst.languages.en",
    "lxml.etree",
    "lxml.html",
    "markdownify",
)
# Codecs of Windows, which cannot be imported elsewhere.
_ELSEWHERE = {"mbcs", "oem"}


def preload() -> None:
    """Import what the functions import when they run: once, before there is anything hostile to read."""
    for module in _PRELOADED:
        import_module(module)
    for codec in iter_modules(encodings.__path__):
        if codec.name not in _ELSEWHERE:
            import_module(f"encodings.{codec.name}")


def function_of(place: str) -> Callable[..., Any]:
    """Return the function at ``module:name``."""
    module, _, name = place.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found


def result_type(place: str) -> Any:
    """Return the type that the function at ``module:name`` says it returns."""
    return get_type_hints(function_of(place))["return"]
