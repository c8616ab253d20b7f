"""The files an embedder is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from llmops.errors import IntegrityError, MissingInput

__all__ = ["DESCRIPTION", "GRAPH", "TOKENIZER", "EmbedderDescription", "parse_description", "read_part"]

GRAPH = "model.onnx"
TOKENIZER = "tokenizer.json"
DESCRIPTION = "embedder.json"


class EmbedderDescription(BaseModel):
    """What ``embedder.json`` says about the files beside it.

    ``source_digest`` is the sha-256 of the ``model.safetensors`` that the graph was exported from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    dimension: PositiveInt
    max_tokens: PositiveInt
    pooling: Literal["mean", "cls"]
    source_digest: str


def read_part(folder: Path, name: str) -> bytes:
    """Return the bytes of one file of an embedder; raise MissingInput when it is not there."""
    try:
        return (folder / name).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingInput(
            f"no embedder in {str(folder)!r}: {name} is not there. Import one with `llmops model import`"
        ) from error


def parse_description(text: bytes, folder: Path) -> EmbedderDescription:
    """Return the description in ``text``; raise IntegrityError when it is none."""
    try:
        return EmbedderDescription.model_validate_json(text)
    except ValidationError as error:
        raise IntegrityError(
            f"{DESCRIPTION} in {str(folder)!r} does not describe an embedder "
            f"({error.error_count()} problems): import the model again"
        ) from error
