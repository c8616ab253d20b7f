"""Documents from a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NoReturn

from pydantic import Field

from llmops.corpus._drops import Drop, DropSettings
from llmops.corpus._files import Globs, Snapshot, SourceFile, matches
from llmops.errors import ConfigurationError, MissingInput
from llmops.settings import include_root

if TYPE_CHECKING:
    from llmops.corpus._sandbox import Sandbox

__all__ = ["DirectorySource"]


class DirectorySource(DropSettings):
    """All files below a folder: as they are now, or with ``layout: dated`` as of the run's date.

    ``include`` and ``exclude`` are globs on the path within the folder (``**`` crosses folders).
    A relative ``path`` starts at the checkout. Hidden files and folders are left out; a symbolic link
    that leaves the folder is refused and listed in quarantine.

    ``layout: dated`` means one folder per date, ``YYYY-MM-DD``, each with the whole source as it was delivered
    that day; the newest whose date had begun by the run's date counts. Where ``complete_marker`` names a file, only
    folders that hold it count: write it last, so that half a delivery is never read.
    """

    divisible: ClassVar[bool] = True

    kind: Literal["directory"]
    path: str
    include: Globs = Field(default=["**/*"])
    exclude: Globs = Field(default=[])

    def pinned(self, as_of: datetime) -> str | None:
        """Return the name of the dated folder that counts, None where there are none."""
        return None if self.layout == "latest" else self._folder(self._root(), as_of, None).name

    def discover(
        self, as_of: datetime, *, pin: str | None = None, sandbox: Sandbox | None = None
    ) -> Snapshot:
        """Return the folder's files, sorted by path.

        Raises MissingInput when there is no such folder, or none of a date that early, and ConfigurationError
        when it is a file.
        """
        root = self._root()
        if self.layout == "latest":
            return Snapshot(as_of, self._files(root))
        drop = self._folder(root, as_of, pin)
        return Snapshot(drop.date, self._files(root / drop.name), dated=True)

    def _root(self) -> Path:
        root = include_root().parent / Path(self.path).expanduser()
        if not root.exists():
            raise MissingInput(
                f"source {self.name!r}: the folder {str(root)!r} does not exist: correct `path`, or create it"
            )
        if not root.is_dir():
            raise ConfigurationError(
                f"source {self.name!r}: {str(root)!r} is not a folder: "
                "name the folder that holds the file and use `include`"
            )
        return root.resolve()

    def _folder(self, root: Path, as_of: datetime, pin: str | None) -> Drop:
        try:
            with os.scandir(root) as entries:
                names = [e.name for e in entries if e.is_dir(follow_symlinks=False) and e.name[0] != "."]
        except OSError as error:
            self._refuse(error)
        return self._drop(str(root), names, as_of, pin, lambda path: (root / path).is_file())

    def _files(self, root: Path) -> Iterator[SourceFile]:
        for entry in self._entries(str(root)):
            path = entry.path[len(str(root)) + 1 :]
            if path != self.complete_marker and matches(path, self.include, self.exclude):
                yield _file(root, entry, path)

    def _entries(self, folder: str) -> Iterator[os.DirEntry[str]]:
        """Yield everything below a folder that is not hidden and no folder itself, folder by folder."""
        try:
            with os.scandir(folder) as found:
                entries = sorted((e for e in found if e.name[0] != "."), key=lambda entry: entry.name)
        except OSError as error:
            self._refuse(error)
        folders = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
        yield from (entry for entry in entries if not entry.is_dir(follow_symlinks=False))
        for entry in folders:
            yield from self._entries(entry.path)

    def _refuse(self, error: OSError) -> NoReturn:
        raise MissingInput(
            f"source {self.name!r}: the folder {error.filename!r} cannot be read ({error.strerror}): "
            "give this process the right to read it, or exclude it"
        ) from error


def _file(root: Path, entry: os.DirEntry[str], path: str) -> SourceFile:
    problem = _problem(root, entry)
    shown = path.encode("utf-8", "backslashreplace").decode()
    return SourceFile(
        path=shown,
        size=0 if problem else entry.stat().st_size,
        read=Path(entry.path).read_bytes,
        problem=problem if shown == path else "its name is not valid UTF-8: rename it",
    )


def _problem(root: Path, entry: os.DirEntry[str]) -> str | None:
    """Return why a file must not be opened, None when it may be; its folder is below the root and no link."""
    if not entry.is_symlink():
        return None if entry.is_file() else "it is not a regular file"
    try:
        target = Path(entry.path).resolve(strict=True)
    except (OSError, RuntimeError):
        return "it is a symbolic link to nothing"
    if not target.is_relative_to(root):
        return "it is a symbolic link that leaves the folder of its source: put a copy there instead"
    if target.is_dir():
        return "it is a symbolic link to a folder: links to folders are not followed"
    return None if target.is_file() else "it is not a regular file"
