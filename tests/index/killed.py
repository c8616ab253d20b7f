"""A process that syncs or follows, says what it does line by line, and can be killed at any of these moments."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmops.errors import LlmopsError
from llmops.index import _sync, follow, sync
from llmops.lakehouse import LakeTable
from support.hash_embedder import HashEmbedder


def say(line: str) -> None:
    print(line, flush=True)


def main(task: str, url: str, generation: str, root: str, history: str, *switches: str) -> None:
    """Do ``task``, with small batches; ``history`` gets a line per embedded text."""
    _sync._BATCH, _sync._SLICE = 12, 4
    if "no lock" in switches:
        _sync._lock = lambda *arguments: None  # as if the database had taken it away unnoticed
    if "short idle" in switches:
        _sync._IDLE_LIMIT = "2s"
    write = _sync.write_batch

    def writing(*arguments: Any) -> Any:
        say("write")
        known = write(*arguments)
        say("written")
        return known

    def embedding(texts: Sequence[str]) -> None:
        say("embed")
        with Path(history).open("a") as file:
            file.writelines(f"{text!r}\n" for text in texts)

    _sync.write_batch = writing
    embedder: Any = HashEmbedder(before=embedding)
    table = LakeTable(root, "chunks")
    say("ready")
    if task == "sync":
        try:
            say(f"done {sync(url, generation, table, embedder)}")
        except LlmopsError as error:
            say(f"refused {type(error).__name__}: {error}")
    else:
        stop = threading.Event()
        follow(url, lambda _: table, lambda _: embedder, stop=stop, poll_seconds=0.05)


if __name__ == "__main__":
    main(*sys.argv[1:])
