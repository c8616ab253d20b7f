"""What one run reads, between reading and merging: a plan, and a folder per shard."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from llmops.corpus._tables import SNAPSHOTS, documents_schema, present_schema, quarantine_schema
from llmops.errors import MissingInput
from llmops.lakehouse import LakeTable

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Decision", "Plan", "ShardWriter", "SourceState", "Staged"]

_PLAN = "plan.json"
_STATES = "states.json"
_BLOCKED = "blocked.json"
_ASIDE = "aside.json"
_HELD_ROWS = 200
_HELD_CHARACTERS = 8_000_000
"""A shard's rows are written out at the latest when so many wait in memory."""

_SCHEMAS = {"documents": documents_schema, "quarantine": quarantine_schema, "present": present_schema}


@dataclass(frozen=True)
class SourceState:
    """What became of one source in a run; ``date`` is there when it was read.

    ``dated`` says that the date is the content's own and not the run's. ``digest`` tells one state of the
    source from another; a single shard does not know it.
    """

    name: str
    status: Literal["read", "failed", "paused"]
    date: datetime | None = None
    digest: str | None = None
    error: str | None = None
    dated: bool = False


@dataclass(frozen=True)
class Plan:
    """What all shards of a run agree on.

    ``base`` is the version of the documents table that everything is compared with, None before there is
    one. ``pins`` fixes the state of each source that can be fixed, ``rules`` has a digest of what each is
    judged by.
    """

    as_of: datetime
    shards: int
    base: int | None
    pins: Mapping[str, str | None] = field(default_factory=dict)
    rules: Mapping[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Begin a run: whatever an earlier attempt left in the folder is gone."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder / _PLAN, asdict(self) | {"as_of": self.as_of.isoformat()})

    @classmethod
    def load(cls, folder: Path) -> Plan:
        """Return the plan in a folder; raises MissingInput when there is none."""
        content = _read_json(folder / _PLAN, folder)
        return cls(**content | {"as_of": datetime.fromisoformat(content["as_of"])})


class ShardWriter:
    """Writes one shard's rows as they come; leaving it without an error makes the shard valid."""

    def __init__(self, staging: Path, shard: int) -> None:
        self.folder = _shard_folder(staging, shard)
        self._states: list[SourceState] = []
        self._waiting: dict[str, list[dict[str, Any]]] = {name: [] for name in _SCHEMAS}
        self._characters = 0
        self._writers: dict[str, Any] = {}

    def __enter__(self) -> ShardWriter:
        """Open the files."""
        import pyarrow.parquet as pq

        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        for name, schema in _SCHEMAS.items():
            self._writers[name] = pq.ParquetWriter(
                self.folder / f"{name}.parquet", schema(), compression="zstd"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what waits and, if nothing was raised, the file that makes the shard valid."""
        if kind is None:
            self._flush()
        for writer in self._writers.values():
            writer.close()
        if kind is None:
            states = [asdict(s) | {"date": s.date and s.date.isoformat()} for s in self._states]
            _write_json(self.folder / _STATES, states)

    def add(self, name: Literal["documents", "quarantine", "present"], row: dict[str, Any]) -> None:
        """Add one row to one of the shard's files."""
        self._waiting[name].append(row)
        self._characters += len(row.get("text", ""))
        if name == "documents" and (
            len(self._waiting[name]) >= _HELD_ROWS or self._characters >= _HELD_CHARACTERS
        ):
            self._flush()

    def state(self, state: SourceState) -> None:
        """Say what became of a source; rows of one that failed are never looked at."""
        self._states.append(state)

    def _flush(self) -> None:
        import pyarrow as pa

        for name, rows in self._waiting.items():
            if rows:
                self._writers[name].write_table(pa.Table.from_pylist(rows, schema=_SCHEMAS[name]()))
                rows.clear()
        self._characters = 0


@dataclass(frozen=True)
class Staged:
    """One run's shards together, and the state of every source in the configuration."""

    folder: Path
    plan: Plan
    sources: tuple[SourceState, ...]
    shards: tuple[int, ...]

    @classmethod
    def load(cls, folder: Path, shard: int | None = None) -> Staged:
        """Return what all shards wrote, or one of them; raises MissingInput when one did not finish."""
        plan = Plan.load(folder)
        shards = tuple(range(plan.shards)) if shard is None else (shard,)
        states: dict[str, list[SourceState]] = {}
        for shard in shards:
            for content in _read_json(_shard_folder(folder, shard) / _STATES, folder):
                date = content["date"] and datetime.fromisoformat(content["date"])
                states.setdefault(content["name"], []).append(SourceState(**content | {"date": date}))
        staged = cls(folder, plan, tuple(map(_joined, states.values())), shards)
        files = staged._files()
        known = tuple(
            replace(s, digest=_digest(files.get(s.name, []), plan.rules.get(s.name))) if s.date else s
            for s in staged.sources
        )
        return replace(staged, sources=known)

    @cached_property
    def present(self) -> pa.Table:
        """Every file of every source that was read: its document, its content, and what became of it."""
        return self._read("present")

    @cached_property
    def quarantine(self) -> pa.Table:
        """The files that are no documents."""
        return self._read("quarantine")

    @cached_property
    def blocked(self) -> dict[str, str]:
        """The sources that the quality gate holds back, and why."""
        file = self.folder / _BLOCKED
        return dict(_read_json(file, self.folder)) if file.exists() else {}

    def block(self, problems: Mapping[str, str]) -> None:
        """Hold these sources back: their documents stay as they are in this run."""
        _write_json(self.folder / _BLOCKED, dict(problems))

    @cached_property
    def aside(self) -> dict[str, dict[str, tuple[str, str]]]:
        """Documents that only repeat another one, by source and id: their path and the other one's."""
        file = self.folder / _ASIDE
        return dict(_read_json(file, self.folder)) if file.exists() else {}

    def set_aside(self, source: str, documents: Mapping[str, tuple[str, str]]) -> None:
        """Keep these documents out: they go to quarantine instead."""
        _write_json(self.folder / _ASIDE, {**self.aside, source: dict(documents)})
        self.__dict__.pop("aside")

    def of_source(self, table: pa.Table, name: str) -> pa.Table:
        """Return the rows of one source."""
        return _of_sources(table, [name])

    def documents(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the new and changed documents, a few hundred at a time."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        readable = [state.name for state in self.sources if state.status == "read"]
        for shard in self.shards:
            with pq.ParquetFile(_shard_folder(self.folder, shard) / "documents.parquet") as file:
                for batch in file.iter_batches(batch_size=_HELD_ROWS, columns=columns):
                    yield _of_sources(pa.Table.from_batches([batch]), readable)

    def decide(self, table_root: str) -> Decision:
        """Return which sources this run may change: those that nobody has merged a newer state of."""
        table = LakeTable(table_root, SNAPSHOTS)
        merged = {row["source"]: row for row in table.read().to_pylist()} if table.exists() else {}
        fresh = tuple(
            state
            for state in self.sources
            if state.date and (state.name not in merged or merged[state.name]["as_of"] <= state.date)
        )
        configured = {state.name for state in self.sources}
        removed = tuple(
            sorted(n for n, row in merged.items() if n not in configured and row["as_of"] <= self.plan.as_of)
        )
        news = tuple(s for s in fresh if s.name not in merged or _is_news(s, merged[s.name]))
        return Decision(fresh, removed, news)

    def _read(self, name: str) -> pa.Table:
        import pyarrow as pa
        import pyarrow.parquet as pq

        readable = [state.name for state in self.sources if state.status == "read"]
        files = [_shard_folder(self.folder, shard) / f"{name}.parquet" for shard in self.shards]
        return _of_sources(pa.concat_tables([pq.read_table(file) for file in files]), readable)

    def _files(self) -> dict[str, list[tuple[str, str, str]]]:
        """Return what is known of each source's files."""
        parts: dict[str, list[tuple[str, str, str]]] = {}
        columns = self.present.select(["source", "document_id", "content_digest", "state"]).columns
        for source, document, digest, state in zip(*(c.to_pylist() for c in columns), strict=True):
            parts.setdefault(source, []).append((document, digest, "-" if state == "refused" else "+"))
        return parts


@dataclass(frozen=True)
class Decision:
    """Which sources to merge, which were taken out of the configuration, which states to remember.

    A newer date of a dated source is remembered even when its content is what is merged already: it may
    have been changed back, and what came in between must not be merged after it. A source without dates
    of its own is remembered when its content differs, so that a run without changes writes nothing. Its
    runs one after the other all see it as it is then, whatever their dates; of overlapping ones, a run
    that read a content changed back since may merge it last, and the next run puts that right.
    """

    fresh: tuple[SourceState, ...]
    removed: tuple[str, ...]
    news: tuple[SourceState, ...]

    @property
    def names(self) -> list[str]:
        """Return the names of the sources whose rows may change."""
        return [*(state.name for state in self.fresh), *self.removed]

    def without(self, sources: Sequence[str]) -> Decision:
        """Return the decision that leaves these sources as they are."""
        return Decision(
            tuple(state for state in self.fresh if state.name not in sources),
            self.removed,
            tuple(state for state in self.news if state.name not in sources),
        )

    def rows(self, table: pa.Table) -> pa.Table:
        """Return the rows of the sources to merge."""
        return _of_sources(table, [state.name for state in self.fresh])


def _of_sources(table: pa.Table, names: Sequence[str]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    return table.filter(pc.is_in(table["source"], pa.array(names, pa.string())))


def _joined(states: list[SourceState]) -> SourceState:
    """Return a source's state over all shards: read when all of them read it, at the earliest date."""
    worst = next((state for state in states if state.status != "read"), None)
    return worst or min(states, key=lambda state: state.date or datetime.max)


def _digest(files: list[tuple[str, str, str]], rules: str | None) -> str:
    """Return a digest of a source's files and rules, the same in whatever order and shards they were read."""
    return hashlib.sha256(json.dumps([rules, *sorted(files)]).encode()).hexdigest()


def _is_news(state: SourceState, merged: dict[str, Any]) -> bool:
    """Return whether the table of snapshots must learn of a state that is not older than the merged one."""
    return bool(merged["digest"] != state.digest or (state.dated and merged["as_of"] != state.date))


def _shard_folder(staging: Path, shard: int) -> Path:
    return staging / f"shard-{shard:04d}"


def _write_json(file: Path, content: Any) -> None:
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2), encoding="utf-8")
    os.replace(partial, file)


def _read_json(file: Path, staging: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingInput(
            f"there is nothing staged in {str(staging)!r} ({file.relative_to(staging)} is not there): "
            "the step that reads the sources did not finish, run it again"
        ) from error
