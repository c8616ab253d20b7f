"""Sources that hold one folder per date: which of the folders is the source's state as of a date."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from llmops.corpus._files import SourceSettings
from llmops.errors import MissingInput

__all__ = ["Drop", "DropSettings"]

log = logging.getLogger(__name__)

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True)
class Drop:
    """A folder called by its date, and the midnight (UTC) at which that date begins."""

    name: str
    date: datetime


class DropSettings(SourceSettings):
    """Settings of a source that may be delivered as one folder per date.

    ``layout: dated`` means that every folder at the top, called ``YYYY-MM-DD``, holds the whole source as it was
    delivered that day; the newest one whose date had begun counts, so a backfill replays history: the run of a
    day ends at the next midnight, and takes that day's folder.
    Where ``complete_marker`` names a file, only folders that hold it count: write it last.
    """

    layout: Literal["latest", "dated"] = "latest"
    complete_marker: Annotated[str, Field(pattern=r"^[^/\\]{1,255}$")] | None = None

    @model_validator(mode="after")
    def _marker_has_a_use(self) -> Self:
        if self.complete_marker and self.layout != "dated":
            raise ValueError(
                "`complete_marker` marks the folders of `layout: dated`: set that, or leave it out"
            )
        return self

    def _drop(
        self,
        where: str,
        folders: Iterable[str],
        as_of: datetime,
        pin: str | None,
        holds: Callable[[str], bool],
    ) -> Drop:
        """Return the folder that counts; ``holds`` says whether there is a file at a path.

        Raises MissingInput when no folder is old enough and complete.
        """
        drops = self._dated(where, folders)
        if pin is not None:
            return self._pinned_drop(where, drops, pin)
        early = [drop for drop in drops if drop.date < as_of]
        for drop in sorted(early, key=lambda drop: drop.date, reverse=True):
            if not self.complete_marker or holds(f"{drop.name}/{self.complete_marker}"):
                log.info("Source %s is at its folder %s", self.name, drop.name)
                return drop
            log.warning(
                "Source %s: the folder %s has no file %r yet and is left alone",
                self.name, drop.name, self.complete_marker,
            )  # fmt: skip
        complete = f" that holds {self.complete_marker!r}" if self.complete_marker else ""
        raise MissingInput(
            f"source {self.name!r}: {where!r} has no folder of a date before {as_of.isoformat()}{complete} "
            f"(of {len(drops)} with a date): deliver one, or start the backfill later"
        )

    def _pinned_drop(self, where: str, drops: list[Drop], pin: str) -> Drop:
        for drop in drops:
            if drop.name == pin:
                return drop
        raise MissingInput(
            f"source {self.name!r}: {where!r} has no folder {pin!r} (any more): "
            "it went while it was being read; run this again from the start"
        )

    def _dated(self, where: str, folders: Iterable[str]) -> list[Drop]:
        drops, others = [], []
        for name in folders:
            try:
                if not _DATE.fullmatch(name):
                    raise ValueError(name)
                drops.append(Drop(name, datetime.fromisoformat(name).replace(tzinfo=UTC)))
            except ValueError:
                others.append(name)
        if others:
            log.warning(
                "Source %s: %d folders in %r are left alone, as their names are no dates (YYYY-MM-DD): %r",
                self.name, len(others), where, sorted(others)[:3],
            )  # fmt: skip
        return drops
