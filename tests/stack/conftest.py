"""What tests of the stack share."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmops.stack import Stack
from support.stacks import DAGS

ANY_PORTS = dict.fromkeys(("airflow", "mlflow", "serving", "follower", "notary"), 0)


@pytest.fixture(scope="module")
def make_stack(scratch: Path) -> Iterator[Callable[..., Stack]]:
    """Make stacks below one folder; all are down when the module's tests have run."""
    made: list[Stack] = []

    def make(*only: str, home: Path | None = None, ports: dict[str, int] | None = None) -> Stack:
        folder = home or scratch / f"stack-{secrets.token_hex(4)}"
        made.append(Stack(folder, only=only, ports=ANY_PORTS | (ports or {}), dags=DAGS))
        return made[-1]

    yield make
    for stack in made:
        stack.down()
