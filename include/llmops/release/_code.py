"""The digest of the code that answers, and whether it was committed."""

from __future__ import annotations

import functools
import hashlib
import logging
import subprocess
from pathlib import Path

import llmops
from llmops.settings import include_root

log = logging.getLogger(__name__)

_GIT_SECONDS = 60.0
_CODE = (".py", ".sql", ".json", ".yaml", ".typed")


@functools.cache
def code_digest() -> str:
    """Return the sha-256 over every file of the installed package and over ``requirements.txt``.

    Paths relative to the package and contents are hashed, so that the same code gives the same digest
    in a checkout, an image and a wheel.
    """
    package = Path(llmops.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(p for p in package.rglob("*") if p.is_file() and p.suffix in _CODE):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    lock = include_root().parent / "requirements.txt"
    if lock.is_file():
        digest.update(hashlib.sha256(lock.read_bytes()).digest())
    return digest.hexdigest()


def is_dirty() -> bool:
    """Return whether the checkout has changes that are not committed; an image without Git is clean.

    A checkout that Git cannot tell about counts as dirty: Git is not installed, fails or takes too long.
    """
    root = include_root().parent
    if not (root / ".git").exists():
        return False
    command = ["git", "-C", str(root), "status", "--porcelain", "--", "include", "dags", "plugins"]
    command += ["requirements.txt"]
    try:
        status = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_GIT_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning(
            "Git cannot tell whether %s has uncommitted changes, so it counts as dirty: %s", root, error
        )
        return True
    return status.returncode != 0 or bool(status.stdout.strip())
