"""Documents from a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from llmops.corpus._files import MAX_BYTES, Globs, Snapshot, SourceFile, SourceSettings, matches
from llmops.errors import ConfigurationError, MissingInput
from llmops.settings import include_root

if TYPE_CHECKING:
    from llmops.corpus._sandbox import Sandbox

__all__ = ["DirectorySource"]


class DirectorySource(SourceSettings):
    """All files below a folder, as they are now whatever the run's date.

    ``include`` and ``exclude`` are globs on the path within the folder (``**`` crosses folders).
    A relative ``path`` starts at the checkout. Hidden files and folders are left out; a symbolic link
    that leaves the folder is refused and listed in quarantine.
    """

    kind: Literal["directory"]
    path: str
    include: Globs = Field(default=["**/*"])
    exclude: Globs = Field(default=[])

    divisible: ClassVar[bool] = True

    def pinned(self, as_of: datetime) -> str | None:
        """Return None: the source has no state to fix."""
        return None

    def discover(
        self, as_of: datetime, *, pin: str | None = None, sandbox: Sandbox | None = None
    ) -> Snapshot:
        """Return the folder's files, sorted by path.

        Raises MissingInput when there is no such folder and ConfigurationError when it is a file.
        """
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
        return Snapshot(as_of, self._files(root.resolve()))

    def _files(self, root: Path) -> Iterator[SourceFile]:
        for folder, folders, names in os.walk(root, onerror=self._refuse):
            links = [name for name in folders if (Path(folder) / name).is_symlink()]
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in links)
            for name in sorted([*names, *links]):
                file = Path(folder) / name
                path = file.relative_to(root).as_posix()
                if not name.startswith(".") and matches(path, self.include, self.exclude):
                    yield _file(root, file, path)

    def _refuse(self, error: OSError) -> None:
        raise MissingInput(
            f"source {self.name!r}: the folder {error.filename!r} cannot be read ({error.strerror}): "
            "give this process the right to read it, or exclude it"
        ) from error


def _file(root: Path, file: Path, path: str) -> SourceFile:
    problem = _problem(root, file)
    size = 0 if problem else file.stat().st_size
    if size > MAX_BYTES:
        problem = f"it has {size:,} bytes, more than the {MAX_BYTES:,} a document may have: split it"
    shown = path.encode("utf-8", "backslashreplace").decode()
    return SourceFile(
        path=shown,
        size=size,
        read=file.read_bytes,
        problem=problem if shown == path else "its name is not valid UTF-8: rename it",
    )


def _problem(root: Path, file: Path) -> str | None:
    """Return why a file must not be opened, None when it may be."""
    try:
        target = file.resolve(strict=True)
    except (OSError, RuntimeError):
        return "it is a symbolic link to nothing"
    if not target.is_relative_to(root):
        return "it is a symbolic link that leaves the folder of its source: put a copy there instead"
    if file.is_symlink() and target.is_dir():
        return "it is a symbolic link to a folder: links to folders are not followed"
    return None if target.is_file() else "it is not a regular file"
