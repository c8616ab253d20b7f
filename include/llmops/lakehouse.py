"""Delta tables: upserts by key that write only what changed, and the feed of those changes."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
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
_KEY = "llmops.key"
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
        import pyarrow as pa
        import pyarrow.compute as pc

        with self._storage_errors():
            table = self._open(version)
            return _rows(table, None, pc.field(column).isin(pa.array(values, pa.string())))

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
    ) -> MergeCounts:
        """Bring the table to hold ``rows``, as one commit that touches only rows that differ.

        With ``delete_missing`` rows that ``rows`` lacks are removed: all of them, or those whose
        column ``scope[0]`` has one of the values ``scope[1]``. Writers wait for each other through
        the database. Raises WriteConflict when a foreign writer keeps winning, ServiceUnavailable
        when the storage refuses.
        """
        with advisory_lock(database_url, f"delta:{self.uri}"):
            for attempt in range(_ATTEMPTS):
                counts = self._merge_once(rows, key, scope, delete_missing)
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

    def _merge_once(
        self, rows: pa.Table, key: str, scope: tuple[str, Sequence[str]] | None, delete_missing: bool
    ) -> MergeCounts | None:
        """Merge against the newest version; None when somebody else committed in between."""
        from deltalake.exceptions import CommitFailedError

        with self._storage_errors():
            table = self._find() or self._create(rows.schema, key)
            _check_columns(self.uri, table, rows)
            source, counts = _difference(
                rows, self._held(table, rows, key, scope, delete_missing), key, delete_missing
            )
            if source is None:
                return MergeCounts(0, 0, 0, int(table.version()))
            try:
                _execute(table, source, key)
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
        import pyarrow as pa
        import pyarrow.compute as pc

        if delete_missing and scope is None:
            return _rows(table, rows.column_names)
        where = pc.field(key).isin(rows[key].combine_chunks())
        if delete_missing and scope is not None:
            where = where | pc.field(scope[0]).isin(pa.array(list(scope[1]), pa.string()))
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

    def _feed(self, table: DeltaTable, first: int, last: int) -> pa.Table | None:
        """Return the change feed of versions ``first`` to ``last``; None when part of it is gone."""
        import pyarrow as pa
        from deltalake.exceptions import DeltaError

        try:
            return _plain(pa.table(table.load_cdf(starting_version=first, ending_version=last)))
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


def _rows(table: DeltaTable, columns: Sequence[str] | None, where: Any = None) -> pa.Table:
    names = list(columns) if columns is not None else None
    if where is None:
        return _plain(table.to_pyarrow_dataset().to_table(columns=names))
    # Not pushed down: the files' statistics are string views, which pyarrow cannot compare with strings.
    import pyarrow as pa

    batches = table.to_pyarrow_dataset().to_batches(columns=names)
    kept = [_plain(pa.Table.from_batches([batch])).filter(where) for batch in batches]
    return pa.concat_tables(kept) if kept else _rows(table, columns)


def _plain(table: pa.Table) -> pa.Table:
    """Return the table with string views as strings, which every pyarrow function understands."""
    import pyarrow as pa

    views = {pa.string_view(), pa.large_string()}
    fields = [f.with_type(pa.string()) if f.type in views else f for f in table.schema]
    return table.cast(pa.schema(fields))


def _check_columns(uri: str, table: DeltaTable, rows: pa.Table) -> None:
    have, want = {f.name for f in table.schema().fields}, set(rows.column_names)
    if have != want:
        raise ConfigurationError(
            f"the table {uri} has the columns {sorted(have)}, but {sorted(want)} are to be written: "
            "it was made by another version; move its folder away and ingest again"
        )


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


def _execute(table: DeltaTable, source: pa.Table, key: str) -> None:
    """Commit the marked rows; the predicates are constants, values travel in the source only."""
    is_upsert, is_delete = f"source.{_OPERATION} = '{_UPSERT}'", f"source.{_OPERATION} = '{_DELETE}'"
    (
        table.merge(source, f"target.{key} = source.{key}", source_alias="source", target_alias="target")
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
