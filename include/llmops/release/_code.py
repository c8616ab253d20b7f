"""The digest of the code that answers, whether it was committed, and by whom."""

from __future__ import annotations

import functools
import hashlib
import logging
import subprocess
from pathlib import Path

import llmops
from llmops.settings import environ, include_root

log = logging.getLogger(__name__)

_GIT_SECONDS = 60.0
_CODE = (".py", ".sql", ".json", ".yaml", ".typed")
_ANSWERS = ("include", "dags", "plugins", "requirements.txt")
"""What decides how an assistant answers: code, prompts and configuration."""


def code_digest() -> str:
    """Return the sha-256 over every file of the installed package and over ``requirements.txt``.

    Paths relative to the package and contents are hashed, so that the same code gives the same digest
    in a checkout, an image and a wheel. A process keeps the digest of its first call.
    """
    return _digest(Path(llmops.__file__).parent, include_root().parent / "requirements.txt")


@functools.cache
def _digest(package: Path, lock: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in package.rglob("*") if p.is_file() and p.suffix in _CODE):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    if lock.is_file():
        digest.update(hashlib.sha256(lock.read_bytes()).digest())
    return digest.hexdigest()


def is_dirty() -> bool:
    """Return whether the checkout has changes that are not committed; an image without Git is clean.

    A checkout that Git cannot tell about counts as dirty: Git is not installed, fails or takes too long.
    """
    if not _is_checkout():
        return False
    status = _git("status", "--porcelain", "--", *_ANSWERS)
    if status is None:
        log.warning(
            "%s counts as dirty: Git cannot tell whether everything is committed", include_root().parent
        )
    return status is None or bool(status.strip())


def commit() -> str | None:
    """Return the last commit that changed code, prompt or configuration; None where nobody can tell.

    An image has no Git: there ``LLMOPS_COMMIT`` says it.
    """
    if not _is_checkout():
        return environ().get("LLMOPS_COMMIT") or None
    found = _git("log", "-1", "--format=%H", "--", *_ANSWERS)
    return (found or "").strip() or None


def committers(since: str | None) -> tuple[str, ...] | None:
    """Return the e-mail addresses of all who wrote what differs in code, prompt or configuration from a commit.

    Authors, committers and co-authors of every commit that only one of the two has count: going back to older code
    takes away what others wrote, which is a change too. None for ``since`` takes the last commit alone: before the
    first release there is nothing to compare with. Returns None where nobody can tell, as where this clone does not
    have the commit; an image has no Git, there ``LLMOPS_COMMITTERS`` (separated by commas) says it.
    """
    if not _is_checkout():
        named = environ().get("LLMOPS_COMMITTERS", "")
        return tuple(sorted({name.strip().lower() for name in named.split(",") if name.strip()})) or None
    # A merge may drop what one side wrote: the full history has that side's commits, and the merge, all the same.
    span = ["-1"] if since is None else ["--full-history", f"{since}...HEAD"]
    trailers = "%(trailers:key=Co-authored-by,valueonly,unfold)"
    found = _git("log", *span, f"--format=%ae%n%ce%n{trailers}", "--", *_ANSWERS)
    if found is None:
        return None
    lines = {line.strip().rpartition("<")[2].rstrip(">").lower() for line in found.splitlines()}
    return tuple(sorted(lines - {""}))


def _is_checkout() -> bool:
    return (include_root().parent / ".git").exists()


def _git(*arguments: str) -> str | None:
    """Return what Git says about the checkout, None (and a warning) when it fails, is not there or takes too long."""
    root = include_root().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True, text=True, check=True, timeout=_GIT_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        log.warning("Git cannot tell about %s (%s): %s", root, arguments[0], error)
        return None
    return done.stdout
