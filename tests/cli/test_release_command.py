"""``llmops release`` reads: what releases are, how they differ, and what was in production when."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from llmops.cli.release import command
from llmops.database import connect
from llmops.errors import MissingInput, NotApproved
from llmops.release import Actor, ApprovalRequest, ledger, promote, read_manifest, revoke
from llmops.release._ledger import NewEntry, append_entry
from llmops.settings import Environment, load_environment
from support.configured import configured

ANNA = Actor("anna", "Airflow login")
Approved = Callable[..., ApprovalRequest]


@pytest.fixture
def run(environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run ``llmops release`` and return its result; an error of ours is raised."""
    configured(environment, tmp_path, monkeypatch)
    return lambda *arguments: CliRunner().invoke(command, arguments, catch_exceptions=False)


Run = Callable[..., Result]


@pytest.fixture
def two(environment: Environment, approved: Approved) -> tuple[ApprovalRequest, ApprovalRequest]:
    """Two releases that differ in their prompt: the first in production, the second approved and in staging."""
    first = approved("a")
    promote(environment, first, ANNA)
    return first, approved("b", baseline=first.release_id)


Two = tuple[ApprovalRequest, ApprovalRequest]


def test_the_list_shows_every_release_newest_first_with_verdict_approval_and_marks(
    run: Run, two: Two, release: Callable[..., str], environment: Environment
) -> None:
    bad = release("c", dirty=True)
    revoke(environment, bad, ANNA, "it leaks")
    lines = [line.split() for line in run("list", "--assistant", "guide").output.splitlines()]
    assert lines[0] == ["release", "made", "verdict", "approval", "alias"]
    assert [(line[0], line[3:]) for line in lines[1:]] == [
        (bad[:12], ["-", "-", "revoked,", "dirty"]),
        (two[1].release_id[:12], ["PASS", "approved", "by", "reviewer", "staging"]),
        (two[0].release_id[:12], ["PASS", "approved", "by", "reviewer", "production"]),
    ]
    rows = json.loads(run("list", "--assistant", "guide", "--json").output)
    assert [(r["release_id"], r["verdict"], r["aliases"], r["revoked"], r["dirty"]) for r in rows] == [
        (bad, None, [], True, True),
        (two[1].release_id, "PASS", ["staging"], False, False),
        (two[0].release_id, "PASS", ["production"], False, False),
    ]
    assert all(datetime.fromisoformat(row["created_at"]).tzinfo for row in rows)


def test_the_list_of_an_assistant_without_releases_is_empty(run: Run, two: Two) -> None:
    assert json.loads(run("list", "--assistant", "other", "--json").output) == []
    assert len(run("list", "--assistant", "other").output.splitlines()) == 1


def test_show_prints_the_manifest_and_what_the_ledger_says(run: Run, two: Two) -> None:
    first = two[0].release_id
    lines = run("show", first[:10]).output.splitlines()
    assert lines[0] == f"release {first}"
    assert {
        "  assistant          guide",
        "  dirty              false",
        '  authors            ["author"]',
    } < set(lines)
    moves = [line.split() for line in lines if " by " in line]
    assert [(line[3], line[-1]) for line in moves] == [("stage", "gate"), ("promote", "(airflow)")]
    assert json.loads(run("show", first, "--json").output)["release_id"] == first


def test_show_shortens_a_long_value_and_json_does_not(run: Run, release: Callable[..., str]) -> None:
    release_id = release(guardrails={"long": "x" * 500})
    (line,) = [line for line in run("show", release_id).output.splitlines() if "guardrails" in line]
    assert len(line) < 230
    assert line.endswith("…")
    assert "x" * 500 in run("show", release_id, "--json").output


@pytest.mark.parametrize("name", ["production", "id"])
def test_diff_names_what_differs_between_releases_by_alias_or_id(run: Run, two: Two, name: str) -> None:
    before = two[0].release_id[:12] if name == "id" else name
    lines = run("diff", before, "staging").output.splitlines()
    assert lines[:2] == [f"--- {two[0].release_id}", f"+++ {two[1].release_id}"]
    assert lines[2:5] == ["prompt.uri", *(f"  {sign} {_prompt(two[n])}" for sign, n in (("-", 0), ("+", 1)))]
    found = json.loads(run("diff", before, "staging", "--json").output)
    assert [each["field"] for each in found] == ["prompt.uri", "prompt.text_hash"]
    assert set(found[0]) == {"field", "before", "after"}


def _prompt(request: ApprovalRequest) -> str:
    url = load_environment().database_url.get_secret_value()
    return read_manifest(url, request.release_id).prompt.uri


def test_diff_says_that_it_is_the_same_release(run: Run, two: Two) -> None:
    assert run("diff", "production", two[0].release_id).output.endswith("the same release\n")
    assert json.loads(run("diff", "production", "production", "--json").output) == []


def test_diff_of_an_alias_of_several_assistants_or_of_none_asks_for_an_id(
    run: Run, two: Two, release: Callable[..., str], report: Callable[..., str], url: str
) -> None:
    other = release("other", assistant="other")
    staged = NewEntry(
        "other", "stage", "x", "r", alias="staging", to_release=other, report_hash=report(other)
    )
    with connect(url) as connection:
        append_entry(connection, staged)
    with pytest.raises(MissingInput, match="'staging' fits 2 releases: name one by its id"):
        run("diff", "production", "staging")


def test_diff_of_an_alias_that_is_nowhere_asks_for_an_id(run: Run, release: Callable[..., str]) -> None:
    with pytest.raises(MissingInput, match="'production' fits 0 releases"):
        run("diff", "production", release())


@pytest.mark.parametrize("name", ["0000", ""])
def test_a_release_that_is_not_there_or_not_the_only_one_is_named(run: Run, two: Two, name: str) -> None:
    with pytest.raises(MissingInput, match="fits no release" if name else "fits several releases"):
        run("show", name)


def test_history_prints_every_entry_oldest_first(run: Run, two: Two) -> None:
    first, second = (request.release_id for request in two)
    lines = run("history", "--assistant", "guide").output.splitlines()
    assert [line.split()[3] for line in lines] == ["stage", "promote", "stage"]
    assert f"production none -> {first[:12]}  by anna: approved by reviewer (airflow)" in lines[1]
    assert f"staging    {first[:12]} -> {second[:12]}  by author: passed the gate" in lines[2]
    entries = json.loads(run("history", "--assistant", "guide", "--json").output)
    assert [entry["entry"] for entry in entries] == [1, 2, 3]
    assert entries[1]["approval_nonce"] == str(two[0].nonce)


def test_history_names_an_attempt_that_was_refused(
    run: Run, release: Callable[..., str], report: Callable[..., str], ask: Callable[..., ApprovalRequest],
    environment: Environment,
) -> None:  # fmt: skip
    release_id = release()
    request = ask(release_id, report(release_id))
    with pytest.raises(NotApproved):
        promote(environment, request, ANNA)
    (line,) = run("history", "--assistant", "guide").output.splitlines()
    assert f"refuse               {release_id[:12]}  by anna: refused to promote: " in line


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this process be where the time is nine hours ahead of UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "JST-9")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("far_from_utc")
def test_history_tells_what_was_in_production_at_a_time(run: Run, two: Two, url: str) -> None:
    moved = ledger(url, "guide", "production")[-1].at
    east = timezone(timedelta(hours=5))
    first = two[0].release_id
    for at, production in (
        (moved, first),
        (moved - timedelta(microseconds=1), None),
        (datetime(2020, 1, 1, tzinfo=UTC), None),
    ):
        utc = at.astimezone(UTC)
        named = (utc.isoformat(), at.astimezone(east).isoformat(), str(at), f"{utc:%Y-%m-%dT%H:%M:%S.%fZ}")
        for text in (utc.replace(tzinfo=None).isoformat(), *named):
            said = json.loads(run("history", "--assistant", "guide", "--at", text, "--json").output)
            assert said["production"] == production, text
            assert datetime.fromisoformat(said["at"]) == at


def test_history_before_the_first_entry_says_none(run: Run, two: Two) -> None:
    output = run("history", "--assistant", "guide", "--at", "2020-01-01").output
    assert output == "production  none\nstaging     none\n"
    wrong = run("history", "--assistant", "guide", "--at", "yesterday")
    assert wrong.exit_code == 2
    assert "Invalid value for '--at': 'yesterday' is not a time like" in wrong.output
