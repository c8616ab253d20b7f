"""Azure's and Google's object stores through their fsspec file systems, folder by folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

from llmops.corpus._files import MAX_BYTES
from llmops.corpus._places import Place, enabled
from llmops.corpus._problems import Unreadable
from llmops.corpus._stores import StoredObject
from llmops.errors import LlmopsError, MissingInput

__all__ = ["AZURE_OPTIONS", "GOOGLE_OPTIONS", "FsspecStore", "azure", "google"]

AZURE_OPTIONS = ("account_host", "anon")
GOOGLE_OPTIONS = ("anon", "endpoint_url", "project", "requester_pays")


def azure(place: Place, options: Mapping[str, str]) -> FsspecStore:
    """Return the store of an address ``abfss://container@account.dfs.core.windows.net/prefix``."""
    container, _, rest = place.address.split("://", 1)[1].partition("@")
    host, _, prefix = rest.partition("/")
    module = _installed(place, "adlfs", "azure")
    system = module.AzureBlobFileSystem(
        account_name=host.partition(".")[0],
        # Without this it tries to read without credentials rather than look for any.
        anon=enabled(options, "anon"),
        use_listings_cache=False,
        skip_instance_cache=True,
        **({"account_host": options["account_host"]} if "account_host" in options else {}),
    )
    return FsspecStore(place, system, f"{container}/{prefix}".strip("/"))


def google(place: Place, options: Mapping[str, str]) -> FsspecStore:
    """Return the store of an address ``gs://bucket/prefix``."""
    module = _installed(place, "gcsfs", "google")
    named = {key: options[key] for key in ("endpoint_url", "project") if key in options}
    system = module.GCSFileSystem(
        token="anon" if enabled(options, "anon") else "google_default",
        requester_pays=enabled(options, "requester_pays"),
        use_listings_cache=False,
        skip_instance_cache=True,
        **named,
    )
    return FsspecStore(place, system, place.address.split("://", 1)[1].strip("/"))


def _installed(place: Place, module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingInput(
            f"source {place.source!r}: {place.address!r} needs the package {module!r}, which is not installed: "
            f"install llmops[{extra}]"
        ) from error


class FsspecStore:
    """What is below a folder of a file system of fsspec; ``root`` has no protocol."""

    def __init__(self, place: Place, system: Any, root: str) -> None:
        self._place, self._system, self._root = place, system, root

    def folders(self) -> Iterator[str]:
        """Yield the names of the folders at the top."""
        for entry in self._listed(self._root, self._place):
            if entry["type"] == "directory":
                yield _name(entry)

    def objects(self, folder: str) -> Iterator[StoredObject]:
        """Yield all objects below a folder, with one folder in memory at a time."""
        top = f"{self._root}/{folder}" if folder else self._root
        waiting = [top]
        while waiting:
            at = waiting.pop()
            folders = []
            for entry in self._listed(at, self._place if at == top else None):
                if entry["type"] == "directory":
                    folders.append(f"{at}/{_name(entry)}")
                else:
                    yield _object(entry, top)
            waiting += reversed(folders)

    def holds(self, path: str) -> bool:
        """Return whether there is an object at a path."""
        try:
            with self._errors(self._place):
                # Not isfile(), to which an error of any kind is a no.
                return bool(self._system.info(f"{self._root}/{path}")["type"] == "file")
        except FileNotFoundError:
            return False

    def read(self, found: StoredObject) -> bytes:
        """Return an object's bytes; what changed while it was read is not one revision or the other."""
        place = self._place.of(found.path)
        try:
            with self._errors(place):
                content = self._system.cat_file(found.key, start=0, end=MAX_BYTES + 1) if found.size else b""
                after = _revision(self._system.info(found.key))
        except FileNotFoundError as error:
            raise Unreadable("it was removed while its source was being read") from error
        if len(content) != found.size or after != found.revision:
            raise place.unavailable("it changed while its source was being read")
        return bytes(content)

    def _listed(self, folder: str, expected: Place | None) -> list[dict[str, Any]]:
        """Return what a folder holds, sorted; a folder that goes while its parent is read is an error too."""
        try:
            with self._errors(self._place):
                entries = self._system.ls(folder, detail=True)
        except FileNotFoundError as error:
            if expected is not None:
                raise expected.missing(error) from error
            raise self._place.unavailable(f"{folder!r} went while it was being listed") from error
        # Some list a folder's own marker, which is no object of it.
        inside = [e for e in entries if e["name"].rstrip("/") != folder.rstrip("/")]
        return sorted(inside, key=lambda entry: str(entry["name"]))

    @contextmanager
    def _errors(self, place: Place) -> Iterator[None]:
        """Raise what the file systems raise as an error of ours; FileNotFoundError goes through."""
        try:
            yield
        except (FileNotFoundError, LlmopsError):
            raise
        except (
            Exception
        ) as error:  # The edge to libraries that may not be installed, so cannot be named here.
            raise _classified(place, error) from error


def _classified(place: Place, error: Exception) -> Exception:
    """Return the error of ours by the status that Azure's and Google's errors carry, or by what they are called."""
    status = getattr(error, "status_code", None) or getattr(error, "code", None)
    name = type(error).__name__
    if status in (401, 403, "401", "403") or isinstance(error, PermissionError):
        return place.denied(error)
    if "Credential" in name or "Authentication" in name or "RefreshError" in name:
        return place.denied(error)
    if status in (400, "400") or isinstance(error, ValueError):
        return place.wrong(error)
    return place.unavailable(error)


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry["name"]).rstrip("/").rpartition("/")[2]


def _revision(entry: Mapping[str, Any]) -> str | None:
    """Return the entity tag, the digest or the generation of an object; a time alone is none of them."""
    settings = entry.get("content_settings")
    digest = settings.get("content_md5") if isinstance(settings, Mapping) else None
    found = entry.get("etag") or entry.get("md5Hash") or digest or entry.get("generation")
    found = found.hex() if isinstance(found, (bytes, bytearray)) else found
    return str(found).strip('"') if found else None


def _object(entry: Mapping[str, Any], top: str) -> StoredObject:
    changed = entry.get("last_modified") or entry.get("mtime") or entry.get("updated")
    if isinstance(changed, str):
        changed = datetime.fromisoformat(changed)
    if not isinstance(changed, datetime):
        changed = None
    elif changed.tzinfo is None:
        changed = changed.replace(tzinfo=UTC)
    name = str(entry["name"])
    return StoredObject(
        path=name.removeprefix(top).lstrip("/"),
        key=name,
        size=int(entry["size"]),
        revision=_revision(entry),
        changed=changed,
    )
