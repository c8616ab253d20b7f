"""Delta tables: merges that write only what changed, and the change feed."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from llmops.database import advisory_lock
from llmops.errors import ConfigurationError, MissingInput, ServiceUnavailable, WriteConflict
from llmops.lakehouse import LakeTable, MergeCounts

SCHEMA = pa.schema([("id", pa.string()), ("folder", pa.string()), ("text", pa.string()), ("n", pa.int32())])


def rows(**texts: str | None) -> pa.Table:
    """Return rows by id; the folder is the id's first letter."""
    return pa.Table.from_pylist(
        [{"id": key, "folder": key[0], "text": text, "n": None} for key, text in texts.items()], schema=SCHEMA
    )


class Table(LakeTable):
    """A table with this module's key and database."""

    def __init__(self, root: Path, url: str) -> None:
        super().__init__(str(root), "things")
        self.url = url

    def put(self, table: pa.Table, **options: Any) -> MergeCounts:
        return self.merge(table, key="id", database_url=self.url, **options)

    def content(self) -> dict[str, str | None]:
        return {row["id"]: row["text"] for row in self.read().sort_by("id").to_pylist()}


@pytest.fixture
def table(tmp_path: Path, database: Any) -> Table:
    return Table(tmp_path, database.url("llmops_worker"))


def test_a_table_that_is_not_there_has_no_version_and_reading_it_says_what_to_do(table: Table) -> None:
    assert not table.exists()
    assert table.version() is None
    with pytest.raises(MissingInput, match=r"no table 'things'.*ingest_documents"):
        table.read()
    with pytest.raises(MissingInput):
        table.changes(0)


def test_the_first_merge_creates_the_table_even_without_rows(table: Table) -> None:
    assert table.put(rows()).written == 0
    assert table.exists()
    assert table.read().schema.equals(SCHEMA)


def test_merge_inserts_updates_and_leaves_what_it_is_not_told_about(table: Table) -> None:
    table.put(rows(a="1", b="2"))
    counts = table.put(rows(b="two", c="3"))
    assert (counts.inserted, counts.updated, counts.deleted) == (1, 1, 0)
    assert table.content() == {"a": "1", "b": "two", "c": "3"}


def test_a_merge_that_changes_nothing_writes_no_version(table: Table) -> None:
    first = table.put(rows(a="1", b=None))
    again = table.put(rows(b=None, a="1"))
    assert again == MergeCounts(0, 0, 0, first.version)
    assert table.version() == first.version


def test_null_and_empty_text_are_different(table: Table) -> None:
    table.put(rows(a=None))
    assert table.put(rows(a="")).updated == 1
    assert table.content() == {"a": ""}


def test_missing_rows_are_deleted_only_within_the_scope(table: Table) -> None:
    table.put(rows(x1="1", x2="2", y1="3"))
    counts = table.put(rows(x1="1"), delete_missing=True, scope=("folder", ["x"]))
    assert (counts.inserted, counts.updated, counts.deleted) == (0, 0, 1)
    assert table.content() == {"x1": "1", "y1": "3"}
    table.put(rows(), delete_missing=True, scope=("folder", []))
    assert table.content() == {"x1": "1", "y1": "3"}
    table.put(rows(z="4"), delete_missing=True)
    assert table.content() == {"z": "4"}


def test_one_merge_is_one_version_however_much_it_changes(table: Table) -> None:
    before = table.put(rows(a="1", b="2")).version
    assert table.put(rows(b="two", c="3"), delete_missing=True).version == before + 1


def test_values_never_become_sql(table: Table) -> None:
    nasty = "x' OR '1' = '1"
    table.put(pa.Table.from_pylist([{"id": nasty, "folder": nasty, "text": "1"}], schema=SCHEMA))
    table.put(rows(a="2"))
    table.put(rows(), delete_missing=True, scope=("folder", [nasty]))
    assert table.content() == {"a": "2"}


def test_an_old_version_can_be_read(table: Table) -> None:
    first = table.put(rows(a="1")).version
    table.put(rows(a="2"))
    assert table.read(["text"], version=first)["text"].to_pylist() == ["1"]


def test_changes_are_netted_per_key(table: Table) -> None:
    start = table.put(rows(a="1", b="2", c="3")).version
    table.put(rows(a="1.1", d="4"))
    table.put(rows(a="1.2"))
    table.put(rows(a="1.2", c="3", e="5"), delete_missing=True)
    changes = table.changes(start)
    assert not changes.complete
    assert changes.version == table.version()
    assert {r["id"]: r["text"] for r in changes.upserts.to_pylist()} == {"a": "1.2", "e": "5"}
    assert set(changes.deletes["id"].to_pylist()) == {"b", "d"}
    assert changes.upserts.schema.equals(SCHEMA)


def test_there_are_no_changes_at_the_head(table: Table) -> None:
    head = table.put(rows(a="1")).version
    changes = table.changes(head)
    assert (changes.version, changes.upserts.num_rows, changes.deletes.num_rows) == (head, 0, 0)
    assert not changes.complete


@pytest.mark.parametrize("after", [-1, 99])
def test_changes_since_a_version_that_never_was_are_the_whole_table(table: Table, after: int) -> None:
    table.put(rows(a="1", b="2"))
    changes = table.changes(after)
    assert changes.complete
    assert sorted(changes.upserts["id"].to_pylist()) == ["a", "b"]


@pytest.mark.parametrize("lost", ["log", "files"])
def test_changes_are_the_whole_table_when_the_feed_is_gone(table: Table, lost: str) -> None:
    start = table.put(rows(a="1", b="2")).version
    table.put(rows(a="1.1", c="3"), delete_missing=True)
    table.put(rows(c="4"))
    folder = Path(table.uri)
    if lost == "log":
        DeltaTable(table.uri).create_checkpoint()
        for version in range(start + 2):
            (folder / "_delta_log" / f"{version:020}.json").unlink()
    else:
        live = {Path(unquote(path)).name for path in DeltaTable(table.uri).file_uris()}
        for file in folder.rglob("*.parquet"):
            if file.name not in live:
                file.unlink()
    changes = table.changes(start)
    assert changes.complete
    assert {r["id"]: r["text"] for r in changes.upserts.to_pylist()} == {"a": "1.1", "c": "4"}
    assert changes.deletes.num_rows == 0


def test_many_writers_at_once_lose_nothing(table: Table) -> None:
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: table.put(rows(**{f"k{n}": str(n)})), range(6)))
    assert table.content() == {f"k{n}": str(n) for n in range(6)}


def test_a_writer_waits_for_the_one_before_it(table: Table) -> None:
    with ThreadPoolExecutor(1) as pool:
        with advisory_lock(table.url, f"delta:{table.uri}"):
            writing = pool.submit(table.put, rows(a="1"))
            with pytest.raises(TimeoutError):
                writing.result(timeout=1.5)
            assert not table.exists()
        assert writing.result(timeout=60).inserted == 1


def test_a_foreign_writer_that_keeps_winning_is_a_write_conflict(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deltalake.exceptions import CommitFailedError

    def lose(*_: Any) -> None:
        raise CommitFailedError("somebody was faster")

    table.put(rows(a="1"))
    monkeypatch.setattr("llmops.lakehouse._execute", lose)
    monkeypatch.setattr("llmops.lakehouse.time.sleep", lambda _: None)
    with pytest.raises(WriteConflict, match="5 times in a row"):
        table.put(rows(a="2"))


def test_rows_with_other_columns_are_refused(table: Table) -> None:
    table.put(rows(a="1"))
    with pytest.raises(ConfigurationError, match="made by another version"):
        table.put(rows(a="1").drop_columns(["n"]))


def test_storage_that_refuses_is_named(tmp_path: Path, database: Any) -> None:
    (tmp_path / "things").write_text("a file where the table should be")
    with pytest.raises(ServiceUnavailable, match="things cannot be read or written"):
        Table(tmp_path, database.url("llmops_worker")).put(rows(a="1"))


def test_pieces_of_a_table_are_all_of_it_or_the_rows_asked_for(table: Table) -> None:
    table.put(rows(**{f"{letter}{n}": f"text {n}" for letter in "ab" for n in range(5000)}))
    pieces = list(table.batches(["id", "folder"]))
    assert len(pieces) > 1
    assert sum(piece.num_rows for piece in pieces) == 10_000
    chosen = pa.concat_tables(table.batches(["id", "folder"], where=("folder", ["b"])))
    assert chosen.column_names == ["id", "folder"]
    assert (chosen.num_rows, set(chosen["folder"].to_pylist())) == (5000, {"b"})
    assert list(table.batches(where=("folder", ["c"]))) == []


def test_pieces_of_an_older_version_are_as_they_were(table: Table) -> None:
    first = table.put(rows(a1="before")).version
    table.put(rows(a1="after"))
    assert [p["text"].to_pylist() for p in table.batches(["text"], version=first)] == [["before"]]


def test_a_column_that_the_table_lacks_is_added_and_empty_in_older_rows(table: Table) -> None:
    table.put(rows(a1="one"))
    wider = pa.schema([*SCHEMA, ("note", pa.string())])
    assert table.read(["id", "note"]).to_pylist() == [{"id": "a1", "note": None}]
    version = table.version()
    table.put(pa.Table.from_pylist([{"id": "a2", "folder": "a", "text": "two", "note": "new"}], schema=wider))
    assert {r["id"]: r["note"] for r in table.read().to_pylist()} == {"a1": None, "a2": "new"}
    assert version is not None
    changes = table.changes(version)
    assert changes.upserts["id"].to_pylist() == (["a1", "a2"] if changes.complete else ["a2"])


def test_events_are_every_change_in_order_and_notes_name_the_commits(table: Table) -> None:
    start = table.put(rows(a1="one", a2="two"), note="first").version
    table.put(rows(a1="changed", a3="three"), note="second")
    last = table.put(rows(), delete_missing=True, scope=("id", ["a2"])).version
    events = table.events(start, ["id", "text"])
    assert events is not None
    assert sorted(zip(*(events[name].to_pylist() for name in ("change", "id", "text")), strict=True)) == [
        ("delete", "a2", "two"),
        ("insert", "a3", "three"),
        ("update", "a1", "changed"),
    ]
    assert events["version_of_table"].to_pylist() == [start + 1, start + 1, last]
    assert table.notes() == {start: "first", start + 1: "second"}
    nothing = table.events(last, ["id"])
    assert nothing is not None
    assert nothing.num_rows == 0
    assert {"change", "version_of_table", "time"} < set(nothing.column_names)


def test_events_that_the_feed_has_lost_are_none(table: Table) -> None:
    table.put(rows(a1="one"))
    table.put(rows(a1="two"))
    (Path(table.uri) / "_delta_log" / f"{table.version():020d}.json").rename(Path(table.uri) / "gone")
    table.put(rows(a1="one", a2="x"))
    shutil.rmtree(Path(table.uri) / "_change_data", ignore_errors=True)
    assert table.events(0, ["id"]) is None


def test_compacting_keeps_the_rows_and_the_changes_somebody_has_yet_to_read(table: Table) -> None:
    since = table.put(rows(a0="zero")).version
    for number in range(1, 6):
        table.put(rows(**{f"a{number}": str(number)}))
    files = len(DeltaTable(table.uri).file_uris())
    before = table.content()
    assert table.compact(table.url, read_since=since) == {"merged": files, "deleted": 0}
    assert len(DeltaTable(table.uri).file_uris()) == 1
    assert table.content() == before
    changes = table.changes(since)
    assert not changes.complete
    assert changes.upserts["id"].to_pylist() == [f"a{number}" for number in range(1, 6)]
    assert LakeTable(str(Path(table.uri).parent), "nothing").compact(table.url) == {"merged": 0, "deleted": 0}
