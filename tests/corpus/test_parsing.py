"""One file's bytes as a document, or the reason why not."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import re
from importlib import metadata
from pathlib import Path

import pytest

from llmops.corpus import _parsing
from llmops.corpus._parsing import PARSERS, media_type_of, parse, parsers_digest
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


@pytest.mark.parametrize(
    "character",
    [
        "\u200b",
        "\u2060",
        "\ufeff",
        "\u00ad",
        "\u202e",
        "\u2066",
        "\u200f",
        "\U000e0041",
        "\ufe01",
        "\u3164",
        "\u009b",
    ],
)
@pytest.mark.parametrize("path", ["a.md", "a.txt", "a.html", "a.csv", "a.rst"])
def test_invisible_characters_are_removed(path: str, character: str) -> None:
    assert (
        read(path, f"on{character}e \u200dtwo\u200c")[1].replace("| --- |\n", "").strip("| \n") == "one two"
    )


def test_joiners_stay_in_scripts_that_are_written_with_them() -> None:
    persian, hindi = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0915\u094d\u200d\u0937"
    assert read("a.txt", f"{persian} {hindi}")[1] == f"{persian} {hindi}\n"
    assert read("a.txt", persian.replace("\u200c", "\u200c\u200d\u200c"))[1] == f"{persian}\n"


def test_every_line_end_is_a_line_end() -> None:
    assert read("a.txt", "a\r\nb\rc\u2028d\u2029e\x85f")[1] == "a\nb\nc\nd\ne\nf\n"


@pytest.mark.parametrize(
    ("hidden", "shown"),
    [
        ("a <!-- no\n\nno --> b", "a  b"),
        ("a <!-- no", "a"),
        ("[//]: # (no)\na", "a"),
        ("<div style='display:none'>\n\nno <div>no</div>\n</div>\n\na", "a"),
        ('<span hidden>no</span>a <b aria-hidden="true">no</b>', "a"),
        ("a <p hidden>no", "a"),
        ("a <script>no</script>", "a"),
        ("`<!-- a -->` <!-- no -->", "`<!-- a -->`"),
        ("```\n<!-- a -->\n```\n<!-- no\n```\nno -->b", "```\n<!-- a -->\n```\nb"),
        ("the <script> element and a < b", "the <script> element and a < b"),
        ("<div class='hidden-gem'>a</div>", "<div class='hidden-gem'>a</div>"),
        ("[a]: https://a.example (title)\n[a]", "[a]: https://a.example (title)\n[a]"),
    ],
)
def test_markdown_keeps_nothing_that_no_renderer_shows(hidden: str, shown: str) -> None:
    assert read("a.md", hidden)[1].strip() == shown


@pytest.mark.parametrize(
    ("path", "declared", "media_type"),
    [
        ("page", "text/html; charset=utf-8", "text/html"),
        ("page.html", "application/xhtml+xml", "text/html"),
        ("a.md", "application/octet-stream", "text/markdown"),
        ("a.md", "text/plain", "text/plain"),
        ("A.MD", None, "text/markdown"),
        ("a.CSV", "", "text/csv"),
        ("a", "application/vnd.ms-excel.sheet.macroEnabled.12", media_type_of("a.xlsx")),
        ("a.docx", "application/zip", media_type_of("a.docm")),
    ],
)
def test_a_format_is_what_is_declared_or_else_what_the_name_says(
    path: str, declared: str | None, media_type: str
) -> None:
    assert media_type_of(path, declared) == media_type


@pytest.mark.parametrize(
    ("path", "declared", "advice"),
    [
        ("a.doc", None, r"format \(\.doc\) is not supported: save it as \.docx$"),
        ("a.XLS", None, "save it as .xlsx or .csv"),
        ("a.ppt", None, "save it as .pptx or PDF"),
        ("a.msg", None, "save the message as .eml"),
        ("a.rtf", None, "save it as .docx"),
        ("a.jpeg", None, "OCR"),
        ("a.tar.gz", None, "unpack it"),
        ("a", "image/webp", r"\(image/webp\) .* \(OCR\)"),
        ("a", "application/msword", "save it as .docx"),
        ("a.bin", "application/octet-stream", r"\(\.bin\)"),
    ],
)
def test_a_format_that_is_not_read_says_what_to_save_it_as(
    path: str, declared: str | None, advice: str
) -> None:
    with pytest.raises(Unreadable, match=advice) as caught:
        parse(path, declared, b"x")
    assert caught.value.problem == "unsupported"


def test_running_out_of_memory_is_a_reason_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(text: str) -> None:
        raise MemoryError

    monkeypatch.setitem(_parsing._READERS, "text/csv", hungry)
    with pytest.raises(Unreadable, match="more memory") as caught:
        parse("a.csv", None, b"a")
    assert caught.value.problem == "memory"


def test_the_digest_of_the_parsers_changes_with_them_and_with_their_libraries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def digest() -> str:
        parsers_digest.cache_clear()
        return parsers_digest()

    first = digest()
    assert re.fullmatch("[0-9a-f]{16}", first)
    assert digest() == first
    with monkeypatch.context() as patch:
        patch.setattr(_parsing, "PARSERS", PARSERS + 1)
        assert digest() != first
    real = metadata.version
    for library in ("pypdfium2", "python-docx", "python-pptx", "openpyxl", "lxml", "markdownify", "docutils"):
        with monkeypatch.context() as patch:
            patch.setattr(metadata, "version", lambda name, this=library: "0" if name == this else real(name))
            assert digest() != first
    assert digest() == first


def _outcome(path: Path) -> str:
    """Return the class of a file's problem, "" for a document; run in a process of its own."""
    try:
        return "" if parse(path.name, None, path.read_bytes()).text.strip() else "blank"
    except Unreadable as error:
        return error.problem


def test_every_hostile_file_is_a_document_or_has_a_reason() -> None:
    listing = DATA / "malformed" / "manifest.jsonl"
    if not listing.is_file():
        pytest.skip(f"there is no {listing}: set LLMOPS_TEST_DATA")
    names = [json.loads(line)["file"] for line in listing.read_text().splitlines()]
    failed, outcomes = {}, {}
    # Processes, because a file may hang its parser or end its process.
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        waiting = {name: pool.apply_async(_outcome, (DATA / "malformed" / "files" / name,)) for name in names}
        for name, result in waiting.items():
            try:
                outcomes[name] = result.get(timeout=20)
            except multiprocessing.TimeoutError:
                failed[name] = "hung, or ended its process"
            except Exception as error:  # noqa: BLE001  # whatever it is, it is a failure of this file
                failed[name] = repr(error)
    assert failed == {}
    assert set(outcomes.values()) == {"", "unsupported", "unreadable", "encrypted", "empty"}
    for word, problem in (("password", "encrypted"), ("Encrypted", "unsupported")):
        assert problem in {outcomes[name] for name in names if word in name}
    encrypted = [name for name in names if outcomes[name] == "encrypted"]
    assert len(encrypted) > 12
    assert len(names) > 100
