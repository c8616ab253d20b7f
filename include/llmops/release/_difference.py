"""What two releases differ in, field by field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llmops.manifest import Manifest, canonical_json

_Path = tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """One field of the manifest with its two values; None where a side has no such field."""

    field: str
    before: Any
    after: Any


def differences(before: Manifest, after: Manifest) -> list[Difference]:
    """Return every field of the manifests that differs, by its dotted name; none only for the same release id."""
    sides = [dict(_leaves((), manifest.model_dump(mode="json"))) for manifest in (before, after)]
    paths = dict.fromkeys([*sides[0], *sides[1]])
    inner = {path[:depth] for path in paths for depth in range(len(path))}
    return [
        Difference(".".join(path), one, other)
        for path in paths
        for one, other in [(sides[0].get(path), sides[1].get(path))]
        if _hashed(sides[0], path) != _hashed(sides[1], path)
        and not (
            one is None and other is None and path in inner
        )  # its leaves say already that it came or went
    ]


def _leaves(path: _Path, value: Any) -> Iterator[tuple[_Path, Any]]:
    """Yield every value that is no mapping, by the keys that lead to it; an empty mapping is a value."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves((*path, str(key)), inner)
    else:
        yield path, value


def _hashed(side: Mapping[_Path, Any], path: _Path) -> str | None:
    """Return a value as it goes into the release id, where null is not absent and 1 is not 1.0 or true."""
    return canonical_json(side[path]) if path in side else None
