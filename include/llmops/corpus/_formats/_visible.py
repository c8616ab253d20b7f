"""What a person does not see does not reach the document: a place where instructions are smuggled."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["HIDDEN_STYLE", "normalised", "without_hidden"]

_OTHER_LINE_ENDS = re.compile("[\x85\u2028\u2029]")
_CONTROL = {c: None for c in (*range(32), 0x7F) if chr(c) not in "\n\t"}
_INVISIBLE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and line end
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5"  # soft hyphen, joiners and fillers without a shape
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f"  # zero-width, bidirectional overrides and isolates
    "\u3164\uffa0\ufe00-\ufe0f\ufeff\ufff9-\ufffc\ufffe\uffff"  # fillers, variation selectors, anchors
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"  # musical controls; tags and selectors that spell ASCII
    "]"
)
_JOINERS = "\u200c\u200d"
_JOINING = re.compile("[\u0600-\u08ff\u0900-\u0dff\u1000-\u109f\u1780-\u18af]")
"""Arabic, the scripts of India and their neighbours, which are written with joiners."""

HIDDEN_STYLE = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)|(?<![-\w])opacity\s*:\s*0(?:\.0+)?\s*(?:[;!%]|$)"
    r"|font-size\s*:\s*0(?:\.\d+)?\s*(?:px|pt|em|rem|%)?\s*(?:[;!]|$)"
    r"|(?:text-indent|(?<![-\w])left|(?<![-\w])top)\s*:\s*-\d{3,}",
    re.IGNORECASE,
)
_FENCE = re.compile(r"^ {0,3}(?P<mark>`{3,}|~{3,})(?P<rest>.*)$")
_CODE = re.compile(r"(?P<ticks>(?<!`)`+(?!`))[^\n]{1,1000}?(?<!`)(?P=ticks)(?!`)")
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_LABELLED_NOTE = re.compile(
    r"^ {0,3}\[(?://|comment|_metadata_)[^\]\n]*\]:[ \t]+[^\n]*$", re.IGNORECASE | re.MULTILINE
)
_TAG = re.compile(
    r"<(?P<close>/?)(?P<name>[a-zA-Z][\w-]*)(?P<attributes>(?:[^<>\"']|\"[^\"<]*\"|'[^'<]*')*)>"
)
_STYLE = re.compile(r"\bstyle\s*=\s*(?:\"(?P<double>[^\"]*)\"|'(?P<single>[^']*)')", re.IGNORECASE)
_HIDDEN = re.compile(r"(?:^|\s)(?:hidden(?=[\s=/]|$)|aria-hidden\s*=\s*[\"']?true)", re.IGNORECASE)
_UNSEEN = {"script", "style", "template"}
_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


def normalised(text: str) -> str:
    """Return text in NFC with Unix line ends, without control and invisible characters.

    A zero-width joiner or non-joiner stays in scripts that are written with them, one at a time.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.isascii():
        return text.translate(_CONTROL)
    text = _INVISIBLE.sub(_needed, _OTHER_LINE_ENDS.sub("\n", text))
    return unicodedata.normalize("NFC", text)


def _needed(match: re.Match[str]) -> str:
    at, text = match.start(), match.string
    return match[0] if match[0] in _JOINERS and _JOINING.match(text[at - 1 : at]) else ""


def without_hidden(text: str) -> str:
    """Return Markdown without comments and elements that no renderer shows; code stays as it is."""
    if "<" not in text and "]:" not in text:
        return text
    return "".join(part if code else _shown(part) for code, part in _by_code(text))


def _by_code(text: str) -> list[tuple[bool, str]]:
    """Return the text in pieces that are fenced code or not."""
    pieces: list[tuple[bool, list[str]]] = [(False, [])]
    mark, comment = "", False
    for line in text.splitlines(keepends=True):
        found = None if comment else _FENCE.match(line.rstrip("\n"))
        if found and not mark and "`" not in found["rest"]:
            mark = found["mark"]
            pieces.append((True, [line]))
            continue
        pieces[-1][1].append(line)
        if found and mark and found["mark"].startswith(mark) and not found["rest"].strip():
            mark = ""
            pieces.append((False, []))
        elif not mark:
            # A fence within a comment opens nothing.
            bare = _CODE.sub("", line)
            comment = bare.rfind("<!--") > bare.rfind("-->") or (comment and "-->" not in bare)
    return [(code, "".join(lines)) for code, lines in pieces]


def _shown(text: str) -> str:
    kept: list[str] = []

    def keep(match: re.Match[str]) -> str:
        kept.append(match[0])
        return f"\0{len(kept) - 1}\0"

    text = _COMMENT.sub("", _CODE.sub(keep, text))
    text = _without_elements(_LABELLED_NOTE.sub("", text))
    return re.sub("\0(\\d+)\0", lambda match: kept[int(match[1])], text)


def _without_elements(text: str) -> str:
    """Return text without elements that are hidden, an unclosed one up to the end of the text.

    An unclosed script or template is taken for prose about the tag.
    """
    shown, at, name, depth = [], 0, "", 0
    closed = {tag["name"].lower() for tag in _TAG.finditer(text) if tag["close"]}
    for tag in _TAG.finditer(text):
        if name:
            depth += (tag["name"].lower() == name) * (-1 if tag["close"] else 1)
            if not depth:
                name, at = "", tag.end()
        elif not tag["close"] and tag["name"].lower() not in _VOID and _is_hidden(tag, closed):
            shown.append(text[at : tag.start()])
            name, depth, at = tag["name"].lower(), 1, len(text)
    return "".join([*shown, text[at:]])


def _is_hidden(tag: re.Match[str], closed: set[str]) -> bool:
    if (name := tag["name"].lower()) in _UNSEEN:
        return name in closed
    attributes = tag["attributes"]
    style = _STYLE.search(attributes)
    written = (style["double"] or style["single"] or "") if style else ""
    return bool(_HIDDEN.search(attributes) or HIDDEN_STYLE.search(written))
