"""Documents into chunks: along headings, bounded by the embedder's own tokenizer, with exact offsets."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from llmops.corpus._sections import SectionSpan, sections
from llmops.errors import ConfigurationError, MissingInput
from llmops.manifest import content_hash
from llmops.settings import Section

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["Chunk", "Chunker", "ChunkerRun", "chunk_id_of"]

_RULES = 1
"""Raise it when the same text and settings would give other chunks: every generation is then built anew."""


_FENCE_ONLY = re.compile(r"\s*(?:`{3,}|~{3,})\w*\s*")


@dataclass(frozen=True)
class Chunk:
    """A piece of a document: ``text`` is exactly ``document.text[char_start:char_end]``.

    ``embed_text`` is what an embedder gets: a line with title and headings, then the text.
    ``token_count`` counts all of it, special tokens included.
    """

    chunk_id: str
    heading_path: tuple[str, ...]
    position: int
    char_start: int
    char_end: int
    text: str
    embed_text: str
    token_count: int


class Chunker(Section):
    """Splits along the structure of a document: a chunk never crosses a heading.

    ``max_tokens`` bounds what is embedded, heading line and special tokens included. ``overlap`` is
    how many tokens neighbouring chunks of one section share at most.
    """

    kind: Literal["structure"] = "structure"
    max_tokens: int = Field(default=200, ge=32, le=8192)
    overlap: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _overlap_is_small(self) -> Chunker:
        if self.overlap > self.max_tokens // 4:
            raise ValueError(f"overlap must be at most a quarter of max_tokens, {self.max_tokens // 4}")
        return self

    def digest(self, tokenizer_file: Path) -> str:
        """Return 16 hexadecimal digits that change when the same text may be split differently."""
        settings = {
            "rules": _RULES,
            "splitter": metadata.version("semantic-text-splitter"),
            "settings": self.model_dump(mode="json"),
            "tokenizer": _tokenizer_digest(tokenizer_file),
        }
        return content_hash(settings)[:16]

    def start(self, tokenizer_file: Path) -> ChunkerRun:
        """Return this chunker with a tokenizer loaded; raises MissingInput without the file."""
        return ChunkerRun(self, self.digest(tokenizer_file), _tokenizer(tokenizer_file))


@dataclass(frozen=True)
class _Piece:
    document: int
    span: SectionSpan
    line: str


def chunk_id_of(chunker: str, document_id: str, heading_path: Sequence[str], text: str, place: int) -> str:
    """Return a chunk's id, 32 hexadecimal digits of a sha-256; ``place`` counts the same text in one section from 0."""
    return content_hash([chunker, document_id, *heading_path, text, place])[:32]


class ChunkerRun:
    """A chunker at work: it holds the tokenizer."""

    def __init__(self, chunker: Chunker, digest: str, tokenizer: Tokenizer) -> None:
        self.digest = digest
        self._chunker = chunker
        self._tokenizer = tokenizer

    def split(self, documents: Sequence[Mapping[str, Any]]) -> list[list[Chunk]]:
        """Return the chunks of each document, given its document_id, title, text and media_type."""
        pieces = [piece for n, document in enumerate(documents) for piece in self._pieces(n, document)]
        small = self._bounded(documents, pieces)
        counts = self._count(_embed_text(p.line, _text(documents[p.document], p.span)) for p in small)
        chunks: list[list[Chunk]] = [[] for _ in documents]
        seen: Counter[tuple[Any, ...]] = Counter()
        for piece, count in zip(small, counts, strict=True):
            document, path = documents[piece.document], piece.span.heading_path
            text = _text(document, piece.span)
            key = (document["document_id"], path, text)
            chunks[piece.document].append(
                Chunk(
                    chunk_id=chunk_id_of(self.digest, *key, seen[key]),
                    heading_path=path,
                    position=len(chunks[piece.document]),
                    char_start=piece.span.start,
                    char_end=piece.span.end,
                    text=text,
                    embed_text=_embed_text(piece.line, text),
                    token_count=count,
                )
            )
            seen[key] += 1
        return chunks

    def _pieces(self, number: int, document: Mapping[str, Any]) -> Iterator[_Piece]:
        text = document["text"]
        found = sections(text, markdown=document["media_type"] != "text/plain")
        if not found:
            start = len(text) - len(text.lstrip())
            found = [SectionSpan((), start, start + len(text.strip()))]
        for span in found:
            yield _Piece(number, span, self._line(document["title"], span.heading_path))

    def _bounded(self, documents: Sequence[Mapping[str, Any]], pieces: list[_Piece]) -> list[_Piece]:
        """Return the pieces, those above the bound split into smaller ones."""
        texts = [_text(documents[piece.document], piece.span) for piece in pieces]
        counts = self._count(_embed_text(p.line, text) for p, text in zip(pieces, texts, strict=True))
        bounded: list[_Piece] = []
        for piece, text, count in zip(pieces, texts, counts, strict=True):
            if count <= self._chunker.max_tokens:
                bounded.append(piece)
                continue
            for offset, part in self._split_text(piece.line, text, documents[piece.document]["media_type"]):
                start = piece.span.start + offset
                span = SectionSpan(piece.span.heading_path, start, start + len(part))
                bounded.append(_Piece(piece.document, span, piece.line))
        return bounded

    def _split_text(self, line: str, text: str, media_type: str) -> list[tuple[int, str]]:
        from semantic_text_splitter import MarkdownSplitter, TextSplitter

        overlap = self._chunker.overlap and self._chunker.overlap + self._measure(line, "")
        kind = TextSplitter if media_type == "text/plain" else MarkdownSplitter
        splitter = kind.from_callback(
            lambda part: self._measure(line, part), self._chunker.max_tokens, overlap=overlap
        )
        return [(at, part) for at, part in splitter.chunk_indices(text) if not _FENCE_ONLY.fullmatch(part)]

    def _line(self, title: str, path: tuple[str, ...]) -> str:
        """Return title and headings in one line that leaves two thirds of the bound to the text."""
        names = [title, *path]
        kept = [a for a, b in zip(names, [*names[1:], ""], strict=True) if a and not _contains(b, a)]
        limit = self._chunker.max_tokens // 3
        while len(kept) > 1 and self._measure("", " > ".join(kept)) > limit:
            kept = kept[1:]
        line = " > ".join(kept)
        encoded = self._tokenizer.encode(line, add_special_tokens=False)
        return line if len(encoded.ids) <= limit else line[: encoded.offsets[limit - 1][1]]

    def _measure(self, line: str, text: str) -> int:
        return len(self._tokenizer.encode(_embed_text(line, text)).ids)

    def _count(self, texts: Iterable[str]) -> list[int]:
        return [len(encoding.ids) for encoding in self._tokenizer.encode_batch_fast(list(texts))]


def _contains(qualified: str, name: str) -> bool:
    """Return whether a heading repeats the one above it, as ``pool.Pool.open`` does ``pool.Pool``."""
    return qualified == name or qualified.startswith(f"{name}.")


def _text(document: Mapping[str, Any], span: SectionSpan) -> str:
    return str(document["text"][span.start : span.end])


def _embed_text(line: str, text: str) -> str:
    return f"{line}\n{text}" if line else text


def _tokenizer(file: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(_tokenizer_json(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _tokenizer_json(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise MissingInput(
            f"the embedder's tokenizer {file} does not exist: import the embedder first"
        ) from error


def _tokenizer_digest(file: Path) -> str:
    """Digest what decides tokens: truncation and padding are settings of one caller, not of the tokenizer."""
    try:
        content = json.loads(_tokenizer_json(file))
    except json.JSONDecodeError as error:
        raise ConfigurationError(
            f"{file} is not a tokenizer file of Hugging Face tokenizers: {error}"
        ) from error
    content.pop("truncation", None)
    content.pop("padding", None)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
