"""Index generations that no release can come back to: they are retired, and the next time dropped."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import zip_longest

from llmops.database import connect
from llmops.index import drop_generation, generations, mark
from llmops.release._ledger import LedgerEntry, ledger
from llmops.release._store import list_releases, read_manifest
from llmops.settings import Environment

log = logging.getLogger(__name__)


def retire_generations(
    environment: Environment, assistant: str, now: datetime | None = None
) -> dict[str, list[str]]:
    """Drop the generations retired before, retire those whose rollback window has ended, and name both.

    A generation is needed while a release that names it holds an alias, and for the environment's
    ``rollback_days`` after the last such release left its alias or was assembled. In between a retired one is
    not followed and no release can come back to it, but its rows are still there.
    """
    url = environment.database_url.get_secret_value()
    limit = (now or datetime.now(UTC)) - timedelta(days=environment.rollback_days)
    needed = _last_needed(url, assistant)
    found: dict[str, list[str]] = {"dropped": [], "retired": []}
    for generation in generations(url, assistant):
        if needed[generation.id] > limit:
            continue
        if generation.state == "retired":
            drop_generation(url, generation.id)
            found["dropped"].append(generation.id)
        else:
            mark(url, generation.id, "retired")
            found["retired"].append(generation.id)
    log.info("Generations of %s: %s", assistant, found)
    return found


def _last_needed(url: str, assistant: str) -> dict[str, datetime]:
    """Return when each generation was last needed; one that is in use is needed for ever."""
    with connect(url) as connection:
        rows = connection.execute(
            "SELECT id, created_at FROM index_generations WHERE assistant = %s", (assistant,)
        ).fetchall()
    needed: dict[str, datetime] = dict(rows)
    stays = _stays(ledger(url, assistant))
    for release in list_releases(url, assistant):
        index = read_manifest(url, release.release_id).index
        if index is not None and index.generation in needed:
            ends = [release.created_at, stays.get(release.release_id, release.created_at)]
            needed[index.generation] = max(needed[index.generation], *ends)
    return needed


def _stays(entries: Iterable[LedgerEntry]) -> dict[str, datetime]:
    """Return when each release last left an alias; one that still has it never did."""
    left: dict[str, datetime] = {}
    for alias in ("staging", "production"):
        moves = [entry for entry in entries if entry.alias == alias]
        for entry, following in zip_longest(moves, moves[1:]):
            end = following.at if following else datetime.max.replace(tzinfo=UTC)
            if entry.to_release is not None:
                left[entry.to_release] = max(left.get(entry.to_release, end), end)
    return left
