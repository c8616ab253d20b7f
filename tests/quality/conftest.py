"""Documents that are about to be judged, and suites in a folder of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from llmops.quality import judged_schema

_SOUND = {"characters": 3000, "words": 500, "damage": 0.0, "boilerplate_share": 0.1}


def judged(count: int = 20, **columns: list[Any]) -> pa.Table:
    """Return sound documents of the source `docs`, with some columns replaced."""
    made: dict[str, list[Any]] = {}
    for field in judged_schema():
        text = [f"{field.name}{n}" for n in range(count)]
        made[field.name] = text if field.type == pa.string() else [_SOUND.get(field.name, 0)] * count
    made |= {"source": ["docs"] * count, "near_duplicate_of": [None] * count}
    return pa.table({**made, **columns}, schema=judged_schema())


@pytest.fixture
def write_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Return what writes the suite `own` into the folder of configuration."""
    monkeypatch.setenv("LLMOPS_INCLUDE", str(tmp_path))

    def write(text: str) -> Path:
        path = tmp_path / "suites" / "own.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write
