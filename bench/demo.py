"""The demo from nothing, in a home of its own, and what ingesting again costs when nothing changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.figure import Figure

_LIMIT_SECONDS = 480.0
_CHANGES = ("inserted", "updated", "deleted")


def measure() -> list[Figure]:
    """Run `llmops demo` in a temporary home, then ingest and sync again on the stack that it leaves."""
    with tempfile.TemporaryDirectory(prefix="llmops-bench-") as folder:
        Path(folder).chmod(0o711)
        home = Path(folder) / "home"
        environment = {**os.environ, "LLMOPS_HOME": str(home)}
        command = [sys.executable, "-m", "llmops", "demo"]
        log = Path(folder) / "demo.log"
        with log.open("wb") as output:
            done = subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
            )
        try:
            if done.returncode != 0:
                raise SystemExit(f"the demo failed:\n{log.read_text(errors='replace')[-3000:]}")
            return [*_times(home), *_unchanged(home)]
        finally:
            down = [sys.executable, "-m", "llmops", "stack", "down"]
            subprocess.run(down, env=environment, stdout=subprocess.DEVNULL, check=False)


def _times(home: Path) -> list[Figure]:
    split = json.loads((home / "demo" / "report.json").read_text())
    figures = [Figure("demo, without a person's time", split["total"], "s", _LIMIT_SECONDS, at_most=True)]
    for part in ("stack", "work", "imports", "orchestration"):
        figures.append(Figure(f"  of that: {part}", split[part], "s", split["total"], at_most=None))
    return figures


def _unchanged(home: Path) -> list[Figure]:
    from llmops.stack import Stack

    client = Stack(home).client("author")
    Stack(home).client("admin").unpause("sync_index")

    def results(dag_id: str, conf: dict[str, Any], *tasks: str) -> list[dict[str, Any]]:
        run_id = client.trigger(dag_id, conf)
        state = client.wait_for_run(dag_id, run_id)
        if state != "success":
            raise SystemExit(f"the run {run_id!r} of {dag_id!r} ended as {state}")
        return [client.result(dag_id, run_id, task) for task in tasks]

    assistant = {"assistant": "library_guide"}
    merged = results("ingest_documents", assistant, "merge_documents", "merge_chunks")
    (synced,) = results("sync_index", {**assistant, "all_assistants": False}, "sync_generations")
    written = (
        sum(counts[key] for counts in merged for key in _CHANGES) + synced["upserted"] + synced["deleted"]
    )
    return [
        Figure("ingest again, nothing changed: rows written", written, "rows", 0, at_most=True),
        Figure("ingest again, nothing changed: embeddings", synced["embedded"], "texts", 0, at_most=True),
    ]
