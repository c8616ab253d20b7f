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
_FENCE = re.compile(r"^```[^\n]*$", re.MULTILINE)
_CODE_OR_HEADING = re.compile(r"^```.*?(?:^```[^\S\n]*$|\Z)|^#{1,6} [^\n]*$", re.MULTILINE | re.DOTALL)
_SUMMARY_END = re.compile(r"(?<=[.!?])\s+|\n\s*\n")


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
    pairs = tuple(sorted({pair for section in _sections(kept) if (pair := _pair(section))}))
    if not pairs:
        raise MissingInput(
            f"no training pair in {len(rows)} chunks, {len(rows) - len(kept)} of them of the evaluation set: "
            "ingest documents with headings and sections that the evaluation set does not use"
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


def _pair(section: list[dict[str, Any]]) -> tuple[str, str] | None:
    """Return heading and summary with the body of one section; only its heading if it is one sentence.

    Code is left out: a signature that appears in heading and body would be learned instead of words.
    """
    first = section[0]
    headings = json.loads(first["heading_path"]) or [first["title"]]
    heading = " > ".join(dict.fromkeys(headings))
    prose = _prose("\n".join(chunk["text"] for chunk in section))
    summary, body = _split_summary(prose)
    anchor = f"{heading}\n{summary}" if len(body) >= _SHORTEST_BODY else heading
    body = body if len(body) >= _SHORTEST_BODY else prose
    return (anchor, body) if len(body) >= _SHORTEST_BODY else None


def _prose(markdown: str) -> str:
    """Return a section's text without headings and fenced code, also code that lost its opening fence."""
    if len(_FENCE.findall(markdown)) % 2:
        markdown = _FENCE.split(markdown, maxsplit=1)[1]
    return _CODE_OR_HEADING.sub("", markdown).strip()


def _split_summary(text: str) -> tuple[str, str]:
    """Return the first sentence on one line and the rest, which is empty where no sentence ends in time."""
    summary, *rest = _SUMMARY_END.split(text, maxsplit=1)
    if len(summary) > _LONGEST_SUMMARY or not rest:
        return "", ""
    return " ".join(summary.split()), rest[0].strip()
