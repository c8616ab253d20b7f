"""Object stores in one shape: folders at the top, objects below, and their bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

__all__ = ["Store", "StoredObject"]


@dataclass(frozen=True)
class StoredObject:
    """An object as it was listed.

    ``path`` is relative to what was listed, ``key`` what the store itself calls the object. ``revision`` is an
    entity tag, a digest or a generation; None where the store has a modification time alone. ``problem`` says
    why the object cannot be read.
    """

    path: str
    key: str
    size: int
    revision: str | None = None
    changed: datetime | None = None
    problem: str | None = None


class Store(Protocol):
    """A part of an object store.

    Every method raises ServiceUnavailable when the store does not answer (after the retries of its own
    library), ConfigurationError when it refuses, MissingInput when the part, or its bucket, does not exist.
    """

    def folders(self) -> Iterator[str]:
        """Yield the names of the folders at the top."""

    def objects(self, folder: str) -> Iterator[StoredObject]:
        """Yield all objects below a folder, ``""`` for the top, page by page; never ends early without an error."""

    def holds(self, path: str) -> bool:
        """Return whether there is an object at a path."""

    def read(self, found: StoredObject) -> bytes:
        """Return an object's bytes as they were when it was listed.

        Raises Unreadable where it is gone or too large, ServiceUnavailable where it has changed since.
        """
