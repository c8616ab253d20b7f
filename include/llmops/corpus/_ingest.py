"""From sources to the ``documents`` table: read, check, merge."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from llmops.corpus._delta_table import DeltaTableSource
from llmops.corpus._directory import DirectorySource
from llmops.corpus._files import MAX_BYTES, SourceFile
from llmops.corpus._git import GitSource
from llmops.corpus._object_store import ObjectStoreSource
from llmops.corpus._packages import PackagesSource
from llmops.corpus._parsing import parse
from llmops.corpus._problems import Unreadable
from llmops.corpus._staging import Decision, SourceState, Staged
from llmops.corpus._tables import (
    DOCUMENTS,
    QUARANTINE,
    SNAPSHOTS,
    document_id,
    documents_schema,
    quarantine_schema,
    snapshots_schema,
)
from llmops.corpus._website import WebsiteSource
from llmops.database import advisory_lock
from llmops.errors import ConfigurationError, LlmopsError, MissingInput
from llmops.lakehouse import LakeTable
from llmops.manifest import canonical_json, content_hash
from llmops.quality import QualityRules, check_documents

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Source", "check_quality", "merge_documents", "read_sources"]

log = logging.getLogger(__name__)

AnySource = (
    PackagesSource | DirectorySource | GitSource | ObjectStoreSource | WebsiteSource | DeltaTableSource
)
Source = Annotated[AnySource, Field(discriminator="kind")]
"""Where documents come from; ``kind`` says which."""

Row = dict[str, Any]


def read_sources(sources: Sequence[AnySource], *, as_of: datetime, staging: Path) -> dict[str, Any]:
    """Read every source as of a date and stage what was found; nothing else changes.

    A source that fails keeps the documents it has and is named under ``failed``; so does one that is
    ``paused``. ``as_of`` has a time zone. Returns the counts ``documents``, ``quarantined``,
    ``characters``, ``failed`` and ``paused``. Raises the source's own error when none could be read,
    and MissingInput when there was no document in any of them.
    """
    _check_request(sources, as_of)
    documents: list[Row] = []
    quarantine: list[Row] = []
    states: list[SourceState] = []
    errors: list[LlmopsError | OSError] = []
    for source in sources:
        try:
            state, good, bad = _read_source(source, as_of)
        except (LlmopsError, OSError) as error:
            log.warning("Source %s was not read, its documents stay as they are: %s", source.name, error)
            errors.append(error)
            states.append(SourceState(source.name, "failed", error=str(error)))
            continue
        states.append(state)
        documents += good
        quarantine += bad
    active = [source.name for source in sources if not source.paused]
    _check_outcome(active, errors, documents, quarantine)
    tables = _table(documents, documents_schema()), _table(quarantine, quarantine_schema())
    Staged(as_of, tuple(states), *tables).write(staging)
    counts = {
        "documents": len(documents),
        "quarantined": len(quarantine),
        "characters": sum(len(row["text"]) for row in documents),
        "failed": [state.name for state in states if state.status == "failed"],
        "paused": [state.name for state in states if state.status == "paused"],
    }
    log.info("Read %(documents)d documents, %(quarantined)d in quarantine", counts)
    return counts


def check_quality(staging: Path, table_root: str, rules: QualityRules) -> dict[str, Any]:
    """Check what is staged against the rules, before anything is merged.

    Only sources that this run may change are looked at. Returns the number of documents and of
    expectations; raises QualityGateFailed naming the expectations that failed and on which rows.
    """
    staged = Staged.load(staging)
    decision = staged.decide(table_root)
    if not decision.fresh:
        log.info("Nothing to check: newer states of all sources are merged already")
        return {"documents": 0, "expectations": 0}
    rows, refused = decision.rows(staged.documents), decision.rows(staged.quarantine)
    held = set(_held_ids(table_root, [state.name for state in decision.fresh]))
    vanished = len(held - set(rows["document_id"].to_pylist()))
    broken = sum(problem == "unreadable" for problem in refused["problem"].to_pylist())
    verdict = check_documents(rows, broken, len(held), vanished, rules)
    return {"documents": rows.num_rows, "expectations": verdict.expectations}


def merge_documents(staging: Path, table_root: str, database_url: str) -> dict[str, int]:
    """Bring ``documents`` and ``quarantine`` to what is staged, source by source.

    A source of which a newer state is merged already stays as it is, so the order of runs does not
    matter; documents of sources that the configuration no longer has are removed. Returns how many
    documents were inserted, updated, deleted, unchanged and are in quarantine.
    """
    staged = Staged.load(staging)
    with advisory_lock(database_url, f"documents:{table_root}"):
        decision = staged.decide(table_root)
        _remember(decision, table_root, database_url)
        rows, refused = decision.rows(staged.documents), decision.rows(staged.quarantine)
        scope = ("source", decision.names)
        counts = LakeTable(table_root, DOCUMENTS).merge(
            rows, key="document_id", database_url=database_url, delete_missing=True, scope=scope
        )
        LakeTable(table_root, QUARANTINE).merge(
            _counted(refused, table_root),
            key="document_id", database_url=database_url, delete_missing=True, scope=scope,
        )  # fmt: skip
    result = {
        "inserted": counts.inserted,
        "updated": counts.updated,
        "deleted": counts.deleted,
        "unchanged": rows.num_rows - counts.inserted - counts.updated,
        "quarantined": refused.num_rows,
    }
    log.info("Documents: %s", ", ".join(f"{n} {what}" for what, n in result.items()))
    return result


def _check_request(sources: Sequence[AnySource], as_of: datetime) -> None:
    if as_of.tzinfo is None:
        raise ConfigurationError(f"as_of {as_of.isoformat()} has no time zone: give it one")
    if not sources:
        raise ConfigurationError("no source is configured: add one under `sources` in the assistant's file")
    repeated = sorted(name for name, n in Counter(source.name for source in sources).items() if n > 1)
    if repeated:
        raise ConfigurationError(f"the sources {repeated} are configured more than once: rename all but one")


def _check_outcome(
    active: list[str], errors: list[LlmopsError | OSError], documents: list[Row], quarantine: list[Row]
) -> None:
    """Raise when nothing was read at all, which must not look like an empty corpus."""
    if active and len(errors) == len(active):
        if len(errors) == 1:
            raise errors[0]
        raise MissingInput("none of the sources could be read: " + "; ".join(map(str, errors)))
    if active and not documents:
        reasons = "; ".join(f"{row['path']}: {row['reason']}" for row in quarantine[:3])
        detail = f" ({len(quarantine)} files were refused, the first: {reasons})" if quarantine else ""
        raise MissingInput(
            f"no document was found in the sources {active}{detail}: check their paths and `include` globs"
        )


def _read_source(source: AnySource, as_of: datetime) -> tuple[SourceState, list[Row], list[Row]]:
    """Return a source's state, its documents and its quarantined files."""
    if source.paused:
        return SourceState(source.name, "paused"), [], []
    documents, quarantine = [], []
    snapshot = source.discover(as_of)
    for file in snapshot:
        digest: str | None = None
        try:
            content = _content(file)
            digest = hashlib.sha256(content).hexdigest()
            documents.append(_document(source.name, file, content))
        except Unreadable as error:
            quarantine.append(_refused(source.name, file, error, digest))
    parts = [[r["document_id"], r.get("version"), r.get("reason")] for r in [*documents, *quarantine]]
    state = SourceState(source.name, "read", snapshot.date, content_hash(parts), dated=snapshot.dated)
    return state, documents, quarantine


def _content(file: SourceFile) -> bytes:
    if file.problem:
        raise Unreadable(file.problem)
    if file.size > MAX_BYTES:
        raise Unreadable(
            f"it has {file.size:,} bytes, more than the {MAX_BYTES:,} a document may have: split it"
        )
    try:
        return file.read()
    except OSError as error:
        raise Unreadable(f"it cannot be read: {error.strerror or error}") from error


def _document(source: str, file: SourceFile, content: bytes) -> Row:
    parsed = parse(file.path, file.media_type, content)
    return {
        "document_id": document_id(source, file.path),
        "version": hashlib.sha256(f"{parsed.title}\0{parsed.text}".encode()).hexdigest(),
        "source": source,
        "path": file.path,
        "title": parsed.title,
        "text": parsed.text,
        "media_type": parsed.media_type,
        "source_date": file.source_date,
        "metadata": canonical_json(dict(file.metadata)),
    }


def _refused(source: str, file: SourceFile, error: Unreadable, digest: str | None) -> Row:
    log.log(
        logging.DEBUG if error.problem == "unsupported" else logging.WARNING,
        "Quarantined %s of source %s: %s", file.path, source, error,
    )  # fmt: skip
    return {
        "document_id": document_id(source, file.path),
        "source": source,
        "path": file.path,
        "problem": error.problem,
        "reason": str(error),
        "content_digest": digest or hashlib.sha256(f"{file.size}\0{error}".encode()).hexdigest(),
        "count": 1,
    }


def _remember(decision: Decision, table_root: str, database_url: str) -> None:
    """Note the states about to be merged first: a run that dies now leaves no gap for an older one."""
    import pyarrow as pa

    news = decision.news
    rows = pa.table(
        [[s.name for s in news], [s.date for s in news], [s.digest for s in news]],
        schema=snapshots_schema(),
    )
    LakeTable(table_root, SNAPSHOTS).merge(
        rows, key="source", database_url=database_url, delete_missing=True, scope=("source", decision.removed)
    )


def _counted(refused: pa.Table, table_root: str) -> pa.Table:
    """Count a file again when other content of it was refused than the last time."""
    import pyarrow as pa

    table = LakeTable(table_root, QUARANTINE)
    if not table.exists() or not refused.num_rows:
        return refused
    held = {
        row["document_id"]: row for row in table.read(["document_id", "content_digest", "count"]).to_pylist()
    }
    counts = []
    for row in refused.select(["document_id", "content_digest"]).to_pylist():
        before = held.get(row["document_id"], {"count": 0, "content_digest": None})
        counts.append(before["count"] + (before["content_digest"] != row["content_digest"]))
    return refused.set_column(refused.schema.get_field_index("count"), "count", pa.array(counts, pa.int32()))


def _held_ids(table_root: str, sources: Iterable[str]) -> list[str]:
    import pyarrow as pa
    import pyarrow.compute as pc

    table = LakeTable(table_root, DOCUMENTS)
    if not table.exists():
        return []
    rows = table.read(["document_id", "source"])
    kept = rows.filter(pc.is_in(rows["source"], pa.array(list(sources), pa.string())))
    return list(kept["document_id"].to_pylist())


def _table(rows: list[Row], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist(sorted(rows, key=lambda r: (r["source"], r["path"])), schema=schema)
