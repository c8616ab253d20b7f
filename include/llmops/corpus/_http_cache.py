"""Pages as they were last answered, so that an unchanged one is asked for and not sent again."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Cached", "HttpCache"]

log = logging.getLogger(__name__)

_DRAFT_SECONDS = 86_400


@dataclass(frozen=True)
class Cached:
    """A page's body and what its server said about it, None where it said nothing."""

    content: bytes
    etag: str | None
    last_modified: str | None
    content_type: str | None

    def conditions(self) -> dict[str, str]:
        """Return the headers that ask for the page only if it has changed."""
        found = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {key: value for key, value in found.items() if value}


class HttpCache:
    """A folder with one file per page. A file that is gone or damaged costs one request, nothing else."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._used: set[str] = set()

    def load(self, url: str) -> Cached | None:
        """Return what is held of a page, None when there is nothing, or nothing whole."""
        file = self._file(url)
        try:
            head, _, content = file.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("The cached page %s cannot be read: %s", file, error.strerror)
            return None
        try:
            values = json.loads(head)
            held = Cached(content, values["etag"], values["last_modified"], values["content_type"])
            whole = values["url"] == url and values["sha256"] == hashlib.sha256(content).hexdigest()
        except (ValueError, KeyError, TypeError):
            whole = False
        return held if whole else None

    def store(self, url: str, page: Cached) -> None:
        """Keep a page; half a file is never seen, whoever else writes here."""
        values = asdict(page) | {"url": url, "sha256": hashlib.sha256(page.content).hexdigest()}
        del values["content"]
        file = self._file(url)
        draft = file.with_suffix(f".{os.getpid()}")
        try:
            if not page.conditions():
                file.unlink(missing_ok=True)
                return
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft.write_bytes(json.dumps(values).encode() + b"\n" + page.content)
            draft.replace(file)
        except OSError as error:
            log.warning("The page %s is not cached: %s", url, error.strerror)

    def forget_unused(self) -> None:
        """Remove the pages that were neither loaded nor stored since this object was made.

        Drafts of other processes are left alone until they are a day old.
        """
        if self._folder.is_dir():
            for file in self._folder.iterdir():
                young = file.suffix and time.time() - file.stat().st_mtime < _DRAFT_SECONDS
                if file.name not in self._used and not young:
                    file.unlink(missing_ok=True)

    def _file(self, url: str) -> Path:
        name = hashlib.sha256(url.encode()).hexdigest()
        self._used.add(name)
        return self._folder / name
