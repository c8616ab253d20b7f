"""What every source yields: a file that can be read later, and its place in the source."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Annotated, Any, ClassVar

from pydantic import Field

from llmops.settings import Section

__all__ = [
    "MAX_BYTES",
    "AccessTag",
    "Globs",
    "Snapshot",
    "SourceFile",
    "SourceName",
    "SourceSettings",
    "matches",
    "name_problem",
]

MAX_BYTES = 50_000_000
"""Files above this size go to quarantine unread."""

AccessTag = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$")]
"""A group of readers, such as ``staff`` or ``team:legal``."""

MetadataKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]

SourceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
"""The name of a source: part of every document's identity, so that sources never collide."""

Globs = list[str]

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class SourceSettings(Section):
    """What every source has, whatever its kind.

    ``name`` is its name space: the same path in two sources is two documents. ``metadata`` is laid under
    every document's own and can be filtered by. ``access`` lists who may find its documents: callers that
    have at least one of the tags; everybody when it is empty. ``quality`` has the rules in which the source
    differs from the assistant, ``suite`` the name of a file in ``include/suites`` that replaces the suite of
    expectations. A ``paused`` source keeps its documents.

    A kind is ``divisible`` where its files are cheap to list and can be read by several readers, each a part.
    """

    divisible: ClassVar[bool] = False

    name: SourceName
    metadata: dict[MetadataKey, str] = Field(default={})
    access: tuple[AccessTag, ...] = Field(default=())
    quality: dict[str, Any] = Field(default={})
    suite: str | None = None
    paused: bool = False

    def pinned(self, as_of: datetime) -> str | None:
        """Return what fixes the source's state as of a date for readers that must all see the same.

        None where the kind has no such thing: what is there when it is read is what there is.
        """
        return None


@dataclass(frozen=True)
class SourceFile:
    """One file of a source.

    ``path`` is relative to the source with ``/`` between its parts. ``read`` raises Unreadable where the file
    turns out to be no document, and a TransientError where it must not look like one. ``source_date`` is when the file
    last changed at the source, None where that is not the same on every machine. ``media_type`` is
    None where the name decides. ``problem`` says why the file must not be read at all. ``revision`` is
    what the source itself tells one content of the file from another by, where that costs no reading: a
    Git blob, an entity tag; None where only the content can tell. ``title`` is what the source calls the
    document, None where its text says it.
    """

    path: str
    size: int
    read: Callable[[], bytes]
    source_date: datetime | None = None
    media_type: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    problem: str | None = None
    revision: str | None = None
    title: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """The files of a source at one moment; iterate it once, reading each file before the next.

    ``date`` orders snapshots of one source: an older one never replaces a newer one. Where the source
    has dates of its own (a commit's), it is that, so that it does not depend on when somebody looked, and
    the snapshot is ``dated``. Where it has none, the date is the run's: a run that found nothing new says
    nothing about the source, and only a run that found something moves the source's date.
    """

    date: datetime
    files: Iterable[SourceFile]
    dated: bool = False

    def __iter__(self) -> Iterator[SourceFile]:
        """Iterate over the files."""
        return iter(self.files)


def matches(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Return whether a relative path is included and not excluded by globs (``**`` crosses folders)."""
    return any(_pattern(glob).fullmatch(path) for glob in include) and not any(
        _pattern(glob).fullmatch(path) for glob in exclude
    )


def name_problem(path: str) -> str | None:
    """Return why a path cannot name a document, None when it can."""
    return "its name holds control characters: rename it" if _CONTROL.search(path) else None


@cache
def _pattern(glob: str) -> re.Pattern[str]:
    """Translate a glob: ``*`` and ``?`` stay within one folder, ``**/`` is any number of folders."""
    out, at = [], 0
    while at < len(glob):
        if glob.startswith("**/", at):
            out.append("(?:[^/]+/)*")
            at += 3
        elif glob.startswith("**", at):
            out.append(".*")
            at += 2
        else:
            out.append({"*": "[^/]*", "?": "[^/]"}.get(glob[at], re.escape(glob[at])))
            at += 1
    return re.compile("".join(out), re.DOTALL)
