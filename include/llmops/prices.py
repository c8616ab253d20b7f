"""What tokens cost: a table that a person keeps, never a guess."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated

from pydantic import Field

from llmops.errors import ConfigurationError
from llmops.manifest import content_hash
from llmops.settings import Section, home, include_root, read_yaml, validate

__all__ = ["Price", "Prices", "load_prices"]

_FILE = "prices.yaml"
_MILLION = 1_000_000

_Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Price(Section):
    """What a million tokens of one model cost: those it is given, and those it writes.

    A model for embeddings writes none, so it has no ``output_per_million``.
    """

    input_per_million: _Amount
    output_per_million: _Amount | None = None


class Prices(Section):
    """The price table: ``include/prices.yaml``, or in its place ``prices.yaml`` in the folder of local state.

    ``models`` are named as assistants name them. A model that is not listed has no known cost, which is not 0.
    """

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    as_of: date
    models: Mapping[Annotated[str, Field(min_length=1, max_length=200)], Price] = Field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Return the sha-256 of the whole table, 64 hexadecimal digits."""
        return content_hash(self.model_dump(mode="json"))

    def cost(self, model: str, given: int, written: int = 0) -> float | None:
        """Return what tokens given to and written by ``model`` cost in ``currency``, or None when that is not known."""
        price = self.models.get(model)
        if price is None or (written and price.output_per_million is None):
            return None
        return (given * price.input_per_million + written * (price.output_per_million or 0)) / _MILLION


def load_prices() -> Prices:
    """Return the price table; raise ConfigurationError that names the file and what is wrong in it."""
    own, shipped = home() / _FILE, include_root() / _FILE
    path = own if own.exists() else shipped
    if not path.exists():
        raise ConfigurationError(
            f"no price table: neither {own} nor {shipped} exists; write one of them, "
            "`{currency: EUR, as_of: 2026-01-01, models: {}}` if no model costs anything that you count"
        )
    return validate(Prices, read_yaml(path), path)
