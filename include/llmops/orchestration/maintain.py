"""The steps of ``compact_tables``."""

from __future__ import annotations

from typing import Any

from llmops.orchestration.context import Run, step
from llmops.settings import assistant_names

__all__ = ["compact_tables", "retire_generations"]


@step("llmops.release")
def retire_generations(run: Run) -> dict[str, Any]:
    """Retire index generations whose rollback window has ended, and drop those retired the last time."""
    from llmops.release import retire_generations as retire

    found = {name: retire(run.environment, name) for name in _names(run)}
    return {what: [g for names in found.values() for g in names[what]] for what in ("dropped", "retired")}


@step("llmops.release")
def compact_tables(run: Run) -> dict[str, Any]:
    """Delete chunks that no generation is made of, compact the tables, delete files that nobody reads any more."""
    from llmops.assistant import load_assistant
    from llmops.corpus import compact_tables as compact
    from llmops.corpus import forget_chunkers
    from llmops.index import generations
    from llmops.lakehouse import LakeTable
    from llmops.release import chunkers_in_use

    totals = {"chunks": 0, "merged": 0, "deleted": 0}
    for name in _names(run):
        root = run.environment.table_root(name)
        if not LakeTable(root, "documents").exists():
            continue
        keep = chunkers_in_use(run.environment, load_assistant(name, run.environment))
        totals["chunks"] += forget_chunkers(root, keep, run.database_url)
        followed = [g.watermark for g in generations(run.database_url, name) if g.state != "retired"]
        since = min((watermark for watermark in followed if watermark is not None), default=None)
        for what, number in compact(root, run.database_url, read_since=since).items():
            totals[what] += number
    return totals


def _names(run: Run) -> list[str]:
    return assistant_names() if run.params.get("all_assistants") else [run.assistant]
