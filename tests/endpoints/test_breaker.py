"""When an endpoint counts as down."""

from __future__ import annotations

import pytest

from llmops.endpoints._breaker import Breaker
from llmops.errors import LanguageModelError, ServiceUnavailable


def end(breaker: Breaker, error: Exception) -> None:
    """Let one call end with an error."""
    with pytest.raises(type(error)), breaker.watch("the endpoint"):
        raise error


def test_an_error_that_the_endpoint_itself_answers_shows_that_it_is_there() -> None:
    breaker = Breaker(failures=2, cooldown=60)
    end(breaker, ServiceUnavailable("silent"))
    end(breaker, LanguageModelError("too long"))
    end(breaker, ServiceUnavailable("silent"))
    with breaker.watch("the endpoint"):
        pass


def test_a_fault_of_our_own_says_nothing_about_the_endpoint() -> None:
    breaker = Breaker(failures=2, cooldown=60)
    end(breaker, ServiceUnavailable("silent"))
    end(breaker, ZeroDivisionError())
    end(breaker, ServiceUnavailable("silent"))
    with pytest.raises(ServiceUnavailable, match="2 times in a row"), breaker.watch("the endpoint"):
        pass
