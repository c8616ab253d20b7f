"""What two releases differ in, field by field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llmops.manifest import Manifest


@dataclass(frozen=True)
class Difference:
    """One field of the manifest with its two values; None where a side has no such field."""

    field: str
    before: Any
    after: Any


def differences(before: Manifest, after: Manifest) -> list[Difference]:
    """Return every field of the manifests that differs, by its dotted name."""
    sides = [dict(_leaves("", manifest.model_dump(mode="json"))) for manifest in (before, after)]
    names = dict.fromkeys([*sides[0], *sides[1]])
    return [
        Difference(name, sides[0].get(name), sides[1].get(name))
        for name in names
        if sides[0].get(name) != sides[1].get(name)
    ]


def _leaves(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every value that is no mapping, by its dotted name; an empty mapping is a value."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else str(key), inner)
    else:
        yield prefix, value
