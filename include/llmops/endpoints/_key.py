"""The key of an endpoint, from a file or a variable, so that it is in no configuration, argument or log."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

from llmops.errors import ConfigurationError
from llmops.settings import environ, include_root

__all__ = ["find_key", "read_key"]

log = logging.getLogger(__name__)

_LONGEST = 4096


def find_key(file: str | None, variable: str | None = None) -> str | None:
    """Return the key in ``file``, relative to the checkout or absolute, or in an environment variable.

    None when neither is named; ConfigurationError, which never quotes the content, for what is no key.
    """
    if file is not None:
        path = Path(file).expanduser()
        return read_key(path if path.is_absolute() else include_root().parent / path)
    if variable is None:
        return None
    value = environ().get(variable)
    if value is None:
        raise ConfigurationError(f"the environment variable {variable!r} is not set: put the key into it")
    return _one_word(value.encode(errors="surrogateescape"), f"the environment variable {variable!r}")


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
    return _one_word(content, f"key file {str(path)!r}")


def _one_word(content: bytes, where: str) -> str:
    key = content.strip()
    if not key or len(content) > _LONGEST or any(not 0x21 <= byte <= 0x7E for byte in key):
        raise ConfigurationError(
            f"{where} must hold one key and nothing else: printable ASCII, at most 4 KiB"
        )
    return key.decode("ascii")
