"""Docstrings and reStructuredText as Markdown."""

from __future__ import annotations

import griffe
import pytest

from llmops.corpus._docstrings import docstring_markdown
from llmops.corpus._rst import rst_to_markdown


@pytest.mark.parametrize(
    ("rst", "markdown"),
    [
        ("Plain words, nothing else.", "Plain words, nothing else."),
        ("See :class:`~a.b.Pool` and ``x``.", "See `Pool` and `x`."),
        ("Read :ref:`the guide <guide>` first.", "Read the guide first."),
        ("Use `!None` here.", "Use `None` here."),
        ("Like this::\n\n    code(1)\n\nDone.", "Like this:\n\n```\ncode(1)\n```\n\nDone."),
        (".. code-block:: python\n\n    x = 1\n", "```python\nx = 1\n```"),
        (">>> 1 + 1\n2", "```python\n>>> 1 + 1\n2\n```"),
        (".. versionadded:: 3.1\n\nText.", "**Added in version 3.1**\n\nText."),
        (".. versionchanged:: 2\n   Now faster.", "**Changed in version 2:** Now faster."),
        (".. note:: Careful.", "**Note:** Careful."),
        ("- one\n\n  more\n- two", "- one\n\n  more\n- two"),
        ("Title\n=====\n\nPart\n----\n\nText.", "# Title\n\n## Part\n\nText."),
        (
            ":param int n: how many\n:returns: it\n:type n: int",
            "**Parameters:**\n\n- `n`: how many\n\n**Returns:**\n\nit",
        ),
        ("term\n   what it means", "- term\n  what it means"),
        ("`Home <https://example.org>`__", "[Home](https://example.org)"),
        ("=== ===\na   b\n=== ===\n1   2\n=== ===", "| a | b |\n| --- | --- |\n| 1 | 2 |"),
        (".. unknown-thing:: x\n\n   Kept text.", "Kept text."),
    ],
)
def test_restructuredtext_reads_as_markdown(rst: str, markdown: str) -> None:
    assert rst_to_markdown(rst).strip() == markdown


def test_a_file_cannot_be_included() -> None:
    assert "root" not in rst_to_markdown(
        ".. include:: /etc/passwd\n\n.. csv-table::\n   :file: /etc/passwd\n"
    )
    assert "<b>" not in rst_to_markdown(".. raw:: html\n\n   <b>x</b>\n")


def test_google_style_becomes_lists_and_keeps_its_fences() -> None:
    text = (
        "Do it.\n\nArgs:\n    a (int): The :class:`A` to do.\n\nReturns:\n    What was done.\n\n"
        "Example:\n    ```python\n    # a comment\n    do(1)\n    ```\n"
    )
    markdown = docstring_markdown(griffe.Docstring(text))
    assert "**Parameters:**\n\n- `a` (`int`): The `A` to do." in markdown
    assert "**Returns:**\n\n- What was done." in markdown
    assert "```python\n# a comment\ndo(1)\n```" in markdown


def test_numpy_style_becomes_lists() -> None:
    markdown = docstring_markdown(
        griffe.Docstring("Do it.\n\nParameters\n----------\na : int\n    How much.\n")
    )
    assert "- `a` (`int`): How much." in markdown


def test_a_docstring_adds_no_heading_and_closes_its_fences() -> None:
    assert (
        docstring_markdown(griffe.Docstring("Text.\n\n# Usage\n\n```\nopen"))
        == "Text.\n\n**Usage**\n\n```\nopen\n```"
    )
