"""The local stack: every process of the system on one machine, under one supervisor."""

from __future__ import annotations

from llmops.stack.postgres import EmbeddedPostgres

__all__ = ["EmbeddedPostgres"]
