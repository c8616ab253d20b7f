"""What documents must fulfil, as a person writes it: for an assistant, and for one of its sources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from llmops.errors import ConfigurationError
from llmops.quality._sensitive import SensitiveRules
from llmops.settings import Section, merge

__all__ = ["QualityRules", "rules_for"]


class QualityRules(Section):
    """What documents must fulfil to be merged; lengths are in characters, shares between 0 and 1.

    ``max_quarantined_share`` is of all files that should have become documents, ``max_shrinkage`` of
    the documents held before. Up to ``tolerated_files`` files in quarantine, or documents gone, never
    stop a run: in a small corpus a single file is a large share. ``max_damage`` is the share of a document's
    characters that are signs of a wrong encoding, ``max_boilerplate_share`` that of its lines that stand in at
    least a fifth of the source's documents. A document is a near-duplicate of an earlier one when at least
    ``near_duplicate_threshold`` of what they say is the same; with ``near_duplicates: quarantine`` it is kept out,
    and by default a source may have any share of them.
    """

    min_documents: int = Field(default=1, ge=0)
    min_characters: int = Field(default=1, ge=0)
    max_characters: int = Field(default=5_000_000, ge=1)
    max_quarantined_share: float = Field(default=0.05, ge=0, le=1)
    max_shrinkage: float = Field(default=0.3, ge=0, le=1)
    tolerated_files: int = Field(default=5, ge=0)
    max_damage: float = Field(default=0.02, ge=0, le=1)
    max_boilerplate_share: float = Field(default=0.9, ge=0, le=1)
    near_duplicates: Literal["keep", "quarantine"] = "keep"
    near_duplicate_threshold: float = Field(default=0.9, ge=0.5, le=1)
    max_near_duplicate_share: float = Field(default=1.0, ge=0, le=1)
    sensitive: SensitiveRules = SensitiveRules()

    @model_validator(mode="after")
    def _lengths_are_in_order(self) -> QualityRules:
        if self.min_characters > self.max_characters:
            raise ValueError("min_characters must not be above max_characters")
        return self


def rules_for(base: QualityRules, overrides: Mapping[str, Any], where: str = "quality") -> QualityRules:
    """Return the rules of a source: those of the assistant with the source's own laid over them.

    ``where`` names the place in messages. Raises ConfigurationError that names every wrong key.
    """
    try:
        return QualityRules.model_validate(merge(base.model_dump(), overrides))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join([where, *map(str, e['loc'])])}: {e['msg']}" for e in error.errors(include_url=False)
        )
        raise ConfigurationError(f"{problems}. See docs/configuration.md") from error
