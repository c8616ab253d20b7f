"""One file's bytes as the parts of a document's row: what runs in the sandbox."""

from __future__ import annotations

import hashlib
from typing import Any

from llmops.corpus._parsing import parse
from llmops.corpus._problems import Unreadable
from llmops.quality import SensitiveRules, measure, screen

__all__ = ["read_document"]


def read_document(
    path: str, declared: str | None, content: bytes, title: str | None, sensitive: dict[str, Any]
) -> dict[str, Any]:
    """Return a file's parsed and screened text with its measures, as columns of ``documents``.

    ``title`` is what the source calls it, None where the content says; ``sensitive`` are the fields of a
    SensitiveRules. Raises Unreadable.
    """
    parsed = parse(path, declared, content)
    rules = SensitiveRules.model_validate(sensitive)
    named, text = screen(title or parsed.title, rules), screen(parsed.text, rules)
    if (reason := text.quarantine or named.quarantine) is not None:
        raise Unreadable(reason, "sensitive")
    measures = measure(text.text)
    return {
        "version": hashlib.sha256(f"{named.text}\0{text.text}".encode()).hexdigest(),
        "title": named.text,
        "text": text.text,
        "media_type": parsed.media_type,
        "warnings": list(parsed.warnings),
        "sensitive": {kind: count + named.counts[kind] for kind, count in text.counts.items()},
        "characters": measures.characters,
        "words": measures.words,
        "damage": measures.damage,
        "signature": measures.signature,
        "lines": measures.lines,
    }
