"""What the sandbox runs: a closed list of names, each a function that reads untrusted bytes.

Adding one is one line in TASKS. The function takes what JSON has, and bytes; it raises Unreadable with a
reason; its return annotation (a dataclass, or types of JSON) is what the caller gets, checked.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PRELOADED", "TASKS", "function_of", "result_type"]

TASKS = {
    "document": "llmops.corpus._document:read_document",
    "parse": "llmops.corpus._parsing:parse",
}

PRELOADED = (
    "bs4",
    "docutils.frontend",
    "docutils.parsers.rst.directives.misc",
    "docutils.parsers.rst.languages.en",
    "lxml.etree",
    "lxml.html",
    "markdownify",
)
"""Modules that functions import when they run, loaded once, before there is anything hostile to read."""


def function_of(place: str) -> Callable[..., Any]:
    """Return the function at ``module:name``."""
    module, _, name = place.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found


def result_type(place: str) -> Any:
    """Return the type that the function at ``module:name`` says it returns."""
    return get_type_hints(function_of(place))["return"]
