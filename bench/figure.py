"""One measured figure beside what it is compared with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """``value`` in ``unit`` beside ``reference``: a limit, or what a peer reached in the same run.

    ``at_most`` says on which side of the limit it must be; None is for a part of a whole, which has no limit.
    """

    name: str
    value: float
    unit: str
    reference: float
    at_most: bool | None

    @property
    def holds(self) -> bool:
        """Return whether the figure is on the right side of its reference; a part of a whole always is."""
        if self.at_most is None:
            return True
        return self.value <= self.reference if self.at_most else self.value >= self.reference

    @property
    def ratio(self) -> float | None:
        """Return value over reference, or None when the reference is zero."""
        return self.value / self.reference if self.reference else None

    def line(self) -> str:
        """Return the figure as one line of the table."""
        ratio = "    -" if self.ratio is None else f"{self.ratio:5.2f}"
        sign = {True: "<=", False: ">=", None: "of"}[self.at_most]
        verdict = "" if self.at_most is None else "ok" if self.holds else "MISSED"
        measured = f"{self.name:<48} {self.value:>12.3f} {self.unit:<9}"
        return f"{measured} {sign} {self.reference:<10.3f} {ratio}  {verdict}".rstrip()
