"""The cache of vectors, in a real Postgres."""

from pathlib import Path
from typing import Any

import psycopg
import pytest

from llmops.embedding import Embedder, Meter, embed_cached
from llmops.embedding import _cache as cache
from llmops.errors import IntegrityError, ServiceUnavailable

TEXTS = ["one pool", "two tables", "one pool", "", "three \x00 indexes", "four \ud800 halves"]


@pytest.fixture(scope="module")
def embedder(base_embedder: Path) -> Embedder:
    return Embedder.load(base_embedder)


def test_a_text_is_embedded_once(embedder: Embedder, database: Any) -> None:
    url = database.url("llmops_worker")
    first = embed_cached(embedder, TEXTS, url)
    again = embed_cached(embedder, [*TEXTS, "five"], url)
    assert (first.embedded, first.reused) == (5, 0)
    assert (again.embedded, again.reused) == (1, 5)
    assert first.vectors.tobytes() == embedder.embed(TEXTS).tobytes() == again.vectors[: len(TEXTS)].tobytes()


def test_nothing_is_written_when_nothing_is_new(embedder: Embedder, database: Any) -> None:
    url = database.url("llmops_worker")
    embed_cached(embedder, TEXTS, url)
    with psycopg.connect(database.admin_url) as admin:
        admin.execute("REVOKE INSERT ON vector_cache FROM llmops_worker")
    assert embed_cached(embedder, TEXTS, url).embedded == 0
    assert embed_cached(embedder, [], url).vectors.shape == (0, 384)


def test_another_embedder_shares_no_vector(embedder: Embedder, base_embedder: Path, database: Any) -> None:
    url = database.url("llmops_worker")
    embed_cached(embedder, TEXTS, url)
    other = Embedder.load(base_embedder)
    other.fingerprint = "f" * 64
    assert embed_cached(other, TEXTS, url).reused == 0


def test_what_was_embedded_before_a_failure_is_kept(
    embedder: Embedder, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = database.url("llmops_worker")
    monkeypatch.setattr(cache, "_BATCH", 2)
    embed, calls = Embedder.embed_parts, []

    def fail_at_the_third(self: Embedder, texts: list[str], meter: Meter) -> Any:
        calls.append(texts)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return embed(self, texts, meter)

    with monkeypatch.context() as broken:
        broken.setattr(Embedder, "embed_parts", fail_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            embed_cached(embedder, TEXTS, url)
    retried = embed_cached(embedder, TEXTS, url)
    assert (retried.embedded, retried.reused) == (1, 4)


def test_a_vector_of_the_wrong_size_is_refused(embedder: Embedder, database: Any) -> None:
    with psycopg.connect(database.url("llmops_owner")) as owner:
        owner.execute(
            "INSERT INTO vector_cache VALUES (%s, sha256('one'), %s)", (embedder.fingerprint, b"\0" * 8)
        )
    with pytest.raises(IntegrityError, match=r"\[2\] numbers.*384"):
        embed_cached(embedder, ["one"], database.url("llmops_worker"))


def test_the_service_cannot_read_the_cache(embedder: Embedder, database: Any) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        embed_cached(embedder, ["one"], database.url("llmops_serving"))


def test_a_stopped_postgres_is_a_transient_error(embedder: Embedder, tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailable):
        embed_cached(embedder, ["one"], f"postgresql://someone@/llmops?host={tmp_path}")
