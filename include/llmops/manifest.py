"""The release manifest: everything an assistant answers with, as pure data, and its canonical hash."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

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


def _representable(values: dict[str, Any]) -> dict[str, Any]:
    """Refuse a number that JSON cannot hold, which would be hashed as if it were null."""
    canonical_json(values)
    return values


_Settings = Annotated[dict[str, Any], AfterValidator(_representable)]


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
    chunker: _Settings


class Manifest(_Pinned):
    """One release of one assistant; ids and hashes only, never text of documents or people.

    Two manifests with the same content have the same release id, on any machine.
    ``embedder``, ``index`` are None exactly when ``retrieval`` is ``{"kind": "none"}``. ``commit`` is the last one
    that changed code, prompt or configuration, None without Git; ``committers`` wrote what changed since the
    release that was in production then, None where nobody can tell. ``authors`` are all people who may not approve:
    who started it, who wrote it, who trained its models.
    """

    schema_version: Literal[2] = 2
    assistant: str
    environment: str
    code_digest: str
    commit: str | None
    dirty: bool
    prompt: PromptPin
    generator: _Settings
    embedder: ArtifactPin | None
    index: IndexPin | None
    retrieval: _Settings
    guardrails: _Settings
    evaluation_digest: str
    prices_digest: str
    gate_digest: str
    committers: tuple[str, ...] | None
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
    """Return the manifest in ``text``; raise IntegrityError unless it is one whose hash is ``release_id``."""
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'text'}: {e['msg']}" for e in error.errors()[:5])
        raise IntegrityError(
            f"the manifest stored as release {release_id!r} is damaged ({wrong}): "
            "do not use it, assemble the release again"
        ) from error
    if manifest.release_id != release_id:
        raise IntegrityError(
            f"the manifest stored as release {release_id!r} hashes to {manifest.release_id!r}: "
            "it was changed after it was made; do not use it, assemble the release again"
        )
    return manifest
