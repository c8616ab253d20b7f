"""Replicas prove that they answer with a release; until all do, a promotion is not complete."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx

from llmops.database import advisory_lock
from llmops.errors import NotConfirmed
from llmops.manifest import Manifest
from llmops.release._moves import OnStep, Promotion, end_move, find_move, take_back
from llmops.release._store import read_manifest
from llmops.release._verify import Replica, replicas
from llmops.settings import Environment

_POLL_SECONDS = 0.2
_PROBE_SECONDS = 30.0


def confirm(
    environment: Environment,
    release_id: str,
    wait: timedelta,
    on_step: OnStep | None = None,
    *,
    await_service: bool = True,
) -> int:
    """Wait until every live replica answers with a release, and complete its promotion; return how many do.

    A replica is live when it was heard of in the last 20 s. It has to report the release and the code that was
    judged, and to answer a probe. When one still does not after ``wait``, the promotion is taken back and
    NotConfirmed raised: then all replicas answer as before. Where none is live, the promotion is complete and 0
    returned: after ``wait``, in which a service may start, or without ``await_service`` at once.
    """
    url = environment.database_url.get_secret_value()
    manifest = read_manifest(url, release_id)
    give_up = time.monotonic() + wait.total_seconds()
    known: set[str] = set()
    while True:
        serving = replicas(url, manifest.assistant)
        known |= {replica.name for replica in serving}
        behind = _behind(serving, manifest)
        if serving and not behind:
            break
        if not known and not await_service:
            break
        if time.monotonic() >= give_up:
            if not known:
                break
            reason = (
                f"after {wait.total_seconds():.0f} s these replicas do not answer with release {release_id[:12]}: "
                f"{'; '.join(behind) or ', '.join(sorted(known)) + ' (gone)'}"
            )
            _go_back(environment, manifest, reason, on_step)
            raise NotConfirmed(f"{reason}. Production is as it was before; see the replicas' /readyz")
        time.sleep(_POLL_SECONDS)
    if move := _running(environment, manifest):
        end_move(url, move, "complete")
    return len(serving)


def _behind(serving: Sequence[Replica], manifest: Manifest) -> list[str]:
    """Return what each replica that does not answer with the release does instead."""
    elsewhere = [r for r in serving if r.release_id != manifest.release_id]
    if elsewhere:
        return [f"{r.name} reports {r.release_id[:12]}" for r in elsewhere]
    other_code = [r for r in serving if r.code_digest != manifest.code_digest]
    if other_code:
        return [f"{r.name} runs code {r.code_digest[:12]}" for r in other_code]
    with ThreadPoolExecutor(max_workers=8) as pool:
        problems = list(pool.map(lambda replica: _probe(replica, manifest), serving))
    return [f"{r.name}: {problem}" for r, problem in zip(serving, problems, strict=True) if problem]


def _probe(replica: Replica, manifest: Manifest) -> str | None:
    """Return why a replica does not answer a probe with the release, None when it does or has no address."""
    if replica.address is None:
        return None
    try:
        response = httpx.post(
            f"{replica.address}/probe", json={"assistant": manifest.assistant}, timeout=_PROBE_SECONDS
        )
        answered = response.json()
    except (httpx.HTTPError, ValueError) as error:
        return f"{replica.address} does not answer a probe ({type(error).__name__})"
    if not isinstance(answered, dict) or response.status_code != 200:
        return f"{replica.address} answers a probe with status {response.status_code}"
    if answered.get("release") != manifest.release_id:
        return f"{replica.address} answers a probe with release {str(answered.get('release'))[:12]}"
    return None


def _running(environment: Environment, manifest: Manifest) -> Promotion | None:
    url = environment.database_url.get_secret_value()
    move = find_move(url, {"assistant": manifest.assistant, "state": "running"})
    return move if move and move.to_release == manifest.release_id else None


def _go_back(environment: Environment, manifest: Manifest, reason: str, on_step: OnStep | None) -> None:
    url = environment.database_url.get_secret_value()
    with advisory_lock(url, alias_lock(environment, manifest.assistant)):
        if move := _running(environment, manifest):
            take_back(environment, move, reason, on_step)


def alias_lock(environment: Environment, assistant: str) -> str:
    """Return the name of the lock that whoever moves an alias of an assistant holds."""
    return f"alias:{environment.catalog}:{assistant}"
