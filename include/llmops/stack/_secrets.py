"""Generated secrets in a file that only its owner can read."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from llmops.errors import ConfigurationError

__all__ = ["load_secrets", "write_private"]


def load_secrets(file: Path, sizes: Mapping[str, int]) -> dict[str, str]:
    """Return a secret for each name in ``sizes``, generating and storing those that ``file`` lacks.

    A size is a number of random bytes; a secret is their URL-safe text.
    """
    known: dict[str, str] = {}
    if file.exists():
        try:
            known = json.loads(file.read_text("utf-8"))
        except json.JSONDecodeError as error:
            raise ConfigurationError(
                f"{file} is damaged ({error}): restore it, or delete it to have new passwords generated"
            ) from error
    missing = {name: size for name, size in sizes.items() if name not in known}
    if missing:
        known.update({name: secrets.token_urlsafe(size) for name, size in missing.items()})
        write_private(file, json.dumps(known, indent=2))
    return known


def write_private(file: Path, text: str) -> None:
    """Replace ``file`` by ``text`` at once; nobody but the owner can ever read it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, file)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
