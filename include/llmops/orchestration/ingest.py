"""The steps of ``ingest_documents`` and ``sync_index``."""

from __future__ import annotations

import shutil
from typing import Any

from llmops.errors import LlmopsError, TerminalError, TransientError
from llmops.orchestration.context import Run, step
from llmops.settings import assistant_names

__all__ = [
    "check_quality",
    "merge_chunks",
    "merge_documents",
    "parse_documents",
    "prepare_embedder",
    "sync_generations",
]


@step("llmops.release")
def prepare_embedder(run: Run) -> dict[str, Any]:
    """Import the assistant's base embedder unless it is registered already."""
    from llmops.assistant import load_assistant
    from llmops.database import advisory_lock
    from llmops.release import registry_of
    from llmops.training import ensure_base_embedder

    assistant = load_assistant(run.assistant, run.environment)
    if assistant.retrieval.kind == "none":
        return {"embedder": None}
    with advisory_lock(run.database_url, f"embedder:{run.environment.catalog}:{run.assistant}"):
        pin = ensure_base_embedder(registry_of(run.environment, run.assistant), assistant.base_embedder)
    return {"embedder": pin.uri}


@step("llmops.assistant")
def parse_documents(run: Run) -> dict[str, Any]:
    """Discover and parse every source as of the run's date, into the run's staging folder."""
    from llmops.assistant import load_assistant
    from llmops.corpus import read_sources

    assistant = load_assistant(run.assistant, run.environment)
    return dict(read_sources(assistant.sources, as_of=run.as_of, staging=run.staging))


@step("llmops.assistant", "great_expectations")
def check_quality(run: Run) -> dict[str, Any]:
    """Let the quality gate judge what was parsed, before anything changes."""
    from llmops.assistant import load_assistant
    from llmops.corpus import check_quality as check

    assistant = load_assistant(run.assistant, run.environment)
    return dict(check(run.staging, run.table_root, assistant.quality))


@step("llmops.corpus")
def merge_documents(run: Run) -> dict[str, Any]:
    """Merge what was parsed into the documents table."""
    from llmops.corpus import merge_documents as merge

    return dict(merge(run.staging, run.table_root, run.database_url))


@step("llmops.release")
def merge_chunks(run: Run) -> dict[str, Any]:
    """Chunk what changed, once for every chunker in use, and give back the staging folder."""
    from llmops.assistant import load_assistant
    from llmops.corpus import merge_chunks as merge
    from llmops.release import chunkers_in_use

    chunkers = chunkers_in_use(run.environment, load_assistant(run.assistant, run.environment))
    counts = merge(run.table_root, chunkers, run.database_url)
    shutil.rmtree(run.staging, ignore_errors=True)
    return dict(counts)


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
