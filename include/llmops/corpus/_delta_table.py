"""Documents from the rows of a Delta table as it was at a date."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from llmops.corpus._files import MAX_BYTES, MetadataKey, Snapshot, SourceFile, SourceSettings, name_problem
from llmops.corpus._places import Options, Place, without_secrets
from llmops.errors import ConfigurationError, LlmopsError, MissingInput
from llmops.settings import include_root

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from llmops.corpus._sandbox import Sandbox

__all__ = ["DeltaTableSource"]

log = logging.getLogger(__name__)

_SCHEMES = ("s3", "s3a", "abfss", "abfs", "gs")
_SESSION = {"datafusion.execution.batch_size": "256", "datafusion.execution.target_partitions": "1"}
_NUMBERS = ("byte", "short", "integer", "long")
_TIMES = ("date", "timestamp", "timestamp_ntz")
_ALLOWED = {
    "text_column": ("string", "binary"),
    "id_column": ("string", *_NUMBERS),
    "title_column": ("string",),
    "date_column": _TIMES,
    "metadata_columns": ("string", "boolean", "float", "double", "decimal", *_NUMBERS, *_TIMES),
}
_GONE = re.compile(r"(?i)not ?found|no such file|\b404\b")
_DENIED = re.compile(
    r"(?i)\b40[13]\b|forbidden|access ?denied|unauthori[sz]ed|unauthenticated|credential|permission"
)


def _is_a_table(value: str) -> str:
    without_secrets(value)
    scheme, separator, _ = value.partition("://")
    if separator and scheme not in _SCHEMES:
        raise ValueError(f"must be a folder, or begin with one of {[f'{known}://' for known in _SCHEMES]}")
    return value


class DeltaTableSource(SourceSettings):
    """The rows of a Delta table, each a document, in the table's newest version of the run's date.

    ``uri`` is a folder (a relative one starts at the checkout) or an address such as
    ``abfss://container@account.dfs.core.windows.net/table``; credentials come from the environment or the machine's
    role, ``storage_options`` has what is no secret. ``text_column`` holds the documents, as ``media_type``; it may be
    binary. ``id_column`` is the document's path and must be unique. ``title_column``, ``date_column`` (when the
    document last changed) and ``metadata_columns`` are optional. Time travel needs versions that are not vacuumed.
    """

    divisible: ClassVar[bool] = True

    kind: Literal["delta_table"]
    uri: Annotated[str, AfterValidator(_is_a_table)]
    text_column: str
    id_column: str
    title_column: str | None = None
    date_column: str | None = None
    metadata_columns: tuple[MetadataKey, ...] = ()
    media_type: Annotated[str, Field(pattern=r"^[a-z0-9]+/[a-z0-9.+-]+$")] = "text/markdown"
    storage_options: Options = Field(default={})

    @model_validator(mode="after")
    def _columns_differ(self) -> Self:
        if self.text_column == self.id_column:
            raise ValueError("`text_column` and `id_column` must be two columns")
        return self

    def pinned(self, as_of: datetime) -> str:
        """Return the table's version as of a date; raises what ``discover`` raises."""
        return str(self._version(as_of, None)[0])

    def discover(
        self, as_of: datetime, *, pin: str | None = None, sandbox: Sandbox | None = None
    ) -> Snapshot:
        """Return the rows of the table's version as of a date, or of the version ``pin``.

        Raises MissingInput when there is no table, no version that old, or its files are vacuumed; ConfigurationError
        when a column is missing, of the wrong type, or its ids are null or not unique; ServiceUnavailable when the
        storage does not answer; the first and the last while iterating, too.
        """
        version, moment = self._version(as_of, pin)
        table = self._open(version)
        self._check_columns(table)
        self._check_ids(table)
        log.info("Source %s is at version %d of %s", self.name, version, moment.isoformat())
        return Snapshot(moment, self._files(table), dated=True)

    def _version(self, as_of: datetime, pin: str | None) -> tuple[int, datetime]:
        commits = self._commits()
        if pin is not None:
            for version, moment in commits:
                if str(version) == pin:
                    return version, moment
            raise MissingInput(
                f"source {self.name!r}: the table {self.uri!r} has no version {pin!r} (any more): it was cleaned up "
                "while it was being read; run this again from the start"
            )
        early = [commit for commit in commits if commit[1] <= as_of]
        if not early:
            raise MissingInput(
                f"source {self.name!r}: the table {self.uri!r} remembers no version of {as_of.isoformat()} or before, "
                f"the oldest is {commits[0][0]} of {commits[0][1].isoformat()}: start the backfill later, or have the "
                "table keep its log for longer (delta.logRetentionDuration)"
            )
        return early[-1]

    def _commits(self) -> list[tuple[int, datetime]]:
        """Return the versions that the log remembers, oldest first, with times that never go back.

        A writer's clock may be behind that of the writer before; as Delta does, such a commit is taken to be
        just after the one before.
        """
        table = self._open(None)
        with self._errors():
            # Of the newest version: that of an older one lists the newer commits under wrong numbers.
            history = table.history()
        commits: list[tuple[int, datetime]] = []
        for entry in reversed(history):
            if not isinstance(entry.get("timestamp"), int):
                raise self._no_times(int(entry["version"]))
            moment = datetime.fromtimestamp(entry["timestamp"] / 1000, UTC)
            commits.append((int(entry["version"]), max([moment, *(before for _, before in commits[-1:])])))
        if not commits or (commits[0][0] > 0 and self._opens(commits[0][0] - 1)):
            # Commits are numbered from the newest back; one without its information shifts all before it.
            raise self._no_times(commits[0][0] if commits else int(table.version()))
        return commits

    def _no_times(self, version: int) -> ConfigurationError:
        return ConfigurationError(
            f"source {self.name!r}: the log of the table {self.uri!r} does not say when its versions around {version} "
            "were written (a commit without `commitInfo`), so it has no state as of a date: write a new version with "
            "a current writer and let the old log be cleaned up"
        )

    def _opens(self, version: int) -> bool:
        try:
            self._open(version)
        except MissingInput:
            return False
        return True

    def _open(self, version: int | None) -> DeltaTable:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaProtocolError, TableNotFoundError

        uri = self.uri if "://" in self.uri else str(include_root().parent / Path(self.uri).expanduser())
        with self._errors():
            try:
                return DeltaTable(uri, version=version, storage_options=self.storage_options or None)
            except DeltaProtocolError:
                raise
            except TableNotFoundError as error:
                if version is None:
                    raise self._place.missing("there is no Delta table") from error
                raise self._vacuumed(version) from error
            except Exception as error:
                if version is not None and "kernel error" in str(error).lower():
                    raise self._vacuumed(version) from error
                raise

    def _check_columns(self, table: DeltaTable) -> None:
        """Raise ConfigurationError unless every column is there and of a type that can be read."""
        have = {field.name: str(getattr(field.type, "type", "")) for field in table.schema().fields}
        wanted = {key: getattr(self, key) for key in _ALLOWED if key != "metadata_columns"}
        pairs = [(key, column) for key, column in wanted.items() if column is not None]
        pairs += [("metadata_columns", column) for column in self.metadata_columns]
        for key, column in pairs:
            if column not in have:
                raise ConfigurationError(
                    f"source {self.name!r}: `{key}` names the column {column!r}, which the table {self.uri!r} does not "
                    f"have; it has {sorted(have)}"
                )
            if have[column].partition("(")[0] not in _ALLOWED[key]:
                raise ConfigurationError(
                    f"source {self.name!r}: the column {column!r} of {self.uri!r} is of type {have[column]!r}; "
                    f"`{key}` must be one of {list(_ALLOWED[key])}"
                )

    def _check_ids(self, table: DeltaTable) -> None:
        """Raise ConfigurationError when an id is null, empty or given twice, with the first that is."""
        column = _quoted(self.id_column)
        query = (
            f"select {column} as id, count(*) as n from t group by {column} "
            f"having count(*) > 1 or {column} is null or cast({column} as varchar) = '' "
            f"order by {column} asc nulls first limit 1"
        )
        for row in self._rows(table, query):
            fault = (
                f"{row['n']} rows without one"
                if row["id"] in (None, "")
                else f"{row['n']} rows with {row['id']!r}"
            )
            raise ConfigurationError(
                f"source {self.name!r}: the column {self.id_column!r} of {self.uri!r} does not tell rows apart: it has "
                f"{fault}. Choose a column of unique ids as `id_column`, or correct the table"
            )

    def _files(self, table: DeltaTable) -> Iterator[SourceFile]:
        columns = [
            self.text_column,
            self.id_column,
            self.title_column,
            self.date_column,
            *self.metadata_columns,
        ]
        names = list(dict.fromkeys(name for name in columns if name))
        for row in self._rows(table, f"select {', '.join(map(_quoted, names))} from t"):
            yield self._file(row)

    def _file(self, row: Mapping[str, Any]) -> SourceFile:
        path, text = str(row[self.id_column]), row[self.text_column]
        content = text.encode() if isinstance(text, str) else text or b""
        problem = "it has no text" if text is None else name_problem(path)
        if len(content) > MAX_BYTES:
            problem = (
                f"it has {len(content):,} bytes, more than the {MAX_BYTES:,} a document may have: split it"
            )
        named = {key: row[key] for key in self.metadata_columns if row[key] is not None}
        return SourceFile(
            path=path.encode("unicode_escape").decode() if name_problem(path) else path,
            size=len(content),
            read=lambda: content,
            source_date=_moment(row[self.date_column]) if self.date_column else None,
            media_type=self.media_type,
            metadata={
                key: value if isinstance(value, str) else _shown(value) for key, value in named.items()
            },
            problem=problem,
            title=row[self.title_column] if self.title_column else None,
        )

    def _rows(self, table: DeltaTable, query: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of a query on the table, which it calls ``t``, a few hundred in memory at a time."""
        import pyarrow as pa
        from deltalake import QueryBuilder

        with self._errors(table):
            # Not as a dataset of pyarrow: that cannot read tables with deletion vectors or mapped columns.
            found = QueryBuilder(_SESSION).register("t", table).execute(query)
            batches = iter(pa.RecordBatchReader.from_stream(found))
        while True:
            with self._errors(table):
                batch = next(batches, None)
            if batch is None:
                return
            yield from batch.to_pylist()

    @property
    def _place(self) -> Place:
        return Place(self.name, self.uri)

    def _vacuumed(self, version: int) -> MissingInput:
        return MissingInput(
            f"source {self.name!r}: version {version} of the table {self.uri!r} cannot be read any more: its files "
            "were removed (VACUUM, or a cleaned log). Start the backfill later, or have the table keep files for "
            "longer (delta.deletedFileRetentionDuration)"
        )

    @contextmanager
    def _errors(self, table: DeltaTable | None = None) -> Iterator[None]:
        """Raise what deltalake, its query engine and its object stores raise as an error of ours."""
        from deltalake.exceptions import DeltaProtocolError

        try:
            yield
        except LlmopsError:
            raise
        except DeltaProtocolError as error:
            raise self._place.wrong(error) from error
        except Exception as error:  # The edge: they raise bare exceptions that only their texts tell apart.
            if table is not None and _GONE.search(str(error)):
                raise self._vacuumed(int(table.version())) from error
            if _DENIED.search(str(error)):
                raise self._place.denied(error) from error
            raise self._place.unavailable(error) from error


def _quoted(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _moment(value: date | datetime | None) -> datetime | None:
    """Return a date or a time in UTC; one without a zone is taken to be in it."""
    if value is None:
        return None
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, (date, datetime)) else str(value)
