"""One file's bytes as a document, or the reason why not."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from llmops.corpus._parsing import parse
from llmops.corpus._problems import Unreadable

DATA = Path(os.environ.get("LLMOPS_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def read(path: str, content: str | bytes) -> tuple[str, str]:
    raw = content.encode() if isinstance(content, str) else content
    parsed = parse(path, None, raw)
    return parsed.title, parsed.text


@pytest.mark.parametrize(
    ("path", "content", "title", "text"),
    [
        ("a/b.md", "# The *Title*\r\n\r\nText.\r\n", "The Title", "# The *Title*\n\nText.\n"),
        ("b.md", "No heading.", "b", "No heading.\n"),
        ("b.md", "```\n# code\n```\n", "b", "```\n# code\n```\n"),
        ("b.md", '---\ntitle: "From front"\ntags: [x]\n---\nText.', "From front", "Text.\n"),
        (
            "b.md",
            '<!--{\n "Title": "Go",\n "Template": true\n}-->\n\n## Part\n\nText.',
            "Go",
            "## Part\n\nText.\n",
        ),
        ("b.md", "Under\n=====\n\nText.", "Under", "Under\n=====\n\nText.\n"),
        ("b.rst", "Top\n===\n\nText.", "Top", "# Top\n\nText.\n"),
        ("b.txt", "First line\n# not a heading\n", "First line", "First line\n# not a heading\n"),
        ("b.txt", b"\xef\xbb\xbfbom", "bom", "bom\n"),
        ("b.txt", "utf sixteen".encode("utf-16"), "utf sixteen", "utf sixteen\n"),
        ("b.txt", "e\u0301 \x1b[31mred\x07", "\u00e9 [31mred", "\u00e9 [31mred\n"),
    ],
)
def test_text_formats_are_normalised(path: str, content: str | bytes, title: str, text: str) -> None:
    assert read(path, content) == (title, text)


def test_html_keeps_what_is_read_and_drops_the_rest() -> None:
    page = (
        "<html><head><title>The page</title><style>p{}</style></head><body><nav>menu</nav><h2>Part</h2>"
        "<p>Some <code>code_x</code> and <a href='/x'>a link</a>.</p><script>alert(1)</script><!-- no -->"
        "<pre>line 1\n  line 2</pre><ul><li>one</li></ul></body></html>"
    )
    title, text = read("p.html", page)
    assert title == "The page"
    assert text == "## Part\n\nSome `code_x` and [a link](/x).\n\n```\nline 1\n  line 2\n```\n\n- one\n"


def test_html_is_read_in_the_encoding_it_declares() -> None:
    page = "<html><head><meta charset='iso-8859-1'></head><body><p>café</p></body></html>"
    assert read("p.html", page.encode("latin-1"))[1] == "café\n"


@pytest.mark.parametrize(
    ("path", "content", "problem", "reason"),
    [
        ("a.xyz", b"%PDF", "unsupported", r"format \(\.xyz\) is not supported: Markdown, .* are$"),
        ("Makefile", b"all:", "unsupported", "no suffix"),
        ("a.md", b"", "empty", "no text"),
        ("a.md", b" \n\t\n", "empty", "no text"),
        ("a.md", b"<!-- only a comment -->", "empty", "no text"),
        ("a.html", b"<script>x</script>", "empty", "no text"),
        ("a.md", b"text\x00more", "unreadable", "binary file: it contains NUL"),
        ("a.md", bytes(range(1, 9)) * 40, "unreadable", "control characters"),
        ("a.md", b"caf\xe9 au lait", "unreadable", "not valid UTF-8: byte 0xe9 at offset 3"),
        ("a.html", b"<meta charset=klingon><p>x</p>", "unreadable", "unknown encoding 'klingon'"),
        ("a.html", b"<meta charset=zip><p>x</p>", "unreadable", "unknown encoding 'zip'"),
        ("a.rst", b"x" * 4_000_001, "too_large", "4,000,001 bytes"),
    ],
)
def test_a_file_that_is_no_document_says_why(path: str, content: bytes, problem: str, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason) as caught:
        parse(path, None, content)
    assert caught.value.problem == problem


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("deep.html", b"<div>" * 20_000 + b"x" + b"</div>" * 20_000),
        ("deep.rst", b"\n".join(b" " * n + b"- x\n" for n in range(0, 1200, 2))),
        ("deep.html", b"<ul><li>" * 3_000 + b"x"),
    ],
)
def test_a_deeply_nested_file_ends_as_a_document_or_a_reason(path: str, content: bytes) -> None:
    text = "refused"
    with contextlib.suppress(Unreadable):
        text = parse(path, None, content).text
    assert text.strip()


@pytest.mark.parametrize("error", [AssertionError(), ValueError("x"), AttributeError("x"), KeyError("x")])
@pytest.mark.parametrize(
    ("path", "function"),
    [
        ("a.html", "markdownify.MarkdownConverter.convert_soup"),
        ("a.html", "bs4.BeautifulSoup.__init__"),
        ("a.rst", "docutils.parsers.rst.Parser.parse"),
    ],
)
def test_whatever_a_parser_raises_is_a_reason(
    path: str, function: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(function, broken)
    content = b"<p>*Text* of :term:`one`.</p>"
    with pytest.raises(Unreadable, match=rf"failed on .*\({type(error).__name__}\)") as caught:
        parse(path, None, content)
    assert caught.value.problem == "unreadable"


def test_a_page_of_half_characters_has_a_reason() -> None:
    content = b"<meta charset=utf-7><p>x +2AA- y</p>"
    with pytest.raises(Unreadable, match=r"\(UnicodeEncodeError\)"):
        parse("a.html", None, content)


def test_no_hostile_file_raises_anything_but_a_reason() -> None:
    folder = DATA / "malformed" / "files"
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}: set LLMOPS_TEST_DATA")
    problems = []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        try:
            assert parse(path.name, None, content).text
        except Unreadable as error:
            problems.append(error.problem)
    assert len(problems) > 100
