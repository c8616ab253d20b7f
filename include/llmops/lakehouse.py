"""Delta tables: upserts by key that write only what changed, and the feed of those changes."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmops.database import advisory_lock
from llmops.errors import ConfigurationError, MissingInput, ServiceUnavailable, WriteConflict

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

__all__ = ["Changes", "LakeTable", "MergeCounts"]

log = logging.getLogger(__name__)

_CONFIGURATION = {
    "delta.enableChangeDataFeed": "true",
    "delta.deletedFileRetentionDuration": "interval 30 days",
    "delta.logRetentionDuration": "interval 30 days",
}
_KEEP_FILES = timedelta(days=30)
_KEY = "llmops.key"
_NOTE = "llmops.note"
_BATCH_ROWS = 4096
_ROW_GROUP = 16_384
"""Rows are read in pieces of a row group, so small groups bound what a reader holds."""
_OPERATION = "_operation"
_UPSERT, _DELETE = "upsert", "delete"
_FEED_COLUMNS = ("_change_type", "_commit_version", "_commit_timestamp")
_ATTEMPTS = 5


@dataclass(frozen=True)
class MergeCounts:
    """What a merge changed, and the version the table has afterwards."""

    inserted: int
    updated: int
    deleted: int
    version: int

    @property
    def written(self) -> int:
        """Return the number of rows the merge touched; 0 means that it wrote no version."""
        return self.inserted + self.updated + self.deleted


@dataclass(frozen=True)
class Changes:
    """What happened to a table since a version, one entry per key however often it changed.

    ``complete`` means that the feed did not reach back far enough: ``upserts`` is the whole table,
    and every key that is not in it is gone.
    """

    version: int
    upserts: pa.Table
    deletes: pa.Table
    complete: bool = False


class LakeTable:
    """One Delta table with a key, written by one process at a time.

    ``root`` is a folder or an object-store URI; the table is created by its first merge.
    """

    def __init__(self, root: str, name: str) -> None:
        base = root.rstrip("/") if "://" in root else str(Path(root).resolve())
        self.name = name
        self.uri = f"{base}/{name}"

    def exists(self) -> bool:
        """Return whether the table has been created."""
        return self._find() is not None

    def version(self) -> int | None:
        """Return the table's newest version, None when there is no table yet."""
        table = self._find()
        return None if table is None else int(table.version())

    def identity(self) -> str | None:
        """Return the id the table got at its creation, None when there is no table yet.

        A table that was removed and made again counts its versions anew and has another id.
        """
        table = self._find()
        return None if table is None else str(table.metadata().id)

    def read(self, columns: Sequence[str] | None = None, version: int | None = None) -> pa.Table:
        """Return the rows of the newest or the given version; raises MissingInput without a table."""
        return _rows(self._open(version), columns)

    def rows_of(self, column: str, values: Sequence[str], version: int | None = None) -> pa.Table:
        """Return the rows whose text ``column`` has one of the values, of the newest or the given version.

        Raises MissingInput without a table, ServiceUnavailable when its files cannot be read (any more).
        """
        with self._storage_errors():
            return _rows(self._open(version), None, _one_of(column, values))

    def batches(
        self,
        columns: Sequence[str] | None = None,
        version: int | None = None,
        where: tuple[str, Sequence[str]] | None = None,
    ) -> Iterator[pa.Table]:
        """Yield the rows a few thousand at a time, so that a table of any size needs little memory.

        ``where`` is a text column and the values it may have. Every piece has rows; a table without any
        yields none. Raises as ``rows_of`` does.
        """
        with self._storage_errors():
            table = self._open(version)
            for piece in _pieces(table, columns, _one_of(*where) if where else None):
                if piece.num_rows:
                    yield piece

    def version_at(self, moment: datetime) -> int | None:
        """Return the newest version that was there at a time, None when there was none or nobody remembers."""
        table = self._find()
        if table is None:
            return None
        limit = int(moment.timestamp() * 1000)
        return max((int(e["version"]) for e in table.history() if int(e["timestamp"]) <= limit), default=None)

    def merge(
        self,
        rows: pa.Table,
        *,
        key: str,
        database_url: str,
        delete_missing: bool = False,
        scope: tuple[str, Sequence[str]] | None = None,
        note: str | None = None,
    ) -> MergeCounts:
        """Bring the table to hold ``rows``, as one commit that touches only rows that differ.

        With ``delete_missing`` rows that ``rows`` lacks are removed: all of them, or those whose
        column ``scope[0]`` has one of the values ``scope[1]``. ``note`` stays with the commit, for
        ``notes``. Writers wait for each other through the database. A column that the table lacks is
        added to it, empty in the rows it has. Raises WriteConflict when a foreign writer keeps winning,
        ServiceUnavailable when the storage refuses.
        """
        with advisory_lock(database_url, f"delta:{self.uri}"):
            for attempt in range(_ATTEMPTS):
                counts = self._merge_once(rows, key, scope, delete_missing, note)
                if counts is not None:
                    return counts
                time.sleep(random.uniform(0.05, 0.2) * 2**attempt)
        raise WriteConflict(
            f"another program committed to the table {self.uri} {_ATTEMPTS} times in a row while this one "
            "was merging: find out what else writes there, then run this step again"
        )

    def changes(self, after: int) -> Changes:
        """Return what changed after version ``after``; a negative one means from the beginning.

        Raises MissingInput without a table.
        """
        table = self._open()
        head = int(table.version())
        if after == head:
            empty = _plain(table.to_pyarrow_dataset().schema.empty_table())
            return Changes(head, empty, empty)
        feed = self._feed(table, after + 1, head) if 0 <= after < head else None
        if feed is None:
            rows = _rows(table, None)
            return Changes(head, rows, rows.slice(0, 0), complete=True)
        return _netted(feed, self._key(table), head)

    def events(self, after: int, columns: Sequence[str]) -> pa.Table | None:
        """Return every row change after version ``after``, oldest first; None when the feed lacks part of it.

        Beside ``columns`` it has ``change`` (``insert``, ``update``, ``delete``; of an update the row as it
        is afterwards), ``version_of_table`` and ``time``. Raises MissingInput without a table.
        """
        table = self._open()
        head = int(table.version())
        if after >= head:
            return _events(_rows(table, columns).slice(0, 0), columns)
        feed = self._feed(table, after + 1, head, columns)
        return None if feed is None else _events(feed, columns)

    def notes(self) -> dict[int, str]:
        """Return the note of every commit that has one and that the log still holds, by version."""
        table = self._find()
        entries = table.history() if table else []
        return {int(e["version"]): str(e[_NOTE]) for e in entries if e.get(_NOTE)}

    def compact(self, database_url: str, *, read_since: int | None = None) -> dict[str, int]:
        """Rewrite small files into large ones and delete files that no reader needs any more.

        A file is kept for 30 days after it left the table, and for as long as somebody still has to read the
        changes since version ``read_since``. Returns how many files were ``merged`` and ``deleted``.
        """
        from deltalake import WriterProperties

        with advisory_lock(database_url, f"delta:{self.uri}"), self._storage_errors():
            table = self._find()
            if table is None:
                return {"merged": 0, "deleted": 0}
            times = {int(e["version"]): int(e["timestamp"]) for e in table.history()}
            age = (
                timedelta(milliseconds=time.time() * 1000 - times.get(read_since, 0)) if read_since else None
            )
            keep = max(_KEEP_FILES, age) if age else _KEEP_FILES
            properties = WriterProperties(max_row_group_size=_ROW_GROUP, compression="ZSTD")
            done = table.optimize.compact(writer_properties=properties)
            hours = math.ceil(keep / timedelta(hours=1))
            deleted = table.vacuum(retention_hours=hours, dry_run=False)
        return {"merged": int(done["numFilesRemoved"]), "deleted": len(deleted)}

    def _merge_once(
        self,
        rows: pa.Table,
        key: str,
        scope: tuple[str, Sequence[str]] | None,
        delete_missing: bool,
        note: str | None,
    ) -> MergeCounts | None:
        """Merge against the newest version; None when somebody else committed in between."""
        from deltalake.exceptions import CommitFailedError

        with self._storage_errors():
            table = self._find() or self._create(rows.schema, key)
            self._widen(table, rows.schema)
            source, counts = _difference(
                rows, self._held(table, rows, key, scope, delete_missing), key, delete_missing
            )
            if source is None:
                return MergeCounts(0, 0, 0, int(table.version()))
            try:
                _execute(table, source, key, note)
            except CommitFailedError as error:
                log.warning("Commit to %s lost a race: %s", self.uri, error)
                return None
        done = MergeCounts(*counts, int(table.version()))
        log.info(
            "Merged into %s: %d inserted, %d updated, %d deleted, version %d",
            self.name, done.inserted, done.updated, done.deleted, done.version,
        )  # fmt: skip
        return done

    def _held(
        self,
        table: DeltaTable,
        rows: pa.Table,
        key: str,
        scope: tuple[str, Sequence[str]] | None,
        delete_missing: bool,
    ) -> pa.Table:
        """Return the rows of the table that a merge of ``rows`` may touch."""
        import pyarrow.compute as pc

        if delete_missing and scope is None:
            return _rows(table, rows.column_names)
        where = pc.field(key).isin(rows[key].combine_chunks())
        if delete_missing and scope is not None:
            where = where | _one_of(*scope)
        return _rows(table, rows.column_names, where)

    def _create(self, schema: pa.Schema, key: str) -> DeltaTable:
        from deltalake import DeltaTable

        return DeltaTable.create(
            self.uri,
            schema=schema,
            mode="ignore",
            configuration={**_CONFIGURATION, _KEY: key},
            raise_if_key_not_exists=False,
        )

    def _widen(self, table: DeltaTable, schema: pa.Schema) -> None:
        """Add the columns that the table lacks; refuse rows that lack one of the table's."""
        from deltalake import Schema

        have, want = {f.name for f in table.schema().fields}, set(schema.names)
        if have - want:
            raise ConfigurationError(
                f"the table {self.uri} has the columns {sorted(have)}, but {sorted(want)} are to be written: "
                "it was made by another version; move its folder away and ingest again"
            )
        if missing := [field for field in Schema.from_arrow(schema).fields if field.name not in have]:
            table.alter.add_columns(missing)
            log.info("Added the columns %s to %s", [field.name for field in missing], self.name)

    def _find(self, version: int | None = None) -> DeltaTable | None:
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        try:
            return DeltaTable(self.uri, version=version)
        except TableNotFoundError:
            return None

    def _open(self, version: int | None = None) -> DeltaTable:
        table = self._find(version)
        if table is None:
            raise MissingInput(
                f"there is no table {self.name!r} at {self.uri}: run the DAG `ingest_documents` first"
            )
        return table

    def _key(self, table: DeltaTable) -> str:
        return str(table.metadata().configuration[_KEY])

    def _feed(
        self, table: DeltaTable, first: int, last: int, columns: Sequence[str] | None = None
    ) -> pa.Table | None:
        """Return the change feed of versions ``first`` to ``last``; None when part of it is gone."""
        import pyarrow as pa
        from deltalake.exceptions import DeltaError

        try:
            names = [*columns, *_FEED_COLUMNS] if columns else None
            feed = table.load_cdf(starting_version=first, ending_version=last, columns=names)
            return _plain(pa.table(feed))
        except (DeltaError, OSError, pa.ArrowException) as error:
            log.warning("The change feed of %s lacks versions %d to %d: %s", self.uri, first, last, error)
            return None

    @contextmanager
    def _storage_errors(self) -> Iterator[None]:
        from deltalake.exceptions import DeltaError

        try:
            yield
        except (DeltaError, OSError) as error:
            raise ServiceUnavailable(
                f"the table {self.uri} cannot be read or written: {error}. "
                "Check free space, permissions and, for an object store, its credentials"
            ) from error


def _one_of(column: str, values: Sequence[str]) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.field(column).isin(pa.array(list(values), pa.string()))


def _rows(table: DeltaTable, columns: Sequence[str] | None, where: Any = None) -> pa.Table:
    import pyarrow as pa

    if where is None:
        data = table.to_pyarrow_dataset()
        return _filled(data.to_table(columns=_known(data, columns)), columns)
    kept = list(_pieces(table, columns, where))
    return pa.concat_tables(kept) if kept else _rows(table, columns)


def _pieces(table: DeltaTable, columns: Sequence[str] | None, where: Any = None) -> Iterator[pa.Table]:
    """Yield the rows piece by piece.

    The filter is not pushed down: the files' statistics are string views, which pyarrow cannot compare with
    strings.
    """
    import pyarrow as pa

    data = table.to_pyarrow_dataset()
    batches = data.to_batches(
        columns=_known(data, columns),
        batch_size=_BATCH_ROWS, batch_readahead=2, fragment_readahead=1,
    )  # fmt: skip
    for batch in batches:
        piece = _filled(pa.Table.from_batches([batch]), columns)
        yield piece if where is None else piece.filter(where)


def _known(data: Any, columns: Sequence[str] | None) -> list[str] | None:
    return None if columns is None else [name for name in columns if name in data.schema.names]


def _filled(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    """Return the columns in their order; one that an older table lacks is there, without a value."""
    import pyarrow as pa

    for name in columns or ():
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(table.num_rows, pa.string()))
    return _plain(table if columns is None else table.select(list(columns)))


def _plain(table: pa.Table) -> pa.Table:
    """Return the table with string views as strings, which every pyarrow function understands."""
    import pyarrow as pa

    views = {pa.string_view(), pa.large_string()}
    fields = [f.with_type(pa.string()) if f.type in views else f for f in table.schema]
    return table.cast(pa.schema(fields))


def _difference(
    rows: pa.Table, held: pa.Table, key: str, delete_missing: bool
) -> tuple[pa.Table | None, tuple[int, int, int]]:
    """Return the rows to write, each with its operation, and how many are new, changed and removed."""
    import pyarrow as pa
    import pyarrow.compute as pc

    keys = rows[key].combine_chunks()
    held_keys = held[key].combine_chunks()
    place = pc.index_in(keys, held_keys)
    new = pc.is_null(place)
    kept = pc.invert(new)
    before, after = held.take(pc.drop_null(place)), rows.filter(kept)
    changed = _differs(before, after)
    inserted, updated = rows.filter(new), after.filter(changed)
    removed = held.slice(0, 0)
    if delete_missing:
        gone = pc.invert(pc.is_in(held_keys, keys))
        removed = held.filter(gone)
    counts = (inserted.num_rows, updated.num_rows, removed.num_rows)
    if not any(counts):
        return None, counts
    parts = [(inserted, _UPSERT), (updated, _UPSERT), (removed.cast(rows.schema), _DELETE)]
    marked = [
        part.append_column(_OPERATION, pa.array([operation] * part.num_rows, pa.string()))
        for part, operation in parts
    ]
    return pa.concat_tables(marked).combine_chunks(), counts


def _differs(before: pa.Table, after: pa.Table) -> pa.Array:
    """Return, per row, whether any column differs; two nulls are equal."""
    import pyarrow as pa
    import pyarrow.compute as pc

    differs = pa.array([False] * after.num_rows, pa.bool_())
    for name in after.column_names:
        old, new = (
            before[name].combine_chunks().cast(after.schema.field(name).type),
            after[name].combine_chunks(),
        )
        same = pc.or_(pc.fill_null(pc.equal(old, new), False), pc.and_(pc.is_null(old), pc.is_null(new)))
        differs = pc.or_(differs, pc.invert(same))
    return differs


def _execute(table: DeltaTable, source: pa.Table, key: str, note: str | None) -> None:
    """Commit the marked rows; the predicates are constants, values travel in the source only."""
    from deltalake import CommitProperties, WriterProperties

    is_upsert, is_delete = f"source.{_OPERATION} = '{_UPSERT}'", f"source.{_OPERATION} = '{_DELETE}'"
    (
        table.merge(
            source,
            f"target.{key} = source.{key}",
            source_alias="source",
            target_alias="target",
            writer_properties=WriterProperties(max_row_group_size=_ROW_GROUP, compression="ZSTD"),
            commit_properties=CommitProperties(custom_metadata={_NOTE: note} if note else None),
        )
        .when_matched_delete(predicate=is_delete)
        .when_matched_update_all(predicate=is_upsert, except_cols=[_OPERATION])
        .when_not_matched_insert_all(predicate=is_upsert, except_cols=[_OPERATION])
        .execute()
    )


def _netted(feed: pa.Table, key: str, head: int) -> Changes:
    """Keep each key's last change; a key that came and went leaves a deletion, which harms nobody."""
    import pyarrow as pa
    import pyarrow.compute as pc

    feed = feed.filter(pc.not_equal(feed["_change_type"], "update_preimage"))
    ordered = feed.sort_by([(key, "ascending"), ("_commit_version", "descending")])
    keys = ordered[key].combine_chunks()
    if len(keys) == 0:
        empty = ordered.drop_columns(list(_FEED_COLUMNS))
        return Changes(head, empty, empty)
    newest = pa.concat_arrays([pa.array([True]), pc.not_equal(keys.slice(1), keys.slice(0, len(keys) - 1))])
    latest = ordered.filter(newest)
    deleted = pc.equal(latest["_change_type"], "delete")
    upserts, deletes = latest.filter(pc.invert(deleted)), latest.filter(deleted)
    return Changes(head, upserts.drop_columns(list(_FEED_COLUMNS)), deletes.drop_columns(list(_FEED_COLUMNS)))


def _events(feed: pa.Table, columns: Sequence[str]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    if "_change_type" not in feed.column_names:
        empty = {"change": pa.string(), "version_of_table": pa.int64(), "time": pa.timestamp("us", "UTC")}
        for name, kind in empty.items():
            feed = feed.append_column(name, pa.array([], kind))
        return feed
    feed = feed.filter(pc.not_equal(feed["_change_type"], "update_preimage"))
    changes = pc.replace_substring(feed["_change_type"], "_postimage", "")
    feed = feed.set_column(feed.column_names.index("_change_type"), "_change_type", changes)
    return feed.rename_columns(
        {"_change_type": "change", "_commit_version": "version_of_table", "_commit_timestamp": "time"}
    ).sort_by("version_of_table")
