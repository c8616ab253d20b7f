"""What a long drill found, as a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["write_report"]

_TOO_FEW = 3
"""So many tries bound nothing: 3/n is 100 % or more."""


def write_report(file: Path, results: Mapping[str, Any]) -> None:
    """Write counts of attacks and surprises, with the bound that they give, as Markdown.

    After n trials without a surprise the true share of surprises is below 3/n with 95 % confidence (the rule of
    three; Hanley and Lippman-Hand, JAMA 1983, https://doi.org/10.1001/jama.1983.03330370053031).
    """
    rows = [
        f"| {name} | {tried} | {surprises} | {_bound(tried, surprises)} |"
        for name, tried, surprises in results["classes"]
    ]
    tried = sum(row[1] for row in results["classes"])
    text = f"""# Reliability of releases

Written by `make drill KILLS={results["classes"][0][1]}` (seed {results["seed"]}) on the local stack, while
{results["questions"]:,} questions were asked of the service; an answer counts as wrong when it failed, came from a
release that was not in production then, or used a chunk that the index of its release does not hold.

| attack | tried | surprises | true share of surprises, with 95 % confidence |
|---|---|---|---|
{chr(10).join(rows)}

{tried:,} attacks in all. After n trials without a surprise the true share is below 3/n with 95 % confidence.
"""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def _bound(tried: int, surprises: int) -> str:
    if surprises:
        return "see the surprises"
    return f"below {3 / tried:.1%} (3/{tried})" if tried > _TOO_FEW else "unknown: too few"
