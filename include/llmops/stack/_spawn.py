"""Starting a process in a session of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from llmops.stack._accounts import Account

__all__ = ["START_OF_LOG", "spawn"]

START_OF_LOG = "---- started"
"""Begins the line in a log file that each start of its process writes."""


def spawn(
    command: Sequence[str],
    output: IO[bytes] | int,
    *,
    environment: Mapping[str, str],
    folder: Path,
    account: Account | None = None,
) -> subprocess.Popen[bytes]:
    """Start ``command`` in ``folder`` as ``account``; its output and errors go to ``output``."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env=dict(environment),
        start_new_session=True,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )
