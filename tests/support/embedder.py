"""The base embedder, exported once per state of the exporting code."""

from __future__ import annotations

import fcntl
import hashlib
from pathlib import Path

import pytest

from llmops.training import import_base_embedder

_ROOT = Path(__file__).parents[2]
_CACHE = _ROOT / ".llmops-test-cache"


@pytest.fixture(scope="session")
def base_embedder() -> Path:
    """Return the folder of an exported all-MiniLM-L6-v2; treat it as read-only."""
    package = _ROOT / "include" / "llmops"
    code = [package / "training" / "_export.py", package / "training" / "_base.py"]
    key = hashlib.sha256(b"".join(file.read_bytes() for file in code)).hexdigest()[:16]
    folder = _CACHE / f"embedder-{key}"
    _CACHE.mkdir(exist_ok=True)
    with (_CACHE / "embedder.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "embedder.json").is_file():
            import_base_embedder(folder)
    return folder
