from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest

from index.conftest import Index, a_generation
from llmops.errors import ConfigurationError, EmbedderMismatch, MissingInput
from llmops.index import create_generation, drop_generation, find_generation, generations, mark


def test_of_eight_that_create_a_generation_at_once_all_succeed_and_one_is_made(index: Index) -> None:
    other = a_generation(index.embedder, assistant="other")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: create_generation(index.url, other), range(8)))
    assert len(generations(index.url, "other")) == 1


def test_creating_a_generation_again_changes_nothing(index: Index) -> None:
    index.write({"a.md": "Apples."})
    before = find_generation(index.url, index.id)
    create_generation(index.url, index.generation)
    assert generations(index.url) == [before]
    assert before.embedder.uri == "models:/dev.guide.embedder/1"
    assert before.chunks == 1


def test_an_id_that_belongs_to_another_embedder_is_refused_and_stays_as_it_is(index: Index) -> None:
    before = find_generation(index.url, index.id)
    for change in ({"fingerprint": "x"}, {"dimension": 16}, {"chunker": "x"}, {"assistant": "x"}):
        with pytest.raises(EmbedderMismatch, match="already made by"):
            create_generation(index.url, replace(index.generation, **change))
    assert find_generation(index.url, index.id) == before


def test_ids_that_are_no_identifiers_are_refused_by_package_and_database(index: Index) -> None:
    create = "SELECT create_index_generation(%s, 'a', '{}', 'f', 3, 'c')"
    for name in ["x; DROP TABLE answer_log", 'x"y', "", "1x", "X", "x" * 46, "x\n", "public.x", "x'--"]:
        with pytest.raises(ConfigurationError, match="not valid"):
            create_generation(index.url, replace(index.generation, id=name))
        with pytest.raises(ConfigurationError, match="not valid"):
            drop_generation(index.url, name)
        with (
            psycopg.connect(index.url) as connection,
            pytest.raises(psycopg.errors.InvalidParameterValue, match="not valid"),
        ):
            connection.execute(create, (name,))
    assert len(generations(index.url)) == 1


def test_generations_are_listed_per_assistant(index: Index) -> None:
    other = a_generation(index.embedder, assistant="other")
    create_generation(index.url, other)
    assert [g.id for g in generations(index.url, "other")] == [other.id]
    assert [g.assistant for g in generations(index.url)] == ["guide", "other"]
    assert generations(index.url, "nobody") == []


def test_only_a_retired_generation_is_dropped_and_it_can_be_built_again(index: Index) -> None:
    index.write({"a.md": "Apples."})
    mark(index.url, index.id, "live")
    assert not drop_generation(index.url, index.id)
    assert find_generation(index.url, index.id).state == "live"

    mark(index.url, index.id, "retired")
    assert drop_generation(index.url, index.id)
    assert not drop_generation(index.url, index.id)
    with pytest.raises(MissingInput, match="release_assistant"):
        index.sync()

    create_generation(index.url, index.generation)
    assert index.sync().upserted == 1


def test_a_retired_generation_that_is_wanted_again_is_followed_again(index: Index) -> None:
    mark(index.url, index.id, "retired")
    create_generation(index.url, index.generation)
    assert find_generation(index.url, index.id).state == "building"


def test_marking_an_unknown_generation_is_an_error(index: Index) -> None:
    with pytest.raises(MissingInput):
        mark(index.url, "nothing_here", "live")


WORKER_MAY_NOT = [
    "DROP TABLE generation_{id}",
    "ALTER TABLE generation_{id} ADD COLUMN x int",
    "TRUNCATE generation_{id}",
    "CREATE TABLE public.mine (x int)",
    "DROP TABLE index_generations",
    "INSERT INTO index_generations (id, assistant, embedder, fingerprint, dimension, chunker) "
    "VALUES ('x', 'x', '{{}}', 'x', 3, 'x')",
    "DELETE FROM index_generations",
    "UPDATE index_generations SET fingerprint = 'x'",
    "UPDATE index_generations SET embedder = '{{}}'",
    "ALTER FUNCTION index_generation_vectors RENAME TO mine",
]
SERVING_MAY_NOT = [
    *WORKER_MAY_NOT,
    "DELETE FROM generation_{id}",
    "UPDATE generation_{id} SET text = 'x'",
    "INSERT INTO words_{id} VALUES ('x', 1)",
    "UPDATE index_generations SET state = 'live'",
    "SELECT create_index_generation('x', 'x', '{{}}', 'x', 3, 'x')",
    "SELECT index_generation_vectors('{id}')",
    "SELECT drop_index_generation('{id}')",
    "SELECT * FROM vector_cache",
]


@pytest.mark.parametrize(
    ("role", "statements"),
    [
        ("llmops_worker", WORKER_MAY_NOT),
        ("llmops_serving", SERVING_MAY_NOT),
        ("llmops_notary", [*SERVING_MAY_NOT, "SELECT * FROM generation_{id}"]),
    ],
)
def test_a_role_may_do_only_its_own_work(index: Index, role: str, statements: list[str]) -> None:
    with psycopg.connect(index.database.url(role), autocommit=True) as connection:
        for statement in statements:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.format(id=index.id))


def test_the_owner_s_functions_are_not_led_astray_by_the_caller_s_search_path(index: Index) -> None:
    with psycopg.connect(index.url, autocommit=True) as connection:
        connection.execute("CREATE TEMP TABLE index_generations (LIKE public.index_generations)")
        connection.execute(
            "CREATE FUNCTION pg_temp.format(text, text) RETURNS text LANGUAGE sql AS $$SELECT 'x'$$"
        )
        connection.execute("SET search_path = pg_temp, public")
        connection.execute(
            'SELECT public.create_index_generation(\'mine\', \'a\', \'{"uri": "u", "files": {}, '
            "\"fingerprint\": \"f\"}', 'f', 3, 'c')"
        )
        assert connection.execute("SELECT count(*) FROM pg_temp.index_generations").fetchone() == (0,)
    assert find_generation(index.url, "mine").dimension == 3
