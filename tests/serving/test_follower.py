from __future__ import annotations

from typing import Any

from llmops.serving._follower import _Held
from serving.conftest import FakeRelease


class _Chain:
    closed = 0

    def close(self) -> None:
        self.closed += 1


def test_a_retired_release_takes_no_new_request_and_closes_after_its_last() -> None:
    chain: Any = _Chain()
    release = FakeRelease("r1", chain)
    held = _Held(release)
    assert held.enter()
    assert held.enter()
    held.retire()
    assert not held.enter()
    held.leave()
    assert not release.closed
    held.leave()
    assert release.closed
    assert chain.closed == 1


def test_a_release_nobody_uses_closes_when_retired() -> None:
    chain: Any = _Chain()
    release = FakeRelease("r1", chain)
    _Held(release).retire()
    assert release.closed
