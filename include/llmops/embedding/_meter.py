"""What a run of an embedder used and cost, and the budget it must keep to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llmops.errors import BudgetExceeded, ConfigurationError
from llmops.prices import Prices
from llmops.settings import EndpointAccess

__all__ = ["EmbeddingUsage", "Meter"]


@dataclass(frozen=True)
class EmbeddingUsage:
    """Tokens that an endpoint was given, and their cost in the price table's currency.

    ``cost`` is None when the model has no known price, which is not 0; a local embedder uses no tokens of anybody's.
    """

    tokens: int = 0
    cost: float | None = 0.0

    def __sub__(self, earlier: EmbeddingUsage) -> EmbeddingUsage:
        unknown = self.cost is None or earlier.cost is None
        return EmbeddingUsage(
            self.tokens - earlier.tokens, None if unknown else (self.cost or 0) - (earlier.cost or 0)
        )


class Meter:
    """Adds up what one run uses; thread-safe.

    Before a request is sent its tokens are reserved as an estimate, so that requests side by side cannot together
    exceed the budget; the answer replaces the estimate by what the endpoint says it used.
    """

    def __init__(
        self,
        name: str = "",
        model: str | None = None,
        access: EndpointAccess | None = None,
        prices: Callable[[], Prices] | None = None,
    ) -> None:
        self._name = name
        self._model = model
        self._access = access or EndpointAccess()
        self._prices = prices
        self._lock = threading.Lock()
        self._used = 0
        self._reserved = 0
        if self._access.max_cost is not None and self._model is not None and self._price_of(1) is None:
            raise ConfigurationError(
                f"{name} may cost {self._access.max_cost:g}, but prices.yaml has no model {model!r}: what it costs "
                "cannot be known, so nothing was sent. Write its price there, or limit max_tokens instead"
            )

    @property
    def usage(self) -> EmbeddingUsage:
        """Return what was used so far."""
        with self._lock:
            used = self._used
        return EmbeddingUsage(used, self._price_of(used))

    def reserve(self, tokens: int) -> None:
        """Set about ``tokens`` aside for a request; raise BudgetExceeded when the budget has not that much left."""
        with self._lock:
            wanted = self._used + self._reserved + tokens
            limit, cost = self._access.max_tokens, self._access.max_cost
            if limit is not None and wanted > limit:
                raise BudgetExceeded(self._stop(f"{limit} tokens (max_tokens)", wanted))
            if cost is not None and (self._price_of(wanted) or 0) > cost:
                raise BudgetExceeded(self._stop(f"a cost of {cost:g} (max_cost)", wanted))
            self._reserved += tokens

    def settle(self, reserved: int, used: int) -> None:
        """Replace what was reserved for a request by what it used; 0 when it came to nothing."""
        with self._lock:
            self._reserved -= reserved
            self._used += used

    def _stop(self, budget: str, wanted: int) -> str:
        return (
            f"{self._name}: the budget of one run is {budget}; {self._used} tokens are used and the next request "
            f"would bring that to about {wanted}, so it was not sent. What was embedded is kept: raise the budget "
            "under `endpoints` in the environment's file and run this again"
        )

    def _price_of(self, tokens: int) -> float | None:
        if self._model is None or tokens == 0:
            return 0.0
        table: Any = self._prices() if self._prices else None
        cost: float | None = table.cost(self._model, tokens) if table else None
        return cost
