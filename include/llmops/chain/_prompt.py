"""The prompt of a language model: its template, its context, and how its answer is read."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmops.chain._answer import REFUSAL
from llmops.errors import ConfigurationError
from llmops.index import Hit
from llmops.llm import Message

__all__ = ["AnswerReader", "PromptTemplate"]

_PLACEHOLDER = re.compile(r"\{([A-Za-z_]+)\}")
_KNOWN = ("context", "question", "refusal")
_PARAGRAPH = re.compile(r"\n[ \t]*\n")
_DELIMITER = re.compile(r"<(?=\s*/?\s*(?:documents?|question)\b)", re.IGNORECASE)


class PromptTemplate:
    """A text with the placeholders ``{context}``, ``{question}`` and, if wanted, ``{refusal}``.

    ``{context}`` becomes the numbered chunks, ``{refusal}`` the sentence that the model must say when
    they do not hold the answer. The paragraphs before the first one with ``{context}`` or ``{question}``
    are the system message, the rest is the user message: documents and questions never speak with the
    system's voice.
    """

    def __init__(self, text: str, *, with_context: bool) -> None:
        found = set(_PLACEHOLDER.findall(text))
        unknown = sorted(found - set(_KNOWN))
        if unknown:
            raise ConfigurationError(
                f"the prompt has unknown placeholders {unknown}: use {{context}}, {{question}}, {{refusal}}"
            )
        if "question" not in found:
            raise ConfigurationError("the prompt has no placeholder {question}, so the model never sees it")
        if with_context and "context" not in found:
            raise ConfigurationError("the prompt has no placeholder {context}, but retrieval finds documents")
        if not with_context and "context" in found:
            raise ConfigurationError(
                "the prompt has the placeholder {context}, but retrieval is of kind 'none'"
            )
        self._system, self._user = _split(text.strip())

    def messages(self, question: str, context: str) -> list[Message]:
        """Return the conversation for one question."""
        values = {"context": context, "question": question, "refusal": REFUSAL}

        def fill(text: str) -> str:
            return _PLACEHOLDER.sub(lambda match: values[match[1]], text)

        user = Message("user", fill(self._user))
        return [Message("system", fill(self._system)), user] if self._system else [user]


def context(hits: Sequence[Hit], characters: int) -> tuple[str, int]:
    """Return the first hits as numbered documents, and how many fit into ``characters`` (at least one).

    Text of documents is data: what looks like the delimiters around it is made harmless.
    """
    parts: list[str] = []
    size = 0
    for number, hit in enumerate(hits, 1):
        where = " > ".join(hit.heading_path) or hit.title
        text = _DELIMITER.sub("&lt;", hit.text)
        part = (
            f'<document number="{number}" path="{_attribute(hit.path)}" section="{_attribute(where)}">\n'
            f"{text}\n</document>"
        )
        size += len(part)
        if parts and size > characters:
            break
        parts.append(part)
    return "\n".join(["<documents>", *parts, "</documents>"]), len(parts)


def _split(text: str) -> tuple[str, str]:
    first = re.search(r"\{(?:context|question)\}", text)
    assert first is not None
    breaks = [match for match in _PARAGRAPH.finditer(text) if match.end() <= first.start()]
    if not breaks:
        return "", text
    return text[: breaks[-1].start()].strip(), text[breaks[-1].end() :].strip()


def _attribute(value: str) -> str:
    return " ".join(re.sub(r'[<>"]', "'", value).split())[:200]


_MARKER = re.compile(r" *(?:\[\^?(\d{1,3}(?:\s*,\s*\d{1,3})*)\]|【(\d{1,3})(?:†[^】\n]{0,80})?】)")
_UNFINISHED = re.compile(r" *(?:\[[\d,\s^]{0,24}|【[^】\n]{0,90})?$")
_TICKS = re.compile(r"`+")
_PLAIN = re.compile(r"[^`\[【 ]+")
_LOOSE = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"'})


class AnswerReader:
    """Reads a language model's answer piece by piece: its citations, and whether it refuses.

    ``known`` is how many documents the model was given, None when it was asked without any and brackets
    mean nothing. Markers of other documents are left out of the text and counted; markers inside code are
    code. A text that begins with the refusal becomes exactly the refusal.
    """

    def __init__(self, known: int | None) -> None:
        self._known = known
        self._rest = ""
        self._emitted = ""
        self._undecided = True
        self._fence = 0
        self._inline = 0
        self.refused = False
        self.cited: dict[int, None] = {}
        self.invalid = 0

    @property
    def text(self) -> str:
        """Return everything that was handed out."""
        return self._emitted

    def feed(self, piece: str) -> str:
        """Take a piece of the answer and return what can be shown of it by now."""
        self._rest += piece
        return self._advance(final=False)

    def finish(self) -> str:
        """Return what was held back until the end."""
        return self._advance(final=True)

    def _advance(self, *, final: bool) -> str:
        if self.refused or (self._undecided and self._may_refuse(final)):
            return ""
        if self._undecided:
            self._undecided = False
            if _loose(self._rest).startswith(_loose(REFUSAL).rstrip(".")):
                self.refused = True
                self._emitted = REFUSAL
                return REFUSAL
        shown = (
            "".join(self._tokens(self._known, final))
            if self._known is not None
            else self._take(len(self._rest))
        )
        self._emitted += shown
        return shown

    def _may_refuse(self, final: bool) -> bool:
        """Return whether what came so far may still become a refusal."""
        start, refusal = _loose(self._rest), _loose(REFUSAL).rstrip(".")
        return not final and len(start) < len(refusal) and refusal.startswith(start)

    def _tokens(self, known: int, final: bool) -> list[str]:
        shown: list[str] = []
        while self._rest:
            ticks = _TICKS.match(self._rest)
            if not final and (_UNFINISHED.match(self._rest) or (ticks and ticks.end() == len(self._rest))):
                break
            marker = None if self._fence or self._inline else _MARKER.match(self._rest)
            if ticks:
                self._toggle(len(ticks[0]))
                shown.append(self._take(ticks.end()))
            elif marker:
                before = (self._emitted + "".join(shown))[-1:]
                shown.append(self._cite(marker, before, known))
                self._take(marker.end())
            else:
                plain = _PLAIN.match(self._rest)
                shown.append(self._take(plain.end() if plain else 1))
                if "\n\n" in shown[-1]:
                    self._inline = 0
        return shown

    def _take(self, length: int) -> str:
        taken, self._rest = self._rest[:length], self._rest[length:]
        return taken

    def _toggle(self, length: int) -> None:
        if self._fence or length >= 3:
            self._fence = 0 if self._fence and length >= self._fence else self._fence or length
        else:
            self._inline = 0 if self._inline == length else self._inline or length

    def _cite(self, marker: re.Match[str], before: str, documents: int) -> str:
        """Return the markers of known documents in one bracket; nothing for unknown ones."""
        numbers = [int(number) for number in (marker[1] or marker[2]).split(",")]
        known = [number for number in numbers if 1 <= number <= documents]
        an_index = not marker[0].startswith(" ") and (before.isalnum() or before in ("_", ")"))
        if not known and an_index:
            return marker[0]
        self.invalid += len(numbers) - len(known)
        self.cited.update(dict.fromkeys(known))
        lead = marker[0][: len(marker[0]) - len(marker[0].lstrip(" "))]
        return lead + "".join(f"[{number}]" for number in known) if known else ""


def _loose(text: str) -> str:
    """Return a text as it is compared with the refusal: case, quotes, emphasis and spaces do not count."""
    return re.sub(r"[\s*_>\"#]+", " ", text.translate(_LOOSE)).strip().casefold().replace("can't", "cannot")
