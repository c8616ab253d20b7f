from __future__ import annotations

import psycopg


def test_a_fresh_database_is_migrated_and_vector_search_works(database) -> None:
    with psycopg.connect(database.url("llmops_worker")) as connection:
        assert connection.execute("SELECT '[1,2]'::vector <-> '[1,4]'::vector").fetchone() == (2.0,)


def test_the_mlflow_server_answers(mlflow_url) -> None:
    import httpx

    assert httpx.get(f"{mlflow_url}/health").text == "OK"
