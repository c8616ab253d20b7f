from __future__ import annotations

from typing import Any

from llmops.serving._follower import ReleaseFollower, _Held
from serving.conftest import FakeRelease, FakeSource, wait_until


class _Chain:
    closed = 0

    def close(self) -> None:
        self.closed += 1


class _Warm(_Chain):
    def warm(self) -> None:
        """Need nothing."""


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


def test_an_assistant_that_is_added_later_is_followed_too() -> None:
    names = ["guide"]
    source = FakeSource()
    follower = ReleaseFollower(source, lambda: list(names), poll=0.05, report=0.05)
    follower.start()
    try:
        names.append("handbook")
        source.production["handbook"] = FakeRelease("r1", _Warm())
        wait_until(lambda: ("handbook", "r1") in source.reports)
        assert [f.assistant for f in follower.status()] == ["guide", "handbook"]
    finally:
        follower.stop()


def test_a_replica_that_cannot_load_the_new_release_goes_on_saying_what_it_serves() -> None:
    source = FakeSource()
    source.production["guide"] = FakeRelease("r1", _Warm())
    follower = ReleaseFollower(source, lambda: ["guide"], poll=0.05, report=0.05)
    follower.start()
    try:
        wait_until(lambda: ("guide", "r1") in source.reports)
        source.fail = ValueError("the model does not load")
        wait_until(lambda: follower.status()[0].error is not None)
        source.reports.clear()
        wait_until(lambda: ("guide", "r1") in source.reports)
        assert "does not load" in str(follower.status()[0].error)
    finally:
        follower.stop()
