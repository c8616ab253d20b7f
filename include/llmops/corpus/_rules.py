"""Which rules of quality apply to which source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from llmops.manifest import content_hash
from llmops.quality import QualityRules, load_suite, rules_for

if TYPE_CHECKING:
    from llmops.corpus._sources import AnySource

__all__ = ["rules_digests", "rules_of"]


def rules_of(source: AnySource, quality: QualityRules) -> QualityRules:
    """Return the rules of a source: the assistant's with its own laid over them."""
    return rules_for(quality, source.quality, f"source {source.name!r}: quality")


def rules_digests(sources: Sequence[AnySource], quality: QualityRules) -> dict[str, str]:
    """Return a digest of the rules and the suite of every source, by its name.

    Raises ConfigurationError that names the file and the entry when one of them is wrong.
    """
    digests = {}
    for source in sources:
        rules = rules_of(source, quality)
        suite = load_suite(source.suite, rules)
        digests[source.name] = content_hash([rules.model_dump(mode="json"), asdict(suite)])
    return digests
