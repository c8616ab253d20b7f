"""A sentence whose vector is known: whether an endpoint still computes what it did."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llmops.errors import EmbedderMismatch
from llmops.settings import Section

__all__ = ["PROBE_TEXT", "Probe"]

PROBE_TEXT = "A connection pool keeps 4 connections open, so that a query need not wait for one."

_NUMBERS = 16
_LOWEST_COSINE = 0.999
_LARGEST_STRETCH = 0.02


class Probe(Section):
    """A fixed sentence with the first numbers and the norm of its vector, as the endpoint gave it."""

    text: str
    numbers: Annotated[tuple[float, ...], Field(min_length=1, max_length=_NUMBERS)]
    norm: Annotated[float, Field(gt=0, allow_inf_nan=False)]

    @classmethod
    def of(cls, vector: NDArray[np.float64]) -> Probe:
        """Return the probe that a vector of ``PROBE_TEXT`` makes."""
        numbers = tuple(float(number) for number in vector[:_NUMBERS])
        return cls(text=PROBE_TEXT, numbers=numbers, norm=float(np.linalg.norm(vector)))

    def check(self, vector: NDArray[np.float64], dimension: int, place: str) -> None:
        """Raise EmbedderMismatch unless ``vector`` is that of the same model: cosine of the known part >= 0.999.

        Parts of unit vectors are compared, so an endpoint that begins to normalise is no other model.
        """
        if vector.size != dimension:
            found = f"{vector.size} numbers instead of {dimension}"
        else:
            then = np.array(self.numbers) / self.norm
            now = vector[: len(self.numbers)] / np.linalg.norm(vector)
            lengths = float(np.linalg.norm(then)), float(np.linalg.norm(now))
            cosine = float(then @ now) / max(math.prod(lengths), 1e-30)
            if cosine >= _LOWEST_COSINE and abs(lengths[1] / lengths[0] - 1) <= _LARGEST_STRETCH:
                return
            found = f"another vector (cosine {cosine:.4f}, at least {_LOWEST_COSINE} is asked for)"
        raise EmbedderMismatch(
            f"{place} gives {found} for the sentence that it was registered with, so it has another model now: no "
            "vector was made. Put the former model back, or register what it is now with `llmops model import` and "
            "release it, which builds an index of its own"
        )
