"""Delta tables as sources: time travel, ids that must tell rows apart, and versions that are gone."""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pydantic import ValidationError

from corpus.conftest import day
from llmops.corpus import DeltaTableSource, _delta_table
from llmops.errors import ConfigurationError, MissingInput, ServiceUnavailable
from support.http import FakeService, listening


class Table:
    """A Delta table whose versions are of January 2024, one a day."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def log(self, version: int) -> Path:
        return self.folder / "_delta_log" / f"{version:020}.json"

    def write(self, number: int, mode: str = "overwrite", **columns: Any) -> None:
        """Write a version as of a day."""
        table = pa.table(columns)
        write_deltalake(
            str(self.folder), table, mode=mode, schema_mode="overwrite" if mode == "overwrite" else None
        )
        self.edit(DeltaTable(str(self.folder)).version(), timestamp=int(day(number).timestamp() * 1000))

    def edit(self, version: int, **info: Any) -> None:
        """Change what a commit says of itself, or with no arguments remove it."""
        actions = [json.loads(line) for line in self.log(version).read_text().splitlines()]
        for action in actions:
            if "commitInfo" in action:
                action["commitInfo"].update(info)
        kept = [action for action in actions if info or "commitInfo" not in action]
        self.log(version).write_text("\n".join(map(json.dumps, kept)))


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Day 1: two rows; day 2: one edited, one more; day 3: one row alone."""
    made = Table(tmp_path / "table")
    made.write(1, id=["a", "b"], text=["A", "B"])
    made.write(2, id=["a", "b", "c"], text=["A2", "B", "C"])
    made.write(3, id=["c"], text=["C"])
    return made


def source(table: Table, **more: Any) -> DeltaTableSource:
    values = {
        "kind": "delta_table",
        "name": "s",
        "uri": str(table.folder),
        "text_column": "text",
        "id_column": "id",
    }
    return DeltaTableSource.model_validate(values | more)


def listed(source: DeltaTableSource, number: int = 9) -> dict[str, str]:
    return {f.path: f.problem or f.read().decode() for f in source.discover(day(number))}


def test_the_version_of_a_date_is_read_with_its_own_date(table: Table) -> None:
    assert listed(source(table), 1) == {"a": "A", "b": "B"}
    assert listed(source(table), 2) == {"a": "A2", "b": "B", "c": "C"}
    assert listed(source(table), 9) == {"c": "C"}
    snapshot = source(table).discover(day(2, 12))
    assert (snapshot.date, snapshot.dated) == (day(2), True)


def test_a_date_before_the_first_version_that_is_remembered_is_missing(table: Table) -> None:
    with pytest.raises(MissingInput, match=r"the oldest is 0 of 2024-01-01.*logRetentionDuration"):
        source(table).discover(day(1) - timedelta(seconds=1))
    DeltaTable(str(table.folder)).create_checkpoint()
    table.log(0).unlink()
    table.log(1).unlink()
    with pytest.raises(MissingInput, match="the oldest is 2 of 2024-01-03"):
        source(table).discover(day(2))
    assert listed(source(table)) == {"c": "C"}


def test_a_pinned_version_stays_although_newer_ones_come(table: Table) -> None:
    pin = source(table).pinned(day(2))
    assert pin == "1"
    table.write(2, id=["late"], text=["L"])
    snapshot = source(table).discover(day(2), pin=pin)
    assert (sorted(f.path for f in snapshot), snapshot.date) == (["a", "b", "c"], day(2))
    with pytest.raises(MissingInput, match="has no version '7'"):
        source(table).discover(day(2), pin="7")


def test_a_clock_that_goes_back_does_not_turn_the_order_of_versions(table: Table) -> None:
    table.edit(2, timestamp=int(day(1).timestamp() * 1000))
    assert listed(source(table), 1) == {"a": "A", "b": "B"}
    assert source(table).discover(day(9)).date == day(2)


def test_a_commit_without_a_time_is_an_error_rather_than_a_wrong_version(table: Table) -> None:
    table.edit(1)
    with pytest.raises(ConfigurationError, match="does not say when its versions"):
        source(table).discover(day(2))


def test_only_the_columns_that_are_named_are_read_and_become_what_they_are_for(table: Table) -> None:
    table.write(
        4,
        id=[1, 2],
        text=["A", "B"],
        Title=["First", None],
        changed=pa.array([date(2023, 5, 6), None]),
        team=["legal", None],
        n=[3, 4],
        ok=[True, False],
        other=[b"x", b"y"],
    )
    made = source(table, title_column="Title", date_column="changed", metadata_columns=["team", "n", "ok"])
    files = {f.path: f for f in made.discover(day(9))}
    first, second = files["1"], files["2"]
    assert (first.title, second.title) == ("First", None)
    assert (first.source_date, second.source_date) == (datetime(2023, 5, 6, tzinfo=UTC), None)
    assert first.metadata == {"team": "legal", "n": "3", "ok": "true"}
    assert second.metadata == {"n": "4", "ok": "false"}
    assert (first.media_type, first.revision, first.size) == ("text/markdown", None, 1)


def test_a_time_without_a_zone_is_taken_to_be_in_utc(table: Table) -> None:
    table.write(4, id=["a"], text=["A"], changed=pa.array([datetime(2023, 5, 6, 7)], pa.timestamp("us")))
    (file,) = source(table, date_column="changed").discover(day(9))
    assert file.source_date == datetime(2023, 5, 6, 7, tzinfo=UTC)


def test_binary_columns_are_documents_of_the_media_type(table: Table) -> None:
    table.write(4, id=["a"], text=[b"%PDF-1.7 \xff"])
    (file,) = source(table, media_type="application/pdf").discover(day(9))
    assert (file.read(), file.media_type) == (b"%PDF-1.7 \xff", "application/pdf")


def test_names_of_columns_are_names_and_never_sql(table: Table) -> None:
    table.write(4, **{'i"d; drop': ["a"], "Te xt": ["A"]})
    assert listed(source(table, id_column='i"d; drop', text_column="Te xt")) == {"a": "A"}


@pytest.mark.parametrize(
    ("ids", "fault"),
    [
        (["a", "b", "b", "a"], "2 rows with 'a'"),
        (["a", None, None], "2 rows without one"),
        (["a", ""], "1 rows without one"),
        ([7, 8, 7], "2 rows with 7"),
    ],
)
def test_ids_that_do_not_tell_rows_apart_are_refused_before_anything_is_read(
    table: Table, ids: list[Any], fault: str
) -> None:
    table.write(4, id=ids, text=["x"] * len(ids))
    with pytest.raises(ConfigurationError, match=rf"the column 'id' of .* {re.escape(fault)}"):
        source(table).discover(day(9))


def test_a_row_without_text_or_with_too_much_is_quarantined(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.write(4, id=["a", "b", "c\n"], text=[None, "x" * 20, "C"])
    monkeypatch.setattr(_delta_table, "MAX_BYTES", 10)
    found = listed(source(table))
    assert found["a"] == "it has no text"
    assert "20 bytes, more than the 10" in found["b"]
    assert "control characters" in found["c\\n"]


def test_columns_that_are_missing_or_of_another_type_are_named(table: Table) -> None:
    with pytest.raises(ConfigurationError, match=r"`text_column` names the column 'txt'.*\['id', 'text'\]"):
        source(table, text_column="txt").discover(day(9))
    table.write(4, id=[1.5], text=["x"], tags=[["a"]])
    with pytest.raises(ConfigurationError, match="`id_column` must be one of"):
        source(table).discover(day(9))
    with pytest.raises(ConfigurationError, match="is of type 'array'"):
        source(table, id_column="text", text_column="id", metadata_columns=["tags"]).model_copy(
            update={"id_column": "text", "text_column": "text"}
        ).discover(day(9))


def test_a_version_whose_files_are_vacuumed_is_missing(table: Table) -> None:
    newest = DeltaTable(str(table.folder))
    newest.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    with pytest.raises(MissingInput, match=r"version 1 of the table .*VACUUM"):
        source(table).discover(day(2))


def test_a_version_that_is_vacuumed_while_it_is_read_is_an_error_and_not_the_end(table: Table) -> None:
    files = iter(source(table).discover(day(2)))
    for file in table.folder.glob("*.parquet"):
        file.unlink()
    with pytest.raises(MissingInput, match="VACUUM"):
        list(files)


def test_no_table_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="there is no Delta table"):
        source(Table(tmp_path / "none")).discover(day(1))


def test_a_table_is_streamed_in_small_batches(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    table.write(4, id=[str(n) for n in range(1000)], text=["x"] * 1000)
    sizes: list[int] = []
    read = pa.RecordBatchReader.from_stream

    class Watched:
        @staticmethod
        def from_stream(stream: Any) -> Iterator[Any]:
            for batch in read(stream):
                sizes.append(batch.num_rows)
                yield batch

    monkeypatch.setattr(pa, "RecordBatchReader", Watched)
    files = iter(source(table).discover(day(9)))
    next(files)
    assert sum(sizes) <= 256
    assert len(list(files)) == 999
    assert max(sizes) <= 256


def test_rows_that_a_deletion_vector_removed_are_not_documents(table: Table) -> None:
    """Databricks writes these by default; this one says that row 1 of the file is gone."""
    bitmap = struct.pack("<IIHHIH", 12346, 1, 0, 0, 16, 1)
    vector = struct.pack("<IQI", 1681511377, 1, 0) + bitmap
    encoded = z85(vector + b"\0" * (-len(vector) % 4))
    (add,) = [json.loads(x)["add"] for x in table.log(1).read_text().splitlines() if "add" in json.loads(x)]
    removed = {"path": add["path"], "deletionTimestamp": 1, "dataChange": True}
    held = {"storageType": "i", "pathOrInlineDv": encoded, "sizeInBytes": len(vector), "cardinality": 1}
    features = ["deletionVectors"]
    protocol = {
        "minReaderVersion": 3,
        "minWriterVersion": 7,
        "readerFeatures": features,
        "writerFeatures": features,
    }
    stats = json.loads(add["stats"]) | {"tightBounds": False}
    actions = [
        {"commitInfo": {"timestamp": int(day(4).timestamp() * 1000), "operation": "DELETE"}},
        {"protocol": protocol},
        {"remove": removed},
        {"add": add | {"deletionVector": held, "stats": json.dumps(stats)}},
    ]
    current = [json.loads(x) for x in table.log(2).read_text().splitlines()]
    actions += [{"remove": {**removed, "path": a["add"]["path"]}} for a in current if "add" in a]
    table.log(3).write_text("\n".join(map(json.dumps, actions)))
    assert listed(source(table)) == {"a": "A2", "c": "C"}


def z85(data: bytes) -> str:
    """Encode as ZeroMQ's base 85, which has Python's bits and another alphabet."""
    ours = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
    theirs = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    return base64.b85encode(data).decode().translate(str.maketrans(ours, theirs))


@pytest.mark.parametrize(("status", "raised"), [(403, ConfigurationError), (500, ServiceUnavailable)])
def test_a_store_that_refuses_or_fails_is_told_apart(
    status: int, raised: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Store(FakeService):
        def do_GET(self) -> None:
            self.reply(status, b"<Error><Code>No</Code><Message>because</Message></Error>")

        do_HEAD = do_PUT = do_GET

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    with listening(Store) as url:
        options = {"endpoint_url": url, "allow_http": "true", "region": "us-east-1", "max_retries": "1"}
        made = source(Table(Path("x")), storage_options=options).model_copy(
            update={"uri": "s3://bucket/table"}
        )
        with pytest.raises(raised) as caught:
            made.discover(day(1))
    assert "hunter2" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"uri": "https://host/table"}, "must be a folder, or begin with"),
        ({"uri": "s3://key:hunter2@bucket/x"}, "must not hold a user"),
        ({"uri": "abfss://con@acc.dfs.core.windows.net/t?sig=hunter2"}, "must not have a query"),
        ({"storage_options": {"AWS_SECRET_ACCESS_KEY": "hunter2"}}, "look like secrets"),
        ({"id_column": "text"}, "must be two columns"),
        ({"metadata_columns": ["a b"]}, "metadata_columns"),
        ({"media_type": "markdown"}, "media_type"),
    ],
)
def test_secrets_and_settings_that_cannot_work_are_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason) as caught:
        source(Table(Path("x")), **values)
    assert "hunter2" not in str(caught.value)
