"""Fixtures for every test; each group lives in a module of ``tests/support``."""

from __future__ import annotations

import pytest

pytest_plugins = ["support.services", "support.embedder", "support.evaluations"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one worker run all tests that start a stack, from the beginning: they wait more than they compute."""
    for item in items:
        if item.get_closest_marker("stack"):
            item.add_marker(pytest.mark.xdist_group("stack"))
    items.sort(key=lambda item: item.get_closest_marker("stack") is None)
