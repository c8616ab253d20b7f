"""What a run used and cost, and the end of its budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from embedding.conftest import TEXTS, Made
from llmops.embedding import Embedder, embed_cached
from llmops.errors import BudgetExceeded, ConfigurationError, EmbeddingError
from llmops.llm import Failure
from llmops.settings import EndpointAccess
from support.fake_embeddings import FakeEmbeddings

PRICES = """currency: EUR
as_of: 2026-05-01
models:
  hash: {input_per_million: 1000000}
"""


@pytest.fixture
def prices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A price table in which each token of ``hash`` costs 1."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("LLMOPS_HOME", str(home))
    (home / "prices.yaml").write_text(PRICES)
    return home / "prices.yaml"


def test_tokens_and_cost_are_what_the_endpoint_reports(
    fake: FakeEmbeddings, made: Made, prices: Path
) -> None:
    embedder = made.ready(fake)
    meter = embedder.meter()
    embedder.embed(TEXTS, meter)
    embedder.embed(["one more"], meter)
    assert (meter.usage.tokens, meter.usage.cost) == (14, 14.0)


def test_tokens_are_counted_here_when_the_endpoint_does_not_report_them(
    fake: FakeEmbeddings, made: Made, prices: Path
) -> None:
    embedder = made.ready(fake)
    fake.reports_usage = False
    meter = embedder.meter()
    embedder.embed(TEXTS, meter)
    assert meter.usage.tokens == sum(embedder.count_tokens(TEXTS))


def test_an_unknown_price_is_an_unknown_cost(fake: FakeEmbeddings, made: Made, prices: Path) -> None:
    embedder = made.ready(fake, model="unlisted")
    meter = embedder.meter()
    embedder.embed(TEXTS, meter)
    assert (meter.usage.tokens, meter.usage.cost) == (12, None)


def test_a_model_of_unknown_price_is_refused_under_a_budget_of_money(
    fake: FakeEmbeddings, made: Made, prices: Path
) -> None:
    folder = made.save(fake, model="unlisted")
    fake.history.clear()
    embedder = Embedder.load(folder, endpoints={fake.host: EndpointAccess(max_cost=5)})
    with pytest.raises(ConfigurationError, match=r"prices\.yaml has no model 'unlisted'"):
        embedder.embed(TEXTS)
    assert fake.history == []


@pytest.mark.parametrize("budget", [{"max_tokens": 150}, {"max_cost": 150}], ids=["tokens", "cost"])
def test_a_run_ends_before_it_exceeds_its_budget(
    fake: FakeEmbeddings, made: Made, prices: Path, budget: dict[str, Any]
) -> None:
    embedder = made.ready(fake, EndpointAccess(batch_texts=2, concurrency=4, **budget))
    meter = embedder.meter()
    with pytest.raises(BudgetExceeded, match=f"{next(iter(budget))}.*not sent"):
        embedder.embed([f"text {i} of a pool" for i in range(200)], meter)
    assert 0 < meter.usage.tokens <= 150
    assert sum(len(text.split()) for text in fake.texts) <= 150
    embedder.embed(TEXTS, embedder.meter())


def test_what_a_failed_request_was_to_use_is_given_back_to_the_budget(
    fake: FakeEmbeddings, made: Made, prices: Path
) -> None:
    embedder = made.ready(fake, EndpointAccess(max_tokens=40))
    meter = embedder.meter()
    for _ in range(5):
        fake.queue(Failure(400))
        with pytest.raises(EmbeddingError):
            embedder.embed(TEXTS, meter)
    embedder.embed(TEXTS, meter)
    assert meter.usage.tokens == 12


def test_the_cache_says_what_each_call_used_and_a_run_adds_them_up(
    fake: FakeEmbeddings, made: Made, prices: Path, database: Any
) -> None:
    embedder, url = made.ready(fake), database.url("llmops_worker")
    meter = embedder.meter()
    first = embed_cached(embedder, TEXTS, url, meter)
    again = embed_cached(embedder, [*TEXTS, "one more"], url, meter)
    assert (first.usage.tokens, first.usage.cost) == (12, 12.0)
    assert (again.embedded, again.usage.tokens, again.usage.cost) == (1, 2, 2.0)
    assert meter.usage.tokens == 14


def test_answers_that_came_before_a_failure_are_kept_in_the_cache(
    fake: FakeEmbeddings, made: Made, database: Any
) -> None:
    embedder = made.ready(fake, EndpointAccess(batch_texts=1, concurrency=1))
    url = database.url("llmops_worker")
    whole = FakeEmbeddings._next
    texts = ["a longer text than all", "a shorter text", "short"]
    failing = Failure(400, "no more")

    def fail_at_the_third(asked: Any) -> Any:
        return failing if len(fake.history) == 3 else whole(fake, asked)

    fake._next = fail_at_the_third  # type: ignore[method-assign]
    with pytest.raises(EmbeddingError, match="no more"):
        embed_cached(embedder, texts, url)
    del fake._next  # type: ignore[attr-defined]
    assert (embed_cached(embedder, texts, url).embedded, len(fake.history)) == (1, 4)


def test_a_local_embedder_costs_nothing(base_embedder: Path, database: Any) -> None:
    made = embed_cached(Embedder.load(base_embedder), TEXTS, database.url("llmops_worker"))
    assert (made.usage.tokens, made.usage.cost) == (0, 0.0)
