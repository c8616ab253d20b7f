"""Unity Catalog volumes through the Files API of Databricks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmops.corpus._files import MAX_BYTES
from llmops.corpus._places import Place
from llmops.corpus._problems import Unreadable
from llmops.corpus._stores import StoredObject

__all__ = ["VOLUME_OPTIONS", "VolumeStore", "mounted", "volume_path"]

VOLUME_OPTIONS = ("profile",)

MOUNT = Path("/Volumes")
"""Where Databricks mounts volumes on its own machines."""

_VOLUME = re.compile(r"(?:dbfs:)?(?P<path>/Volumes(?:/[^/]+){3,})/?")
_RETRY_SECONDS = 60
_TIMEOUT_SECONDS = 60


def volume_path(address: str) -> str | None:
    """Return ``/Volumes/catalog/schema/volume/...`` of an address, None when it names no volume."""
    found = _VOLUME.fullmatch(address)
    return None if found is None or ".." in found["path"].split("/") else found["path"]


def mounted(path: str) -> Path | None:
    """Return the folder of a volume where volumes are mounted, None elsewhere."""
    return MOUNT / path.removeprefix("/Volumes/") if MOUNT.is_dir() else None


class VolumeStore:
    """What is below a folder of a volume; who may read it is what the Databricks SDK finds in the environment."""

    def __init__(self, place: Place, options: Mapping[str, str]) -> None:
        from databricks.sdk import WorkspaceClient
        from databricks.sdk.config import Config

        self._place = place
        self._root = volume_path(place.address) or place.address
        with self._errors(place):
            config = Config(
                profile=options.get("profile"),
                retry_timeout_seconds=_RETRY_SECONDS,
                http_timeout_seconds=_TIMEOUT_SECONDS,
            )
            self._files = WorkspaceClient(config=config).files

    def folders(self) -> Iterator[str]:
        """Yield the names of the folders at the top."""
        for entry in self._listed(self._root, self._place):
            if entry.is_directory:
                yield str(entry.name)

    def objects(self, folder: str) -> Iterator[StoredObject]:
        """Yield all files below a folder, with one folder in memory at a time."""
        top = f"{self._root}/{folder}" if folder else self._root
        waiting = [top]
        while waiting:
            at = waiting.pop()
            entries = self._listed(at, self._place if at == top else None)
            for entry in entries:
                if not entry.is_directory:
                    yield _object(entry, top)
            waiting += [str(entry.path) for entry in reversed(entries) if entry.is_directory]

    def holds(self, path: str) -> bool:
        """Return whether there is a file at a path."""
        try:
            with self._errors(self._place):
                self._files.get_metadata(f"{self._root}/{path}")
        except FileNotFoundError:
            return False
        return True

    def read(self, found: StoredObject) -> bytes:
        """Return a file's bytes."""
        try:
            with self._errors(self._place.of(found.path)), closing(self._opened(found.key)) as body:
                content = bytes(body.read(MAX_BYTES + 1))
        except FileNotFoundError as error:
            raise Unreadable("it was removed while its source was being read") from error
        if len(content) > MAX_BYTES:
            raise Unreadable(
                f"it has more than the {MAX_BYTES:,} bytes a document may have: split it", "too_large"
            )
        if len(content) != found.size:
            raise self._place.of(found.path).unavailable("it changed while its source was being read")
        return content

    def _opened(self, key: str) -> Any:
        return self._files.download(key).contents

    def _listed(self, folder: str, expected: Place | None) -> list[Any]:
        try:
            with self._errors(self._place):
                entries = list(self._files.list_directory_contents(folder))
        except FileNotFoundError as error:
            if expected is not None:
                raise expected.missing(error) from error
            raise self._place.unavailable(f"{folder!r} went while it was being listed") from error
        return sorted(entries, key=lambda entry: str(entry.path))

    @contextmanager
    def _errors(self, place: Place) -> Iterator[None]:
        """Raise what the SDK raises as an error of ours; a 404 as FileNotFoundError."""
        from databricks.sdk.errors import (
            BadRequest,
            DatabricksError,
            NotFound,
            PermissionDenied,
            Unauthenticated,
        )
        from requests import RequestException

        try:
            yield
        except NotFound as error:
            raise FileNotFoundError(str(error)) from error
        except (PermissionDenied, Unauthenticated) as error:
            raise place.denied(error) from error
        except BadRequest as error:
            raise place.wrong(error) from error
        except (DatabricksError, RequestException, OSError) as error:
            raise place.unavailable(error) from error
        except ValueError as error:  # The SDK's own: no credentials, or no such profile.
            raise place.denied(error) from error


def _object(entry: Any, top: str) -> StoredObject:
    """Return a file as it is listed; the API has a time of modification alone, which is no revision."""
    changed = datetime.fromtimestamp(entry.last_modified / 1000, UTC) if entry.last_modified else None
    path = str(entry.path)
    return StoredObject(
        path=path.removeprefix(top).lstrip("/"),
        key=path,
        size=int(entry.file_size or 0),
        changed=changed,
    )
