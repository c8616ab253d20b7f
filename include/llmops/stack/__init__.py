"""The local stack: every process of the system on one machine, under one supervisor."""

from __future__ import annotations

from llmops.stack.airflow_api import AirflowClient, AirflowError
from llmops.stack.postgres import EmbeddedPostgres
from llmops.stack.stack import Stack, Started

__all__ = ["AirflowClient", "AirflowError", "EmbeddedPostgres", "Stack", "Started"]
