"""Notebooks as documents."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmops.corpus._parsing import Parsed, parse
from llmops.corpus._problems import Unreadable


def notebook(*cells: dict[str, Any], **metadata: Any) -> bytes:
    metadata = metadata or {"language_info": {"name": "python"}}
    return json.dumps({"nbformat": 4, "metadata": metadata, "cells": cells}).encode()


def markdown(source: str | list[str]) -> dict[str, Any]:
    return {"cell_type": "markdown", "source": source}


def code(source: str | list[str], *outputs: dict[str, Any]) -> dict[str, Any]:
    return {"cell_type": "code", "source": source, "outputs": list(outputs)}


def read(*cells: dict[str, Any], **metadata: Any) -> Parsed:
    return parse("a.ipynb", None, notebook(*cells, **metadata))


def test_a_notebook_is_its_text_its_code_and_what_the_code_printed() -> None:
    image = {"output_type": "display_data", "data": {"image/png": "iVBOR", "text/plain": ["<Figure>"]}}
    parsed = read(
        markdown(["# Rivers\n", "![map](data:image/png;base64,iVBOR) and ![x](attachment:x.png)<!-- no -->"]),
        code(
            ["print(1)\n", "s = '```'"],
            {"output_type": "stream", "name": "stdout", "text": ["1\n", "\x1b[31m2\x1b[0m\n"]},
        ),
        code(
            "plot()",
            image,
            {"output_type": "error", "ename": "KeyError", "evalue": "'a'", "traceback": ["long"]},
        ),
        code("  "),
        {"cell_type": "raw", "source": "raw"},
        code("x", {"output_type": "execute_result", "data": {"text/html": "<b>1</b>"}}),
    )
    assert parsed == Parsed(
        "# Rivers\nmap and x\n\n"
        "````python\nprint(1)\ns = '```'\n````\n\n```text\n1\n2\n```\n\n"
        "```python\nplot()\n```\n\n```text\n<Figure>\n```\n\n```text\nKeyError: 'a'\n```\n\n"
        "```python\nx\n```\n",
        "Rivers",
        "application/x-ipynb+json",
    )


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("x" * 5_000, "x" * 2_000 + "\n... (3,000 more characters)"),
        ("y\n" * 50, "y\n" * 40 + "... (20 more characters)"),
    ],
)
def test_long_outputs_are_cut(text: str, kept: str) -> None:
    made = read(code("f()", {"output_type": "stream", "text": text.rstrip("\n") + "\n"}))
    assert made.text.endswith(f"```text\n{kept}\n```\n")


@pytest.mark.parametrize(
    ("metadata", "language"),
    [
        ({"language_info": {"name": "R"}}, "r"),
        ({"kernelspec": {"language": "julia"}}, "julia"),
        ({"language_info": {"name": "x\n# Injected"}}, ""),
        ({"language_info": 3}, ""),
    ],
)
def test_code_names_the_kernels_language(metadata: dict[str, Any], language: str) -> None:
    assert read(code("x"), **metadata).text == f"```{language}\nx\n```\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "not valid JSON"),
        (b"[1]", "no list of cells"),
        (b'{"cells": 3}', "no list of cells"),
        (b'{"worksheets": [{"cells": []}], "nbformat": 3}', "jupyter nbconvert --to notebook"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_file_that_is_no_notebook_says_why(content: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason) as caught:
        parse("a.ipynb", None, content)
    assert caught.value.problem == "unreadable"


def test_odd_cells_are_no_obstacle() -> None:
    odd: list[Any] = [3, None, {"cell_type": "code", "source": 3}, {"source": "x"}, code("y", None)]  # type: ignore[arg-type]
    odd += [
        code("z", {"output_type": "execute_result", "data": 3}),
        {"cell_type": "code", "source": "w", "outputs": 3},
    ]
    assert [word for word in "xyzw" if f"\n{word}\n" in read(*odd).text] == ["y", "z", "w"]
