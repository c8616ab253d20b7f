"""The quality gate between reading and merging: every source by itself, all of its documents."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmops.corpus._merging import held_documents
from llmops.corpus._problems import HARMLESS
from llmops.corpus._rules import rules_of
from llmops.corpus._staging import Decision, Staged
from llmops.corpus._tables import QUALITY_RESULTS, SNAPSHOTS, documents_schema
from llmops.errors import MissingInput
from llmops.lakehouse import LakeTable
from llmops.quality import (
    QualityRules,
    SourceFigures,
    SourceVerdict,
    check_sources,
    corpus_figures,
    gate_failure,
    judged_schema,
    result_rows,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from llmops.corpus._sources import AnySource

__all__ = ["Record", "check_quality", "record_quality", "require_documents"]

log = logging.getLogger(__name__)

Record = Callable[[Sequence[SourceVerdict], datetime], None]
"""Keeps what the gate found, with the date of the run, before anybody acts on it."""

_KINDS = ("keys", "cards", "emails", "phones")
_MEASURED = (
    "document_id", "version", "source", "path", "title", "characters", "words", "damage", "sensitive",
    "signature", "lines",
)  # fmt: skip


def check_quality(
    sources: Sequence[AnySource],
    staging: Path,
    table_root: str,
    quality: QualityRules,
    *,
    record: Record | None = None,
) -> dict[str, Any]:
    """Check what is staged against the rules, source by source, before anything is merged.

    All documents of a source are judged, the unchanged ones by what was measured when they were read, as soon as
    anything about the source or its rules has changed. A source that fails is held back: ``merge_documents``
    leaves it as it is. Returns the numbers of ``documents`` and files in quarantine (``quarantined``) of the run,
    and of ``expectations`` checked, and the names of sources that ``failed``, are ``paused`` or ``blocked``.
    Raises QualityGateFailed when every source that has news is held back, naming what failed and on which rows;
    MissingInput when there was no document in any source.
    """
    staged = Staged.load(staging)
    require_documents(staged)
    decision = staged.decide(table_root)
    news = _with_news(staged, decision, table_root)
    verdicts: list[SourceVerdict] = []
    if news:
        figures = [_figures(source, staged, table_root, quality) for source in sources if source.name in news]
        verdicts = check_sources(figures)
        if record is not None:
            record(verdicts, staged.plan.as_of)
    else:
        log.info("Nothing to check: no source has anything that was not judged before")
    blocked = {v.source: f"{'; '.join(map(str, v.failures))} ({v.counts})" for v in verdicts if not v.passed}
    failure = gate_failure(verdicts)
    if failure is not None and len(blocked) == len(verdicts):
        raise failure
    staged.block(blocked)
    states = staged.present["state"].to_pylist()
    return {
        "documents": sum(state != "refused" for state in states),
        "changed": states.count("changed"),
        "quarantined": states.count("refused"),
        "expectations": sum(verdict.expectations for verdict in verdicts),
        "failed": [state.name for state in staged.sources if state.status == "failed"],
        "paused": [state.name for state in staged.sources if state.status == "paused"],
        "blocked": sorted(blocked),
    }


def record_quality(
    verdicts: Sequence[SourceVerdict], run_id: str, as_of: datetime, table_root: str, database_url: str
) -> None:
    """Keep what a run's gate found in the table ``quality_results``; the same run again changes nothing."""
    LakeTable(table_root, QUALITY_RESULTS).merge(
        result_rows(verdicts, run_id, as_of), key="result_id", database_url=database_url
    )


def require_documents(staged: Staged) -> None:
    """Raise MissingInput when there is no document at all: that must not look like a corpus that was emptied."""
    active = [state.name for state in staged.sources if state.status != "paused"]
    if not active or set(staged.present["state"].to_pylist()) & {"changed", "unchanged"}:
        return
    rows = staged.quarantine.to_pylist()
    reasons = "; ".join(f"{row['path']}: {row['reason']}" for row in rows[:3])
    detail = f" ({len(rows)} files were refused, the first: {reasons})" if rows else ""
    raise MissingInput(
        f"no document was found in the sources {active}{detail}: check their paths and `include` globs"
    )


def _with_news(staged: Staged, decision: Decision, table_root: str) -> set[str]:
    """Return the sources with anything to merge, or whose state or rules are not those that were merged last."""
    table = LakeTable(table_root, SNAPSHOTS)
    merged = {r["source"]: r["digest"] for r in table.read().to_pylist()} if table.exists() else {}
    present = zip(staged.present["source"].to_pylist(), staged.present["state"].to_pylist(), strict=True)
    changed = {source for source, state in present if state == "changed"}
    return {s.name for s in decision.fresh if s.name in changed or merged.get(s.name) != s.digest}


def _figures(source: AnySource, staged: Staged, table_root: str, quality: QualityRules) -> SourceFigures:
    """Return everything that the gate looks at of one source; near-duplicates may leave it on the way."""
    rules = rules_of(source, quality)
    present = staged.of_source(staged.present, source.name)
    kept = {
        document: state
        for document, state in zip(
            present["document_id"].to_pylist(), present["state"].to_pylist(), strict=True
        )
        if state != "refused"
    }
    measured = _measured(source.name, staged, table_root, kept)
    over_all = corpus_figures(measured.select(["document_id", "words", "signature", "lines"]), rules)
    repeated = {
        document: first
        for document, first in zip(
            over_all["document_id"].to_pylist(), over_all["near_duplicate_of"].to_pylist(), strict=True
        )
        if first is not None
    }
    rows = _judged(measured, over_all)
    if rules.near_duplicates == "quarantine":
        rows = _without(rows, repeated)
        staged.set_aside(source.name, _paths(measured, repeated))
    held = set(
        held_documents(table_root, [source.name], ["source", "document_id"])["document_id"].to_pylist()
    )
    refused = staged.of_source(staged.quarantine, source.name)["problem"].to_pylist()
    aside = len(repeated) if rules.near_duplicates == "quarantine" else 0
    return SourceFigures(
        name=source.name,
        rules=rules,
        rows=rows,
        documents=rows.num_rows,
        held=len(held),
        vanished=len(held - kept.keys()),
        quarantined=sum(problem not in HARMLESS for problem in refused),
        near_duplicates=len(repeated) - aside,
        suite=source.suite,
    )


def _measured(source: str, staged: Staged, table_root: str, kept: dict[str, str]) -> pa.Table:
    """Return the measures of every document that a source has in this run, in the order of their ids."""
    import pyarrow as pa
    import pyarrow.compute as pc

    empty = pa.schema([documents_schema().field(name) for name in _MEASURED]).empty_table()
    unchanged = pa.array([document for document, state in kept.items() if state == "unchanged"], pa.string())
    held = held_documents(table_root, [source], _MEASURED, staged.plan.base)
    parts = [empty, held.filter(pc.is_in(held["document_id"], unchanged))]
    parts += [staged.of_source(piece, source) for piece in staged.documents(_MEASURED)]
    return pa.concat_tables(parts).sort_by("document_id").combine_chunks()


def _judged(measured: pa.Table, over_all: pa.Table) -> pa.Table:
    import pyarrow as pa

    counts = [json.loads(text or "{}") for text in measured["sensitive"].to_pylist()]
    columns = {
        **{name: measured[name] for name in measured.column_names},
        **{name: over_all[name] for name in ("boilerplate_share", "near_duplicate_of")},
        **{kind: pa.array([found.get(kind, 0) for found in counts], pa.int64()) for kind in _KINDS},
    }
    schema = judged_schema()
    return pa.table({name: columns[name] for name in schema.names}).cast(schema)


def _without(rows: pa.Table, repeated: dict[str, str]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    return rows.filter(pc.invert(pc.is_in(rows["document_id"], pa.array(list(repeated), pa.string()))))


def _paths(measured: pa.Table, repeated: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Return of every document that repeats another one its own path and the other one's."""
    paths = dict(_pairs(measured, "document_id", "path"))
    return {document: (paths[document], paths[first]) for document, first in repeated.items()}


def _pairs(table: pa.Table, *names: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(table[name].to_pylist() for name in names), strict=True)
