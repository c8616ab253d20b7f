"""The release manifest: everything an assistant answers with, as pure data, and its canonical hash."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from llmops.errors import IntegrityError

__all__ = [
    "ArtifactPin",
    "IndexPin",
    "Manifest",
    "PromptPin",
    "canonical_json",
    "content_hash",
    "parse_manifest",
]


class _Pinned(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ArtifactPin(_Pinned):
    """A model in the registry: its version and the sha-256 of every file that belongs to it."""

    uri: str
    files: dict[str, str]
    fingerprint: str


class PromptPin(_Pinned):
    """A prompt: where the registry keeps it, and the sha-256 of its text."""

    uri: str
    text_hash: str


class IndexPin(_Pinned):
    """The index generation that answers are retrieved from."""

    generation: str
    chunker: dict[str, Any]


class Manifest(_Pinned):
    """One release of one assistant; ids and hashes only, never text of documents or people.

    Two manifests with the same content have the same release id, on any machine.
    ``embedder``, ``index`` are None exactly when ``retrieval`` is ``{"kind": "none"}``.
    """

    schema_version: Literal[1] = 1
    assistant: str
    environment: str
    code_digest: str
    dirty: bool
    prompt: PromptPin
    generator: dict[str, Any]
    embedder: ArtifactPin | None
    index: IndexPin | None
    retrieval: dict[str, Any]
    evaluation_digest: str
    gate_digest: str
    authors: tuple[str, ...]

    @property
    def release_id(self) -> str:
        """Return the sha-256 of the canonical JSON, 64 hexadecimal digits."""
        return content_hash(self.model_dump(mode="json"))


def canonical_json(value: Any) -> str:
    """Return ``value`` as JSON with sorted keys, no spaces and no non-finite numbers.

    Equal values give equal text (after RFC 8785, restricted to what ``json`` writes alike everywhere).
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_hash(value: Any) -> str:
    """Return the sha-256 of a value's canonical JSON as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def parse_manifest(text: str, release_id: str) -> Manifest:
    """Return the manifest in ``text``; raise IntegrityError unless its hash is ``release_id``."""
    manifest = Manifest.model_validate_json(text)
    if manifest.release_id != release_id:
        raise IntegrityError(
            f"the manifest stored as release {release_id!r} hashes to {manifest.release_id!r}: "
            "it was changed after it was made; do not use it, assemble the release again"
        )
    return manifest
