"""The price table: what is read, what is refused, and that an unknown price is no price of 0."""

from pathlib import Path

import pytest

from llmops.errors import ConfigurationError
from llmops.prices import Prices, load_prices
from llmops.settings import include_root, read_yaml

TABLE = "currency: EUR\nas_of: 2026-05-01\nmodels:\n  small: {input_per_million: 2, output_per_million: 8}\n"


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in the folder of configuration; the folder of local state is empty."""
    (tmp_path / "include").mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("LLMOPS_INCLUDE", str(tmp_path / "include"))
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path / "home"))
    file = tmp_path / "include" / "prices.yaml"
    file.write_text(TABLE)
    return file


def test_tokens_given_and_written_cost_what_the_table_says(shipped: Path) -> None:
    assert load_prices().cost("small", 1_000_000, 500_000) == 6
    assert load_prices().cost("small", 0, 0) == 0


def test_a_model_that_is_not_listed_has_no_cost(shipped: Path) -> None:
    assert load_prices().cost("Small", 10, 10) is None


def test_a_model_without_a_price_for_what_it_writes_costs_nothing_known_once_it_writes(shipped: Path) -> None:
    shipped.write_text(TABLE.replace(", output_per_million: 8", ""))
    assert load_prices().cost("small", 1_000_000) == 2
    assert load_prices().cost("small", 1_000_000, 1) is None


def test_the_table_of_local_state_takes_the_place_of_the_shipped_one(shipped: Path, tmp_path: Path) -> None:
    before = load_prices()
    (tmp_path / "home" / "prices.yaml").write_text(TABLE.replace("small", "large"))
    assert set(load_prices().models) == {"large"}
    assert load_prices().digest != before.digest


def test_the_digest_is_that_of_the_content_and_sees_every_change(shipped: Path) -> None:
    before = load_prices().digest
    shipped.write_text("# a remark\n" + TABLE)
    assert load_prices().digest == before
    for old, new in (("EUR", "USD"), ("05-01", "05-02"), (": 8", ": 9"), ("small", "large")):
        shipped.write_text(TABLE.replace(old, new))
        assert load_prices().digest != before


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (": 2", ": -2", "input_per_million"),
        (": 2", ": .nan", "input_per_million"),
        ("output_per_million", "output", "output"),
        ("EUR", "euro", "currency"),
        ("as_of: 2026-05-01\n", "", "as_of"),
        ("models:", "model:", "model"),
    ],
)
def test_wrong_tables_are_refused_with_their_file(shipped: Path, old: str, new: str, says: str) -> None:
    shipped.write_text(TABLE.replace(old, new))
    with pytest.raises(ConfigurationError, match=rf"prices\.yaml.*{says}"):
        load_prices()


def test_without_any_table_it_is_said_how_to_write_one(shipped: Path) -> None:
    shipped.unlink()
    with pytest.raises(ConfigurationError, match="no price table"):
        load_prices()


def test_the_table_that_is_shipped_invents_no_prices() -> None:
    table = Prices.model_validate(read_yaml(include_root() / "prices.yaml"))
    assert not table.models
