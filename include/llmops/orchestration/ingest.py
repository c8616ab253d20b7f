"""The steps of ``ingest_documents`` and ``sync_index``."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from llmops.errors import LlmopsError, TerminalError, TransientError
from llmops.orchestration.context import Run, step
from llmops.settings import assistant_names

if TYPE_CHECKING:
    from llmops.quality import SourceVerdict

__all__ = [
    "check_quality",
    "merge_chunks",
    "merge_documents",
    "parse_documents",
    "plan_shards",
    "prepare_embedder",
    "report_sources",
    "sync_generations",
]


@step("llmops.release")
def prepare_embedder(run: Run) -> dict[str, Any]:
    """Register the assistant's embedder unless it is registered already."""
    from llmops.assistant import load_assistant
    from llmops.release import ensure_embedder

    pin = ensure_embedder(run.environment, load_assistant(run.assistant, run.environment))
    return {"embedder": pin and pin.uri}


def plan_shards(run: Run) -> list[int]:
    """Divide the sources into shards of bounded size, one parsing task each."""
    from llmops.assistant import load_assistant
    from llmops.corpus import plan_shards as plan

    assistant = load_assistant(run.assistant, run.environment)
    workers = run.environment.workers
    return plan(
        assistant.sources, assistant.quality,
        as_of=run.as_of, staging=run.staging, table_root=run.table_root, workers=workers,
    )  # fmt: skip


@step("llmops.assistant")
def parse_documents(run: Run, shard: int) -> dict[str, Any]:
    """Read and parse one shard of every source as of the run's date, into the run's staging folder."""
    from llmops.assistant import load_assistant
    from llmops.corpus import read_shard

    assistant = load_assistant(run.assistant, run.environment)
    return dict(
        read_shard(
            assistant.sources, assistant.quality,
            staging=run.staging, shard=shard, table_root=run.table_root,
        )
    )  # fmt: skip


@step("llmops.assistant")
def check_quality(run: Run) -> dict[str, Any]:
    """Let the quality gate judge what was parsed, source by source, before anything changes, and publish why."""
    from llmops.assistant import load_assistant
    from llmops.corpus import check_quality as check
    from llmops.corpus import record_quality
    from llmops.quality import docs_folder, publish

    def record(verdicts: Sequence[SourceVerdict], as_of: datetime) -> None:
        record_quality(verdicts, run.run_id, as_of, run.table_root, run.database_url)
        publish(verdicts, docs_folder(run.assistant, run.run_id), run_id=run.run_id, as_of=as_of)

    assistant = load_assistant(run.assistant, run.environment)
    return dict(check(assistant.sources, run.staging, run.table_root, assistant.quality, record=record))


@step("llmops.corpus")
def merge_documents(run: Run) -> dict[str, Any]:
    """Merge what was parsed into the documents table."""
    from llmops.corpus import merge_documents as merge

    return dict(merge(run.staging, run.table_root, run.database_url))


@step("llmops.release")
def merge_chunks(run: Run) -> dict[str, Any]:
    """Chunk what changed, once for every chunker in use."""
    from llmops.assistant import load_assistant
    from llmops.corpus import merge_chunks as merge
    from llmops.release import chunkers_in_use

    chunkers = chunkers_in_use(run.environment, load_assistant(run.assistant, run.environment))
    return dict(merge(run.table_root, chunkers, run.database_url))


@step("llmops.corpus")
def report_sources(run: Run) -> dict[str, Any]:
    """Give back the staging folder, and fail when a source could not be read or was held back."""
    from llmops.corpus import report_sources as report

    try:
        return {"sources": report(run.staging)}
    finally:
        shutil.rmtree(run.staging, ignore_errors=True)


@step("llmops.release")
def sync_generations(run: Run) -> dict[str, Any]:
    """Bring every live or building generation of the assistant, or of all, to its chunks table's head.

    An assistant that fails does not keep the others waiting; the task fails at the end and names it.
    """
    from llmops.release import sync_generations as sync

    names = assistant_names() if run.params.get("all_assistants") else [run.assistant]
    totals: dict[str, int] = {"generations": 0, "embedded": 0, "reused": 0, "upserted": 0, "deleted": 0}
    failures: dict[str, LlmopsError] = {}
    for name in names:
        try:
            done = sync(run.environment, name)
        except LlmopsError as error:
            failures[name] = error
            continue
        for counts in done:
            totals["generations"] += 1
            for key in ("embedded", "reused", "upserted", "deleted"):
                totals[key] += int(getattr(counts, key))
    if failures:
        kind = (
            TransientError if any(isinstance(e, TransientError) for e in failures.values()) else TerminalError
        )
        raise kind("; ".join(f"{name}: {error}" for name, error in failures.items()))
    return totals
