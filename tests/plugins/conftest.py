"""An environment of the board over a database of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmops.settings import Environment
from support.services import FreshDatabase


@pytest.fixture
def environment(database: FreshDatabase, tmp_path: Path) -> Environment:
    return Environment(
        name="dev",
        catalog="dev",
        storage_root=str(tmp_path),
        database_url=database.url("llmops_worker"),
        mlflow_url="http://127.0.0.1:9",
        airflow_url="http://127.0.0.1:9",
        serving_url="http://127.0.0.1:9",
        notary_url="http://127.0.0.1:9",
        notary_keys=tmp_path / "keys",
    )
