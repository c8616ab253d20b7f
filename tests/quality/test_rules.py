from __future__ import annotations

import pytest
from pydantic import ValidationError

from llmops.errors import ConfigurationError
from llmops.quality import QualityRules, rules_for

BASE = QualityRules.model_validate({"max_shrinkage": 0.5, "sensitive": {"emails": "mask"}})


def test_rules_that_contradict_each_other_or_are_misspelt_are_refused() -> None:
    with pytest.raises(ValidationError, match="must not be above"):
        QualityRules(min_characters=5, max_characters=4)
    with pytest.raises(ValidationError, match="max_shrinkag"):
        QualityRules.model_validate({"max_shrinkag": 1})


def test_a_source_states_only_what_differs() -> None:
    found = rules_for(BASE, {"max_damage": 0.2, "sensitive": {"cards": "quarantine"}})
    assert (found.max_damage, found.max_shrinkage) == (0.2, 0.5)
    assert (found.sensitive.emails, found.sensitive.cards, found.sensitive.keys) == (
        "mask",
        "quarantine",
        "mask",
    )
    assert rules_for(BASE, {}) == BASE


def test_wrong_keys_and_values_of_a_source_are_all_named_with_their_place() -> None:
    with pytest.raises(ConfigurationError) as caught:
        rules_for(BASE, {"max_damge": 1, "sensitive": {"keys": "hide"}}, "sources.website.quality")
    message = str(caught.value)
    assert "sources.website.quality.max_damge: Extra inputs" in message
    assert "sources.website.quality.sensitive.keys: Input should be 'keep', 'mask' or 'quarantine'" in message


def test_a_source_cannot_contradict_the_assistants_rules() -> None:
    with pytest.raises(ConfigurationError, match=r"quality: .*must not be above"):
        rules_for(BASE, {"min_characters": 9_000_000})
