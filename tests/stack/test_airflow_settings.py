from __future__ import annotations

from pathlib import Path

import pytest

from llmops.errors import ConfigurationError
from llmops.settings import include_root
from llmops.stack._airflow_settings import read_airflow_settings


def test_the_repositorys_file_has_both_connections_and_the_writers_pool() -> None:
    found = read_airflow_settings(include_root().parent / "airflow_settings.yaml")
    assert [connection.conn_id for connection in found.connections] == ["llmops_postgres", "mlflow"]
    assert [(pool.pool_name, pool.pool_slot) for pool in found.pools] == [("delta_writer", 1)]


def test_a_misspelt_key_is_named(tmp_path: Path) -> None:
    file = tmp_path / "airflow_settings.yaml"
    file.write_text("airflow:\n  pools:\n    - pool_name: one\n      pool_slots: 1\n")
    with pytest.raises(ConfigurationError, match=r"airflow\.pools\.0\.pool_slots"):
        read_airflow_settings(file)


def test_empty_lists_and_empty_values_are_as_the_astro_cli_writes_them(tmp_path: Path) -> None:
    file = tmp_path / "airflow_settings.yaml"
    file.write_text(
        "airflow:\n  connections:\n    - conn_id: one\n      conn_type: http\n"
        "      conn_host:\n      conn_port:\n      conn_extra:\n        example_extra_field: example-value\n"
        "  pools:\n  variables:\n    - variable_name: depth\n      variable_value: 3\n"
    )
    found = read_airflow_settings(file)
    assert found.connections[0].entity()["extra"] == '{"example_extra_field": "example-value"}'
    assert found.pools == []
    assert found.variables[0].entity() == {"key": "depth", "value": 3}


def test_connections_are_pointed_at_other_places(tmp_path: Path) -> None:
    found = read_airflow_settings(include_root().parent / "airflow_settings.yaml")
    moved = found.at({"mlflow": {"conn_host": "http://127.0.0.1", "conn_port": 5001}})
    assert [c.conn_port for c in moved.connections] == [5432, 5001]
