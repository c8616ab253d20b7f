"""The index of vectors: built once everything is loaded, in parallel where there is memory for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import psycopg

from llmops.index._generations import Generation

__all__ = ["build_vectors"]

log = logging.getLogger(__name__)


def build_vectors(
    url: str,
    connection: psycopg.Connection[Any],
    known: Generation,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Build the generation's index of vectors."""
    connection.execute("SELECT index_generation_vectors(%s)", (known.id,))
