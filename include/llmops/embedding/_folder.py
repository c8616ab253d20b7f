"""The files an embedder is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmops.errors import IntegrityError, MissingInput
from llmops.settings import EndpointAccess

__all__ = ["DESCRIPTION", "GRAPH", "TOKENIZER", "Opening", "open_tokenizer", "read_part"]

GRAPH = "model.onnx"
TOKENIZER = "tokenizer.json"
DESCRIPTION = "embedder.json"


@dataclass(frozen=True)
class Opening:
    """What a description is given to make its embedder from: its folder, and what it may use here."""

    folder: Path
    parts: Mapping[str, bytes]
    threads: int | None
    endpoints: Mapping[str, EndpointAccess]

    def tokenizer(self, max_tokens: int | None = None) -> Any:
        """Return the folder's tokenizer, without padding, that cuts a text at ``max_tokens`` or not at all."""
        return open_tokenizer(self.parts[TOKENIZER], self.folder, max_tokens)


def read_part(folder: Path, name: str) -> bytes:
    """Return the bytes of one file of an embedder; raise MissingInput when it is not there."""
    try:
        return (folder / name).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingInput(
            f"no embedder in {str(folder)!r}: {name} is not there. Import one with `llmops model import`"
        ) from error


def open_tokenizer(content: bytes, folder: Path, max_tokens: int | None) -> Any:
    """Return the tokenizer in ``content``, without padding, that cuts at ``max_tokens`` or not at all."""
    import tokenizers

    try:
        tokenizer = tokenizers.Tokenizer.from_str(content.decode())
    except Exception as error:  # the library raises bare Exception
        raise IntegrityError(
            f"{TOKENIZER} in {str(folder)!r} is no tokenizer ({error}): import the model again"
        ) from error
    tokenizer.no_padding()
    if max_tokens is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(max_tokens)
    return tokenizer
