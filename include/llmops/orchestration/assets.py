"""The assets that connect the DAGs; an event's ``extra`` names the assistant it is about."""

from __future__ import annotations

from airflow.sdk import Asset

__all__ = ["CHUNKS", "DOCUMENTS", "EMBEDDER", "INDEX", "PRODUCTION"]

DOCUMENTS = Asset(name="documents", uri="llmops://documents", group="llmops")
CHUNKS = Asset(name="chunks", uri="llmops://chunks", group="llmops")
INDEX = Asset(name="index", uri="llmops://index", group="llmops")
EMBEDDER = Asset(name="embedder", uri="llmops://embedder", group="llmops")
PRODUCTION = Asset(name="production_release", uri="llmops://production_release", group="llmops")
