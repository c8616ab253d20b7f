"""What was answered, as texts that are kept apart from the report and found by their digest."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from llmops.evaluation._scorers import Observation
from llmops.manifest import canonical_json

__all__ = ["Judgement", "digest_text", "failure_text", "output_text"]

_LONGEST_ERROR = 500


@dataclass(frozen=True)
class Judgement:
    """What a judge said of one answer: a score between 0 and 1 and why, or what went wrong instead."""

    score: float | None
    reason: str = ""
    error: str | None = None


def digest_text(text: str) -> str:
    """Return the digest under which a text is kept: the sha-256 of its UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def output_text(observation: Observation, judged: Mapping[str, Judgement]) -> str:
    """Return an answer with what it was made from and what it took, without the text of any chunk."""
    latency = observation.latency_seconds
    content = {
        "kind": "output",
        "text": observation.text,
        "refused": observation.refused,
        "retrieved": None
        if observation.retrieved is None
        else [
            {
                "chunk_id": chunk.chunk_id,
                "source": chunk.source,
                "path": chunk.path,
                "cited": chunk.cited,
                "number": chunk.number or place,
            }
            for place, chunk in enumerate(observation.retrieved, 1)
        ],
        "latency_seconds": latency if math.isfinite(latency) else None,
        "usage": asdict(observation.usage) if observation.usage else None,
        "cost": observation.cost,
        "unpriced": observation.unpriced,
        "judgements": {name: asdict(judgement) for name, judgement in judged.items()},
        "error": None,
    }
    return canonical_json(content)


def failure_text(error: str) -> str:
    """Return the output of a question that was not answered: what went wrong, which may quote anything."""
    return canonical_json({"kind": "output", "error": error[:_LONGEST_ERROR]})
