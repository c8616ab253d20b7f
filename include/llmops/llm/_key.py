"""The key of an endpoint, read from a file so that it is in no variable, argument or log."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

from llmops.errors import ConfigurationError

__all__ = ["read_key"]

log = logging.getLogger(__name__)

_LONGEST = 4096


def read_key(path: Path) -> str:
    """Return the key in a file; warn when the file can be read by others than its owner.

    Mounted secrets are often readable by a group, so this warns instead of refusing. Raises
    ConfigurationError, which never quotes the content, when the file is missing, empty, larger than
    4 KiB, or holds anything but one word of printable ASCII.
    """
    try:
        mode = path.stat().st_mode
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
    except OSError as error:
        raise ConfigurationError(
            f"key file {str(path)!r} cannot be read ({error.strerror}): put the key into it, mode 600"
        ) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        log.warning("Key file %s can be used by others than its owner: run `chmod 600` on it", path)
    key = content.strip()
    if not key or len(content) > _LONGEST or any(not 0x21 <= byte <= 0x7E for byte in key):
        raise ConfigurationError(
            f"key file {str(path)!r} must hold one key and nothing else: printable ASCII, at most 4 KiB"
        )
    return key.decode("ascii")
