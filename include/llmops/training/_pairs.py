"""Training pairs out of the corpus itself: what a section is called, and what it says."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmops.errors import IntegrityError, MissingInput
from llmops.manifest import content_hash

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PairSet", "build_pairs", "load_pairs", "save_pairs"]

_COLUMNS = ("source", "path", "document_id", "chunker", "heading_path", "position", "title", "text")
_SHORTEST_BODY = 40
_LONGEST_SUMMARY = 300
_SUMMARY_END = re.compile(r"(?<=[.!?:])\s+|\n\s*\n")


@dataclass(frozen=True)
class PairSet:
    """Pairs of heading and body, a digest of exactly these pairs, and how many documents gave them."""

    pairs: tuple[tuple[str, str], ...]
    digest: str
    counts: Mapping[str, int]


def build_pairs(chunks: pa.Table, *, exclude_documents: Collection[tuple[str, str]]) -> PairSet:
    """Return pairs (heading path and summary line, section body) from the rows of the table ``chunks``.

    ``exclude_documents`` are the (source, path) of the evaluation set's documents, which must not be
    learned from. The pairs are sorted and distinct, so that the same table always gives the same digest.
    Raises MissingInput when no pair is left.
    """
    excluded = set(exclude_documents)
    rows = chunks.select(list(_COLUMNS)).to_pylist()
    kept = [row for row in rows if (row["source"], row["path"]) not in excluded]
    pairs = tuple(sorted({pair for section in _sections(kept) for pair in _section_pairs(section)}))
    if not pairs:
        raise MissingInput(
            f"no training pair in {len(rows)} chunks ({len(rows) - len(kept)} of them belong to the "
            "evaluation set): ingest documents with headings and sections that the evaluation set does not use"
        )
    counts = {
        "documents": len({row["document_id"] for row in kept}),
        "excluded_documents": len(
            {row["document_id"] for row in rows} - {row["document_id"] for row in kept}
        ),
    }
    return PairSet(pairs, content_hash(pairs), counts)


def save_pairs(pairs: PairSet, file: Path) -> None:
    """Write pairs as JSON lines: one with digest and counts, then one per pair."""
    lines = [{"digest": pairs.digest, "counts": dict(pairs.counts)}, *map(list, pairs.pairs)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def load_pairs(file: Path) -> PairSet:
    """Return what ``save_pairs`` wrote; raise MissingInput or IntegrityError when it is not that."""
    try:
        head, *lines = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
        pairs = tuple((str(anchor), str(body)) for anchor, body in lines)
        loaded = PairSet(pairs, str(head["digest"]), {key: int(n) for key, n in head["counts"].items()})
    except FileNotFoundError as error:
        raise MissingInput(f"no training set at {str(file)!r}: build it first") from error
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{str(file)!r} is no training set ({error!r}): build it again") from error
    if content_hash(pairs) != loaded.digest:
        raise IntegrityError(
            f"the pairs in {str(file)!r} differ from their digest: build the training set again"
        )
    return loaded


def _sections(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Return the chunks of each section of each document, in reading order."""

    def section(row: dict[str, Any]) -> tuple[str, ...]:
        return row["document_id"], row["chunker"], row["heading_path"]

    for _, chunks in groupby(sorted(rows, key=lambda row: (*section(row), row["position"])), section):
        yield list(chunks)


def _section_pairs(section: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Return heading and summary with each chunk's body; a section of one sentence pairs with its heading."""
    first = section[0]
    heading = " > ".join(dict.fromkeys([*json.loads(first["heading_path"])] or [first["title"]]))
    texts = [chunk["text"].strip() for chunk in section]
    summary, body = _split_summary(_without_heading(texts[0]))
    if len(body) >= _SHORTEST_BODY:
        anchor, bodies = f"{heading}\n{summary}", [body, *texts[1:]]
    else:
        anchor, bodies = heading, [_without_heading(texts[0]), *texts[1:]]
    for text in bodies:
        if len(text) >= _SHORTEST_BODY:
            yield anchor, text


def _without_heading(text: str) -> str:
    """Return a chunk without the Markdown heading it may begin with."""
    return re.sub(r"\A(#{1,6}[^\n]*\n\s*)+", "", text).strip()


def _split_summary(text: str) -> tuple[str, str]:
    """Return the first sentence, at most some lines long, and the rest."""
    summary, *rest = _SUMMARY_END.split(text, maxsplit=1)
    if len(summary) > _LONGEST_SUMMARY or not rest:
        return summary[:_LONGEST_SUMMARY], ""
    return " ".join(summary.split()), rest[0].strip()
