"""Web pages: the main content, without what stands around it and without what nobody sees."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any

from llmops.corpus._formats._markdown import fence, plain, repeated
from llmops.corpus._formats._reading import Reading
from llmops.corpus._formats._visible import HIDDEN_STYLE

__all__ = ["read_html"]

_NEVER_SHOWN = (
    "script",
    "style",
    "noscript",
    "template",
    "iframe",
    "object",
    "embed",
    "svg",
    "canvas",
    "head",
)
_CONTROLS = ("input", "select", "textarea", "button", "datalist", "audio", "video", "map")
_AROUND = ("nav", "aside", "footer", "menu")
_NOTE = re.compile(
    r"(?:^|[-_])(?:note|tip|hint|info|warning|caution|important|danger|admonition|callout|example)s?(?:$|[-_])",
    re.I,
)
"""Asides of a text that belong to what it says."""
_LINE_ENDS = {
    "br",
    "p",
    "div",
    "ul",
    "ol",
    "table",
    "pre",
    "blockquote",
    "hr",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
}
_AROUND_ROLES = {
    "navigation",
    "banner",
    "contentinfo",
    "complementary",
    "search",
    "menu",
    "menubar",
    "toolbar",
}
_BANNER = re.compile(
    r"(?:^|[-_])(?:cookies?|gdpr|ccpa|consent)(?:[-_]?\w+)*[-_]?"
    r"(?:banner|bar|notice|consent|pop-?up|modal|dialog|overlay|message|alert|prompt|wall|manager|bot)(?:$|[-_])"
    r"|^(?:onetrust|CybotCookiebot|usercentrics|didomi|qc-cmp|cc-window|cmplz)",
    re.IGNORECASE,
)
_ENOUGH = 0.25
"""A main element with less than this share of the page's text is not where the text is."""
_LANGUAGE = re.compile(
    r"^(?:lang(?:uage)?-|highlight-(?:source-)?|brush:\s*)(?P<name>[A-Za-z0-9+#.-]{1,30})$"
)
_CSS_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_CSS_RULE = re.compile(r"(?P<selectors>[^{}]+)\{(?P<style>[^{}]*)\}")
_CSS_SIMPLE = re.compile(r"(?P<kind>[.#])(?P<name>[\w-]+)")
_DEAD_LINK = re.compile(r"\s*(?:javascript|data|vbscript|blob):", re.IGNORECASE)


def read_html(text: str) -> Reading:
    """Return the main content of a page as Markdown, with its title."""
    from bs4 import BeautifulSoup

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a page that is XML, or looks like an address, is read all the same
        soup = BeautifulSoup(text, "lxml")
    title = soup.title.get_text() if soup.title else ""
    _drop_hidden(soup)
    main = _main(soup)
    _drop_around(main)
    body = _converter().convert_soup(main)
    return Reading(re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+\n", "\n", body)).strip("\n"), title)


def _drop_hidden(soup: Any) -> None:
    """Remove what no reader of the page sees: scripts and hidden elements; comments are never converted."""
    classes, ids = _hidden_names(soup)
    # A panel that a tab shows is hidden only until somebody looks for it.
    panels = {tab.get("aria-controls") for tab in soup.find_all(attrs={"role": "tab"})}
    for tag in soup(_NEVER_SHOWN):
        tag.decompose()
    for tag in soup.find_all(True):
        if _is_gone(tag) or tag.name in ("html", "body"):
            continue
        on_tab = tag.get("role") == "tabpanel" and tag.get("id") in panels
        if not on_tab and _is_hidden(tag, classes, ids):
            tag.decompose()


def _is_gone(tag: Any) -> bool:
    """Return whether a tag went with one around it; asking its ``decomposed`` searches all that is in it."""
    return bool(vars(tag).get("_decomposed", False))


def _hidden_names(soup: Any) -> tuple[set[str], set[str]]:
    """Return the classes and ids that the page's own style sheets hide on every screen."""
    names: dict[str, set[str]] = {".": set(), "#": set()}
    for sheet in soup("style"):
        css = _without_conditions(_CSS_COMMENT.sub("", sheet.get_text()))
        for rule in _CSS_RULE.finditer(css):
            if HIDDEN_STYLE.search(rule["style"]):
                for selector in rule["selectors"].split(","):
                    if found := _CSS_SIMPLE.fullmatch(selector.strip()):
                        names[found["kind"]].add(found["name"])
    return names["."], names["#"]


def _without_conditions(css: str) -> str:
    """Return a style sheet without its @media and other conditional blocks."""
    kept, depth, at = [], 0, 0
    for mark in re.finditer(r"@[\w-]+[^{};]*\{|[{}]", css):
        if not depth and mark[0].startswith("@"):
            kept.append(css[at : mark.start()])
            depth = 1
        elif depth:
            depth += -1 if mark[0] == "}" else 1
            at = mark.end()
    return "".join([*kept, "" if depth else css[at:]])


def _is_hidden(tag: Any, classes: set[str], ids: set[str]) -> bool:
    attributes = tag.attrs
    if not attributes or tag.name == "dialog":
        return tag.name == "dialog" and "open" not in attributes
    return (
        "hidden" in attributes
        or str(attributes.get("aria-hidden", "")).strip().lower() == "true"
        or bool(HIDDEN_STYLE.search(str(attributes.get("style", ""))))
        or not classes.isdisjoint(attributes.get("class", ()))
        or str(attributes.get("id", "")) in ids
    )


def _main(soup: Any) -> Any:
    """Return what holds the page's text: its main element, its articles, or all of the body."""
    from bs4 import BeautifulSoup

    body = soup.body or soup
    whole = _length(body)
    for tag in body.find_all(_is_banner):
        if not _is_gone(tag) and not _holds_the_text(tag, whole):
            tag.decompose()
    whole = _length(body)
    for name, found in (
        ("main", body.find_all(lambda tag: tag.name == "main" or tag.get("role") == "main")),
        ("article", body.find_all(lambda tag: tag.name == "article" or tag.get("role") == "article")),
    ):
        ids = set(map(id, found))
        outer = [tag for tag in found if not any(id(parent) in ids for parent in tag.parents)]
        if outer and sum(map(_length, outer)) >= max(_ENOUGH * whole, 1):
            page = BeautifulSoup(f"<{name}></{name}>", "lxml").find(name)
            for tag in outer:
                page.append(tag.extract())
            return page
    _drop_page_headers(body, whole)
    return body


def _drop_page_headers(body: Any, whole: int) -> None:
    """Remove the headers of the page, but a heading where there is no other."""
    for header in body.find_all(lambda tag: tag.name == "header" or tag.get("role") == "banner"):
        if _is_gone(header):
            continue
        headings = header.find_all("h1")
        if headings and len(body.find_all("h1")) == len(headings):
            for heading in headings:
                header.insert_before(heading.extract())
        if not _holds_the_text(header, whole):
            header.decompose()


def _drop_around(main: Any) -> None:
    """Remove navigation, asides, footers and forms."""
    for tag in main.find_all(_CONTROLS):
        if tag.get("role") != "tab":
            tag.decompose()
    whole = _length(main)
    for tag in main.find_all(_is_around):
        if not _is_gone(tag) and (tag.name in _AROUND or not _holds_the_text(tag, whole)):
            tag.decompose()
    for tag in main.find_all("a"):
        if not _is_gone(tag) and tag.get_text().strip() in ("¶", "#"):
            tag.decompose()


def _is_around(tag: Any) -> bool:
    if tag.name == "aside" and (tag.get("role") == "note" or any(map(_NOTE.search, tag.get("class", ())))):
        return False
    return tag.name in _AROUND or tag.name == "form" or tag.get("role") in _AROUND_ROLES


def _is_banner(tag: Any) -> bool:
    names = [*tag.get("class", ()), str(tag.get("id", ""))]
    return tag.name not in ("html", "body", "main", "article") and any(
        map(_BANNER.search, filter(None, names))
    )


def _holds_the_text(tag: Any, whole: int) -> bool:
    """Return whether an element that looks like trimmings is the page: a form around all of it."""
    return bool(tag.find(["main", "article"])) or _length(tag) > 0.5 * whole


def _length(tag: Any) -> int:
    return sum(len(string.strip()) for string in tag.strings)


def _converter() -> Any:
    from markdownify import ATX, MarkdownConverter

    class Converter(MarkdownConverter):  # type: ignore[misc]  # markdownify is seen as untyped
        def process_text(self, element: Any, parent_tags: set[str] | None = None) -> str:
            before = element.previous_sibling
            self._goes_on = before is not None and before.name not in _LINE_ENDS
            return str(super().process_text(element, parent_tags))

        def escape(self, text: str, parent_tags: set[str]) -> str:
            # A text behind an inline element begins in the middle of a line.
            return plain(f"x{text}")[1:] if self._goes_on else plain(text)

        def convert_a(self, element: Any, text: str, parent_tags: set[str]) -> str:
            label, href = text.strip(), "".join((element.get("href") or "").split())
            if not label or not href or _DEAD_LINK.match(href) or "_noformat" in parent_tags:
                return text
            target = href if href.count("(") == href.count(")") else f"<{href}>"
            shown = label if label == href else f"[{label}]({target})"
            return " " * (text[0] == " ") + shown + " " * (text[-1] == " ")

        def convert_img(self, element: Any, text: str, parent_tags: set[str]) -> str:
            return " ".join((element.get("alt") or "").split())

        def convert_pre(self, element: Any, text: str, parent_tags: set[str]) -> str:
            code = text.strip("\n")
            return f"\n\n{fence(code, _language(element))}\n\n" if code.strip() else ""

        def convert_table(self, element: Any, text: str, parent_tags: set[str]) -> str:
            head, rule, *lines = [*text.strip().split("\n"), "", ""]
            if not re.fullmatch(r"[| -]+", rule):
                return str(super().convert_table(element, text, parent_tags))
            parts = repeated(f"{head}\n{rule}", filter(None, lines))
            return "\n\n" + "\n\n".join(parts) + "\n\n"

        def convert_td(self, element: Any, text: str, parent_tags: set[str]) -> str:
            return str(super().convert_td(element, text.replace("|", "\\|"), parent_tags))

        def convert_th(self, element: Any, text: str, parent_tags: set[str]) -> str:
            return str(super().convert_th(element, text.replace("|", "\\|"), parent_tags))

    return Converter(
        heading_style=ATX,
        bullets="-",
        escape_underscores=False,
        escape_asterisks=False,
        table_infer_header=True,
    )


def _language(pre: Any) -> str:
    for tag in _around_code(pre):
        for name in tag.get("class", ()):
            if found := _LANGUAGE.match(name):
                return found["name"].lower()
    return ""


def _around_code(pre: Any) -> Iterator[Any]:
    """Yield the elements that may name a code block's language."""
    yield pre
    if code := pre.find("code"):
        yield code
    for depth, parent in enumerate(pre.parents):
        if depth < 2 and parent is not None:
            yield parent
