"""What the demo's stages came to, in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def changes(counts: Mapping[str, Any]) -> str:
    """Return how many rows a merge inserted, updated and deleted, in words."""
    return ", ".join(
        f"{counts.get(key, 0)} {word}"
        for key, word in (("inserted", "new"), ("updated", "changed"), ("deleted", "gone"))
    )


def losses(metrics: Mapping[str, float]) -> str:
    """Return how long a training was, and its loss before and after."""
    return f"{metrics['steps']:.0f} steps, loss {metrics['loss_first']:.2f} -> {metrics['loss_last']:.2f}"


def index_line(built: Mapping[str, Any]) -> str:
    """Return what an index generation holds, and who embedded it."""
    embedded, reused = built.get("embedded", 0), built.get("reused", 0)
    rest = built.get("chunks", 0) - embedded - reused
    by_follower = f", {rest} by the index follower" if rest > 0 else ""
    return (
        f"index {built.get('generation')}: {built.get('chunks', 0)} chunks; "
        f"{embedded} embedded in this run, {reused} from the cache{by_follower}"
    )


def why_skipped(log: str) -> str:
    """Return why a release was not assembled, from the log of the task that looked where it stands."""
    if re.search(r"release [0-9a-f]+ is waiting already", log):
        return (
            "Exactly this release is waiting for its approvers already: open the run in Airflow whose "
            "ask_reviewer asks for an answer, and approve or reject there as reviewer."
        )
    if re.search(r"release [0-9a-f]+ is production already", log):
        return "Exactly this release is in production already: nothing to do."
    return "Nothing was released; the log of the task assemble says why."
