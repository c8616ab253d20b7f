"""Who may find which chunks, and what a question is limited to, as conditions of a search."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from typing import Any, Final, Literal

from llmops.errors import ConfigurationError

__all__ = ["EVERYTHING", "Access", "Everything", "conditions", "storable"]


class Everything(Enum):
    """The type of EVERYTHING alone."""

    EVERYTHING = "everything"


EVERYTHING: Final = Everything.EVERYTHING
"""Access to every chunk whatever its tags: for measuring an index, never for answering a person."""

Access = Collection[str] | Literal[Everything.EVERYTHING]
"""The tags a caller holds, or EVERYTHING."""

_COLUMNS = ("source", "path", "document_id")
_METADATA_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,15})(\.[0-9]{1,15})?")
_MAX_FILTERS, _MAX_VALUES = 10, 1000


def conditions(filters: Mapping[str, Sequence[str]], access: Access) -> tuple[list[str], dict[str, Any]]:
    """Return what a chunk must fulfil, as constants of this module, and the values of their parameters.

    Raises ConfigurationError for filters out of bounds, and for an ``access`` that is no collection of tags.
    """
    _check(filters)
    found: list[str] = []
    values: dict[str, Any] = {}
    if access is not EVERYTHING:
        found.append("(access = '{}' OR access && %(access)s::text[])")
        values["access"] = _tags(access)
    for name in _COLUMNS:
        if name in filters:
            found.append(f"{name} = ANY(%(only_{name})s)")
            values[f"only_{name}"] = [storable(value) for value in filters[name]]
    metadata = {key: list(filters[key]) for key in filters if key not in _COLUMNS}
    if not all(metadata.values()):
        found.append("false")
    elif metadata:
        found.append("metadata @@ %(only_metadata)s::jsonpath")
        values["only_metadata"] = _jsonpath(metadata)
    return found, values


def storable(text: str) -> str:
    """Replace what Postgres does not take in a text: NUL and lone surrogates."""
    return text.replace("\0", " ").encode("utf-8", "replace").decode("utf-8")


def _tags(access: Collection[str]) -> list[str]:
    """Return the caller's tags without those that no chunk can have; a single string is a mistake."""
    if isinstance(access, str) or not isinstance(access, Collection):
        raise ConfigurationError(f"access {access!r} must be a collection of tags: () finds public chunks")
    if len(access) > _MAX_VALUES or not all(isinstance(tag, str) for tag in access):
        raise ConfigurationError(f"access must be a collection of at most {_MAX_VALUES} strings")
    return sorted({tag for tag in access if tag == storable(tag)})


def _jsonpath(metadata: Mapping[str, Sequence[str]]) -> str:
    """Return a predicate that holds when each key's value, or one of a list of them, is a wanted one."""
    return " && ".join(
        f"({' || '.join(f'$.{json.dumps(key)} == {literal}' for v in wanted for literal in _literals(v))})"
        for key, wanted in metadata.items()
    )


def _literals(value: str) -> list[str]:
    """Return a value as JSON writes it: as a string, and as the number or truth value it may stand for."""
    literals = [json.dumps(storable(value))]
    if value in ("true", "false") or _NUMBER.fullmatch(value):
        literals.append(value)
    return literals


def _check(filters: Mapping[str, Sequence[str]]) -> None:
    if len(filters) > _MAX_FILTERS:
        raise ConfigurationError(f"{len(filters)} filters are too many: use at most {_MAX_FILTERS}")
    for key, values in filters.items():
        if not _METADATA_KEY.fullmatch(key):
            raise ConfigurationError(
                f"filter key {key!r} is not valid: use letters, digits and ._- (at most 64)"
            )
        if (
            isinstance(values, str)
            or len(values) > _MAX_VALUES
            or not all(isinstance(v, str) for v in values)
        ):
            raise ConfigurationError(f"filter {key!r} must be a list of at most {_MAX_VALUES} strings")
