"""From sources to staged documents: plan and read, and at the end report."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmops.corpus._checking import require_documents
from llmops.corpus._reading import read_shard as stage_shard
from llmops.corpus._rules import rules_digests
from llmops.corpus._staging import Plan, SourceState, Staged
from llmops.corpus._tables import DOCUMENTS
from llmops.errors import ConfigurationError, LlmopsError, SourceFailed
from llmops.lakehouse import LakeTable
from llmops.quality import QualityRules

if TYPE_CHECKING:
    from llmops.corpus._sources import AnySource

__all__ = ["plan_shards", "read_shard", "read_sources", "report_sources"]

log = logging.getLogger(__name__)

_SHARD_FILES = 2000
_DEFAULT = QualityRules()


def plan_shards(
    sources: Sequence[AnySource],
    quality: QualityRules,
    *,
    as_of: datetime,
    staging: Path,
    table_root: str,
    workers: int,
) -> list[int]:
    """Begin a run and return its shards: of some 2,000 files each, at most two per worker.

    ``as_of`` has a time zone. Whatever the folder ``staging`` holds is removed. A source that cannot be
    listed is left to its shard, which says so. Raises ConfigurationError for sources that cannot be told
    apart, or none, and for wrong rules or suites.
    """
    _check_request(sources, as_of)
    rules = rules_digests(sources, quality)
    pins: dict[str, str | None] = {}
    files = 0
    for source in sources:
        if source.paused:
            continue
        try:
            pins[source.name] = source.pinned(as_of)
            if source.divisible and workers > 1:
                files += sum(1 for _ in source.discover(as_of, pin=pins[source.name]))
        except (LlmopsError, OSError) as error:
            log.warning("Source %s cannot be listed: %s", source.name, error)
    shards = max(1, min(-(-files // _SHARD_FILES), 2 * workers))
    Plan(as_of, shards, LakeTable(table_root, DOCUMENTS).version(), pins, rules).write(staging)
    return list(range(shards))


def read_shard(
    sources: Sequence[AnySource], quality: QualityRules, *, staging: Path, shard: int, table_root: str
) -> dict[str, Any]:
    """Read one shard of every source, as planned, and stage what is new; nothing else changes.

    A source that fails keeps the documents it has and is named under ``failed``; so does one that is
    ``paused``. Returns the counts ``documents`` (of which ``changed`` are new or changed), ``quarantined``,
    ``characters`` (of what is new or changed), ``failed`` and ``paused``. Raises the source's own error when
    none could be read.
    """
    states = stage_shard(sources, quality, staging=staging, shard=shard, table_root=table_root)
    counts = _counts(Staged.load(staging, shard), states)
    log.info("Read %(documents)d documents, %(changed)d of them new, %(quarantined)d in quarantine", counts)
    return counts


def read_sources(
    sources: Sequence[AnySource],
    quality: QualityRules = _DEFAULT,
    *,
    as_of: datetime,
    staging: Path,
    table_root: str,
) -> dict[str, Any]:
    """Read every source in this process: ``plan_shards`` and ``read_shard`` with one shard."""
    plan_shards(sources, quality, as_of=as_of, staging=staging, table_root=table_root, workers=1)
    counts = read_shard(sources, quality, staging=staging, shard=0, table_root=table_root)
    require_documents(Staged.load(staging))
    return counts


def report_sources(staging: Path) -> int:
    """Return how many sources a run brought up to date.

    Raises SourceFailed naming those that could not be read or were held back by the quality gate, when the
    run is otherwise done.
    """
    staged = Staged.load(staging)
    problems = {state.name: str(state.error) for state in staged.sources if state.status == "failed"}
    problems |= staged.blocked
    if problems:
        raise SourceFailed(
            f"{len(problems)} of {len(staged.sources)} sources keep the documents they had, the others are up to "
            "date: " + "; ".join(f"{name}: {problem}" for name, problem in sorted(problems.items()))
        )
    return sum(state.status == "read" for state in staged.sources)


def _check_request(sources: Sequence[AnySource], as_of: datetime) -> None:
    if as_of.tzinfo is None:
        raise ConfigurationError(f"as_of {as_of.isoformat()} has no time zone: give it one")
    if not sources:
        raise ConfigurationError("no source is configured: add one under `sources` in the assistant's file")
    repeated = sorted(name for name, n in Counter(source.name for source in sources).items() if n > 1)
    if repeated:
        raise ConfigurationError(f"the sources {repeated} are configured more than once: rename all but one")


def _counts(staged: Staged, states: Sequence[SourceState]) -> dict[str, Any]:
    found = Counter(staged.present["state"].to_pylist())
    characters = sum(
        sum(piece["characters"].to_pylist()) for piece in staged.documents(["source", "characters"])
    )
    return {
        "documents": found["changed"] + found["unchanged"],
        "changed": found["changed"],
        "quarantined": found["refused"],
        "characters": characters,
        "failed": [state.name for state in states if state.status == "failed"],
        "paused": [state.name for state in states if state.status == "paused"],
    }
