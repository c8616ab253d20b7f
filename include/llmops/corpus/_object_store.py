"""Documents from an object store: S3, Azure, Google Cloud, or a Unity Catalog volume."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from llmops.corpus import _fsspec, _s3, _volumes
from llmops.corpus._directory import DirectorySource
from llmops.corpus._drops import DropSettings
from llmops.corpus._files import MAX_BYTES, Globs, Snapshot, SourceFile, matches, name_problem
from llmops.corpus._places import Options, Place, without_secrets
from llmops.corpus._stores import Store, StoredObject

if TYPE_CHECKING:
    from llmops.corpus._sandbox import Sandbox

__all__ = ["ObjectStoreSource"]

_BUCKET = re.compile(r"(?:s3|gs)://[A-Za-z0-9][A-Za-z0-9._-]{1,221}(?:/.*)?")
_AZURE = re.compile(r"abfss://[a-z0-9$-]{3,63}@[a-z0-9]{3,24}\.[a-z0-9.-]+(?:/.*)?")


def _is_a_store(address: str) -> str:
    without_secrets(address)
    known = _BUCKET.fullmatch(address) or _AZURE.fullmatch(address) or _volumes.volume_path(address)
    if not known:
        raise ValueError(
            "must be s3://bucket/prefix, abfss://container@account.dfs.core.windows.net/prefix, gs://bucket/prefix "
            "or /Volumes/catalog/schema/volume/path; a folder is a source of kind 'directory'"
        )
    return address


class ObjectStoreSource(DropSettings):
    """All objects below a prefix: as they are now, or with ``layout: dated`` as of the run's date.

    ``url`` is ``s3://bucket/prefix``, ``abfss://container@account.dfs.core.windows.net/prefix`` (needs
    ``llmops[azure]``), ``gs://bucket/prefix`` (needs ``llmops[google]``) or a Unity Catalog volume,
    ``/Volumes/catalog/schema/volume/path``. Credentials come from the environment or the machine's role, as the
    provider's own tools find them; ``storage_options`` has what is no secret, such as ``region``, ``endpoint_url``,
    ``profile`` or ``anon: "true"`` for a public bucket. ``include`` and ``exclude`` are globs on the path below the
    prefix; names that start with a dot are left out.

    ``layout: dated`` means one folder per date, ``YYYY-MM-DD``, each with the whole source as it was delivered
    that day; the newest that is not after the run's date counts. Where ``complete_marker`` names an object, only
    folders that hold it count: write it last, so that half a delivery is never read.
    """

    divisible: ClassVar[bool] = True

    kind: Literal["object_store"]
    url: Annotated[str, AfterValidator(_is_a_store)]
    include: Globs = Field(default=["**/*"])
    exclude: Globs = Field(default=[])
    storage_options: Options = Field(default={})

    @model_validator(mode="after")
    def _options_are_known(self) -> Self:
        known = {"s3": _s3.S3_OPTIONS, "abfss": _fsspec.AZURE_OPTIONS, "gs": _fsspec.GOOGLE_OPTIONS}.get(
            self.url.partition("://")[0], _volumes.VOLUME_OPTIONS
        )
        unknown = sorted(set(self.storage_options) - set(known))
        if unknown:
            raise ValueError(
                f"`storage_options` has {unknown}, which {self.url!r} does not know: use {list(known)}"
            )
        return self

    def pinned(self, as_of: datetime) -> str | None:
        """Return the name of the dated folder that counts, None where there are none."""
        if self.layout == "latest":
            return None
        if folder := self._mounted():
            return folder.pinned(as_of)
        store = self._store()
        return self._drop(self.url, _visible(store.folders()), as_of, None, store.holds).name

    def discover(
        self, as_of: datetime, *, pin: str | None = None, sandbox: Sandbox | None = None
    ) -> Snapshot:
        """Return the objects below the prefix, listed page by page while they are iterated.

        Raises MissingInput when there is nothing (of a date that early), ConfigurationError when the store refuses,
        ServiceUnavailable when it does not answer; the last two while iterating, too.
        """
        if folder := self._mounted():
            return folder.discover(as_of, pin=pin)
        store = self._store()
        if self.layout == "latest":
            return Snapshot(as_of, self._files(store, ""))
        drop = self._drop(self.url, _visible(store.folders()), as_of, pin, store.holds)
        return Snapshot(drop.date, self._files(store, drop.name), dated=True)

    def _mounted(self) -> DirectorySource | None:
        """Return a volume as the folder that it is on a machine of Databricks."""
        path = _volumes.volume_path(self.url)
        folder = _volumes.mounted(path) if path else None
        if folder is None:
            return None
        shared = self.model_dump(exclude={"kind", "url", "storage_options"})
        return DirectorySource(kind="directory", path=str(folder), **shared)

    def _store(self) -> Store:
        place = Place(self.name, self.url)
        scheme = self.url.partition("://")[0]
        if scheme == "s3":
            return _s3.S3Store(place, self.storage_options)
        if scheme == "abfss":
            return _fsspec.azure(place, self.storage_options)
        if scheme == "gs":
            return _fsspec.google(place, self.storage_options)
        return _volumes.VolumeStore(place, self.storage_options)

    def _files(self, store: Store, folder: str) -> Iterator[SourceFile]:
        empty = True
        for found in store.objects(folder):
            empty = False
            if found.path != self.complete_marker and self._wants(found.path):
                yield _file(store, found)
        if empty:
            # To a store, an empty prefix and a misspelt one are the same.
            raise Place(self.name, self.url).of(folder).missing("not one object")

    def _wants(self, path: str) -> bool:
        hidden = any(part.startswith(".") for part in path.split("/"))
        return not hidden and matches(path, self.include, self.exclude)


def _visible(folders: Iterator[str]) -> Iterator[str]:
    return (name for name in folders if not name.startswith("."))


def _file(store: Store, found: StoredObject) -> SourceFile:
    problem = found.problem or name_problem(found.path)
    if found.size > MAX_BYTES:
        problem = f"it has {found.size:,} bytes, more than the {MAX_BYTES:,} a document may have: split it"
    return SourceFile(
        path=found.path.encode("unicode_escape").decode() if name_problem(found.path) else found.path,
        size=found.size,
        read=lambda: store.read(found),
        source_date=found.changed,
        problem=problem,
        revision=found.revision,
    )
