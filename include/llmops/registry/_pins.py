"""Digests of a model's files: how they are taken, and how they are checked."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

from llmops.errors import IntegrityError, MissingInput
from llmops.manifest import content_hash

__all__ = ["check_files", "file_digests", "fingerprint"]

_COMPUTING = ("embedder.json", "model.onnx", "tokenizer.json")


def fingerprint(files: Mapping[str, str]) -> str:
    """Return the sha-256 over the digests of the files that decide what a model computes.

    For an embedder those are its graph, its tokenizer and its description; for anything else all files.
    ``files`` maps names to sha-256 digests.
    """
    decisive = set(_COMPUTING) <= set(files)
    return content_hash({name: files[name] for name in (_COMPUTING if decisive else files)})


def file_digests(folder: Path) -> dict[str, str]:
    """Return the sha-256 of every file below ``folder`` by its path, with ``/`` between parts.

    Raises MissingInput when there is no file, IntegrityError when there is a link or a device.
    """
    digests = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise IntegrityError(f"{name!r} in {str(folder)!r} is a link or no plain file: remove it")
        if path.is_file():
            with path.open("rb") as file:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    if not digests:
        raise MissingInput(f"no files in {str(folder)!r}: there is no model to pin")
    return digests


def check_files(folder: Path, expected: Mapping[str, str], tolerated: Collection[str], what: str) -> None:
    """Raise IntegrityError unless ``folder`` holds exactly the expected files, besides tolerated names."""
    found = file_digests(folder)
    changed = sorted(name for name in expected if name in found and found[name] != expected[name])
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys() - set(tolerated))
    if changed or missing or extra:
        raise IntegrityError(
            f"{what} in {str(folder)!r} differs from its pin: changed {changed!r}, missing {missing!r}, "
            f"extra {extra!r}. Nothing was read from it"
        )
