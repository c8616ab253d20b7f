"""Suites: lists of expectations, kept as data in the repository."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from llmops.errors import ConfigurationError
from llmops.quality._rules import QualityRules
from llmops.quality._sensitive import SENSITIVE_KINDS
from llmops.settings import include_root, read_yaml

__all__ = ["DOCUMENT_COLUMNS", "RUN_COLUMNS", "Entry", "Suite", "load_suite"]

DEFAULT = "documents"
"""The suite that comes with the package."""

DOCUMENT_COLUMNS: tuple[str, ...] = (
    *("document_id", "version", "source", "path", "title"),
    *("characters", "words", "damage", "boilerplate_share", "near_duplicate_of"),
    *SENSITIVE_KINDS,
)
"""What expectations on documents may be about."""

RUN_COLUMNS: tuple[str, ...] = ("documents", "quarantined_share", "shrinkage", "near_duplicate_share")
"""What expectations on a source as a whole may be about."""

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_TYPE = re.compile(r"(?:expect_[a-z_]+|unexpected_rows_expectation)")
_ONE_COLUMN = ("column", "column_A", "column_B")
_MANY_COLUMNS = ("column_list", "column_set")


@dataclass(frozen=True)
class Entry:
    """One expectation of a suite, and the words by which a message names it."""

    type: str
    arguments: Mapping[str, Any]
    place: str

    def columns(self) -> tuple[str, ...]:
        """Return the columns that the expectation is about."""
        one = [self.arguments[key] for key in _ONE_COLUMN if key in self.arguments]
        return tuple([*one, *(name for key in _MANY_COLUMNS for name in self.arguments.get(key, ()))])


@dataclass(frozen=True)
class Suite:
    """The expectations on each document, and those on a source as a whole, with the rules' values in them."""

    name: str
    documents: tuple[Entry, ...]
    run: tuple[Entry, ...]


def load_suite(name: str | None, rules: QualityRules) -> Suite:
    """Return the suite in ``include/suites/<name>.yaml``, or the one that comes with the package.

    ``$rule`` in it stands for the value of that rule. Raises ConfigurationError that names the file and the entry
    when a column, a rule or the form is wrong; whether Great Expectations knows the expectation shows when it is used.
    """
    file, values = _read(name)
    unknown = sorted(map(str, values.keys() - {"documents", "run"}))
    if unknown:
        raise ConfigurationError(
            f"{file}: unknown keys {unknown}: a suite has the lists `documents` and `run`"
        )
    sections = {
        section: tuple(
            _entry(entry, f"{file}, {section}[{number}]", columns, rules)
            for number, entry in enumerate(_listed(values.get(section), f"{file}, {section}"))
        )
        for section, columns in (("documents", DOCUMENT_COLUMNS), ("run", RUN_COLUMNS))
    }
    if not any(sections.values()):
        raise ConfigurationError(f"{file} has no expectation: list some under `documents` or `run`")
    return Suite(name or DEFAULT, sections["documents"], sections["run"])


def _read(name: str | None) -> tuple[str, dict[str, Any]]:
    if name is None:
        packaged = resources.files("llmops") / "suites" / f"{DEFAULT}.yaml"
        return f"the suite {DEFAULT}", yaml.safe_load(packaged.read_text("utf-8"))
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"suite name {name!r} is not valid: use lower-case letters, digits, - and _, at most 64"
        )
    path: Path = include_root() / "suites" / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "none"
        raise ConfigurationError(f"no suite {name!r}: {path} does not exist (there is: {known})")
    return str(path), read_yaml(path)


def _listed(entries: Any, place: str) -> list[Any]:
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise ConfigurationError(f"{place} must be a list of expectations, found {type(entries).__name__}")
    return entries


def _entry(entry: Any, place: str, known: tuple[str, ...], rules: QualityRules) -> Entry:
    kind = entry.get("type") if isinstance(entry, Mapping) else None
    if not isinstance(entry, Mapping) or not isinstance(kind, str) or not _TYPE.fullmatch(kind):
        raise ConfigurationError(
            f"{place}: an expectation is a mapping with a `type`, such as "
            "{type: expect_column_values_to_not_be_null, column: title}"
        )
    place = f"{place} ({kind})"
    arguments = {str(key): _value(value, place, rules) for key, value in entry.items() if key != "type"}
    for key in _MANY_COLUMNS:
        if not isinstance(arguments.get(key, []), list):
            raise ConfigurationError(f"{place}: {key} must be a list of columns")
    found = Entry(kind, arguments, place)
    for column in found.columns():
        if column not in known:
            raise ConfigurationError(f"{place}: there is no column {column!r}. There is: {', '.join(known)}")
    return found


def _value(value: Any, place: str, rules: QualityRules) -> Any:
    """Return a value of a suite with every ``$rule`` replaced."""
    if isinstance(value, list):
        return [_value(item, place, rules) for item in value]
    if not isinstance(value, str) or not value.startswith("$"):
        return value
    known = {f"${name}": item for name, item in rules if isinstance(item, int | float | str)}
    if value not in known:
        raise ConfigurationError(f"{place}: there is no rule {value!r}. There is: {', '.join(known)}")
    return known[value]
