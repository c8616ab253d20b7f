"""What one run read, between reading and merging: three files in a folder."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llmops.corpus._tables import SNAPSHOTS, documents_schema, quarantine_schema
from llmops.errors import MissingInput
from llmops.lakehouse import LakeTable

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["SourceState", "Staged"]


@dataclass(frozen=True)
class SourceState:
    """What became of one source in a run; ``date`` and ``digest`` are there when it was read.

    ``dated`` says that the date is the content's own and not the run's.
    """

    name: str
    status: Literal["read", "failed", "paused"]
    date: datetime | None = None
    digest: str | None = None
    error: str | None = None
    dated: bool = False


@dataclass(frozen=True)
class Staged:
    """One run's documents and quarantine, and the state of every source in the configuration."""

    as_of: datetime
    sources: tuple[SourceState, ...]
    documents: pa.Table
    quarantine: pa.Table

    def write(self, folder: Path) -> None:
        """Write the three files; the last one, ``snapshot.json``, makes them valid."""
        import pyarrow.parquet as pq

        folder.mkdir(parents=True, exist_ok=True)
        (folder / "snapshot.json").unlink(missing_ok=True)
        pq.write_table(self.documents, folder / "documents.parquet")
        pq.write_table(self.quarantine, folder / "quarantine.parquet")
        states = [asdict(state) | {"date": state.date and state.date.isoformat()} for state in self.sources]
        partial = folder / "snapshot.json.partial"
        partial.write_text(json.dumps({"as_of": self.as_of.isoformat(), "sources": states}, indent=2))
        os.replace(partial, folder / "snapshot.json")

    @classmethod
    def load(cls, folder: Path) -> Staged:
        """Return what ``write`` wrote; raises MissingInput when reading did not finish."""
        import pyarrow.parquet as pq

        try:
            content = json.loads((folder / "snapshot.json").read_text())
        except FileNotFoundError as error:
            raise MissingInput(
                f"there is nothing staged in {str(folder)!r}: "
                "the step that reads the sources did not finish, run it again"
            ) from error
        states = [
            SourceState(**state | {"date": state["date"] and datetime.fromisoformat(state["date"])})
            for state in content["sources"]
        ]
        return cls(
            datetime.fromisoformat(content["as_of"]),
            tuple(states),
            pq.read_table(folder / "documents.parquet", schema=documents_schema()),
            pq.read_table(folder / "quarantine.parquet", schema=quarantine_schema()),
        )

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
            sorted(n for n, row in merged.items() if n not in configured and row["as_of"] <= self.as_of)
        )
        news = tuple(s for s in fresh if s.name not in merged or _is_news(s, merged[s.name]))
        return Decision(fresh, removed, news)


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

    def rows(self, table: pa.Table) -> pa.Table:
        """Return the rows of the sources to merge."""
        import pyarrow as pa
        import pyarrow.compute as pc

        wanted = pa.array([state.name for state in self.fresh], pa.string())
        return table.filter(pc.is_in(table["source"], wanted))


def _is_news(state: SourceState, merged: dict[str, Any]) -> bool:
    """Return whether the table of snapshots must learn of a state that is not older than the merged one."""
    return bool(merged["digest"] != state.digest or (state.dated and merged["as_of"] != state.date))
