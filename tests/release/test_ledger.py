"""The ledger takes only what each role may enter, and any change of it is found and located."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from llmops.database import connect
from llmops.release import (
    Actor,
    ApprovalRequest,
    MlflowCopies,
    check_ledger,
    current_release,
    keep_in_delta,
    kept_heads,
    ledger,
    notary_keys,
    promote,
    revoke,
    stage,
)
from llmops.release._ledger import (
    LedgerEntry,
    NewEntry,
    SignedHead,
    append_entry,
    open_head,
    sign_head,
    signed_heads,
)
from llmops.settings import Environment
from llmops.signing import SigningKey
from support.services import FreshDatabase

Make = Callable[..., str]
ANNA = Actor("anna", "Airflow login")


@pytest.fixture
def entered(database: FreshDatabase, url: str, release: Make, report: Make) -> list[LedgerEntry]:
    """Return eight entries about one release, with names that a careless encoding would confuse."""
    release_id = release()
    report_hash = report(release_id)
    for number in range(8):
        with connect(url) as connection:
            append_entry(
                connection,
                NewEntry(
                    "guide",
                    "stage",
                    f"anna{number}",
                    "1:x-",
                    alias="staging",
                    to_release=release_id,
                    report_hash=report_hash,
                ),
            )
    return ledger(url)


@pytest.fixture
def head(entered: list[LedgerEntry], notary_key: SigningKey) -> SignedHead:
    """Return the signed head of those entries."""
    return sign_head("dev", entered[-1], notary_key)


def problems(
    environment: Environment, entries: list[LedgerEntry], *heads: SignedHead
) -> list[tuple[int, str]]:
    found = check_ledger(entries, heads, "dev", notary_keys(environment))
    return [(fault.entry, fault.problem) for fault in found.faults]


def rewritten(entries: list[LedgerEntry]) -> list[LedgerEntry]:
    """Return entries whose hashes were computed anew, as somebody would who owns the database."""
    before, made = "0" * 64, []
    for number, entry in enumerate(entries, 1):
        entry = replace(entry, entry=number, previous=before)
        made.append(replace(entry, hash=entry.computed_hash()))
        before = made[-1].hash
    return made


def test_entries_are_numbered_without_gaps_and_each_follows_from_the_one_before(
    environment: Environment, entered: list[LedgerEntry], head: SignedHead
) -> None:
    assert [entry.entry for entry in entered] == list(range(1, 9))
    assert [entry.computed_hash() for entry in entered] == [entry.hash for entry in entered]
    assert [entry.previous for entry in entered] == ["0" * 64, *(entry.hash for entry in entered[:-1])]
    assert problems(environment, entered, head) == []


@pytest.mark.parametrize(
    "field", ["assistant", "actor", "reason", "authentication", "action", "to_release", "from_release", "at"]
)
def test_an_edit_of_any_field_is_located(
    environment: Environment, entered: list[LedgerEntry], head: SignedHead, field: str
) -> None:
    changed: Any = datetime.now(UTC) if field == "at" else "other"
    entered[3] = replace(entered[3], **{field: changed})
    assert problems(environment, entered, head) == [(4, "was edited: its content does not give its hash")]


def test_a_deleted_entry_is_located(
    environment: Environment, entered: list[LedgerEntry], head: SignedHead
) -> None:
    assert problems(environment, entered[:3] + entered[4:], head)[0] == (4, "entries 4 to 4 are gone")


def test_entries_that_changed_places_are_located(
    environment: Environment, entered: list[LedgerEntry], head: SignedHead
) -> None:
    entered[3], entered[4] = replace(entered[4], entry=4), replace(entered[3], entry=5)
    assert {entry for entry, _ in problems(environment, entered, head)} == {4, 5, 6}


def test_a_chain_computed_anew_is_found_by_a_signed_head(
    environment: Environment, entered: list[LedgerEntry], head: SignedHead
) -> None:
    entered[3] = replace(entered[3], actor="nobody")
    (fault,) = problems(environment, rewritten(entered), head)
    assert fault[0] == 8
    assert "rewritten" in fault[1]


def test_a_cut_tail_is_found_by_a_copy_of_a_head(
    environment: Environment, entered: list[LedgerEntry], head: SignedHead
) -> None:
    assert problems(environment, entered[:5]) == []  # without a head nobody can know
    (fault,) = problems(environment, entered[:5], head)
    assert fault == (6, "the ledger ends at 5, but the notary signed it up to 8: cut off")


def test_a_head_of_another_key_environment_or_entry_is_no_evidence(
    environment: Environment, entered: list[LedgerEntry], head: SignedHead, notary_key: SigningKey
) -> None:
    forged = sign_head("dev", entered[-1], SigningKey.generate())
    foreign = sign_head("prod", entered[-1], notary_key)
    for wrong in (forged, foreign, replace(head, entry=7), replace(head, statement="{}")):
        (fault,) = problems(environment, entered, wrong)
        assert "not the notary's" in fault[1]


def test_ten_thousand_entries_are_computed_as_the_database_computes_them(
    database: FreshDatabase, url: str, environment: Environment
) -> None:
    with psycopg.connect(database.url("llmops_owner")) as connection:
        connection.execute(
            "DO $$ BEGIN FOR i IN 1..10000 LOOP PERFORM append_ledger_entry(jsonb_build_object("
            "'assistant', 'guide', 'action', 'refuse', 'actor', 'ü' || i, 'reason', 'r')); END LOOP; END $$"
        )
    entries = ledger(url)
    assert len(entries) == 10_000
    assert check_ledger(entries, [], "dev", notary_keys(environment)).faults == ()


@pytest.mark.parametrize(
    ("role", "action", "allowed"),
    [
        ("llmops_worker", "approve", False),
        ("llmops_worker", "reject", False),
        ("llmops_worker", "refuse", True),
        ("llmops_worker", "stage", True),
        ("llmops_worker", "revoke", True),
        ("llmops_notary", "reject", True),
        ("llmops_notary", "refuse", True),
        ("llmops_notary", "stage", False),
        ("llmops_notary", "revoke", False),
        ("llmops_serving", "refuse", False),
    ],
)
def test_each_role_enters_only_what_is_its_own(
    database: FreshDatabase, release: Make, report: Make, role: str, action: Any, allowed: bool
) -> None:
    alias: Any = "staging" if action == "stage" else None
    release_id = release()
    new = NewEntry(
        "guide", action, "x", "r", alias=alias, to_release=release_id, report_hash=report(release_id)
    )
    with psycopg.connect(database.url(role)) as connection:
        if allowed:
            assert append_entry(connection, new).action == action
        else:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                append_entry(connection, new)


@pytest.mark.parametrize("action", ["promote", "roll back", "go back"])
def test_the_database_takes_no_move_to_a_release_that_was_never_approved(
    url: str, release: Make, report: Make, ask: Callable[..., ApprovalRequest], action: Any
) -> None:
    release_id = release()
    request = ask(release_id, report(release_id))
    new = NewEntry(
        "guide", action, "x", "r", alias="production", to_release=release_id,
        report_hash=request.report_hash, approval_nonce=None,
    )  # fmt: skip
    with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        append_entry(connection, new)


@pytest.mark.parametrize("verdict", ["FAIL", "INCOMPLETE"])
def test_the_database_takes_no_staging_of_a_release_that_did_not_pass(
    url: str, release: Make, report: Make, verdict: str
) -> None:
    release_id = release()
    for report_hash in (report(release_id, verdict), report(release("b")), None):
        new = NewEntry(
            "guide", "stage", "x", "r", alias="staging", to_release=release_id, report_hash=report_hash
        )
        with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            append_entry(connection, new)


def test_the_database_takes_no_promotion_on_a_rejection_or_an_approval_that_expired_or_compared_with_another(
    url: str, release: Make, report: Make, ask: Callable[..., ApprovalRequest], record: Any
) -> None:
    release_id, other = release(), release("b")
    soon = datetime.now(UTC) - timedelta(seconds=1)
    for report_hash, changes in (
        (report(release_id), {"expires_at": soon}),
        (report(release_id, baseline=other), {}),
        (report(release_id), {"decision": "rejected"}),
    ):
        request = ask(release_id, report_hash)
        record(request, **changes)
        new = NewEntry(
            "guide", "promote", "x", "r", alias="production", to_release=release_id,
            report_hash=report_hash, approval_nonce=request.nonce,
        )  # fmt: skip
        with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            append_entry(connection, new)


def test_the_database_lets_production_neither_vanish_nor_be_revoked(
    environment: Environment, url: str, approved: Callable[..., ApprovalRequest]
) -> None:
    first = approved("a")
    promote(environment, first, ANNA)
    second = approved("b", baseline=first.release_id)
    promote(environment, second, ANNA)
    for new in (
        NewEntry("guide", "go back", "x", "r", alias="production", from_release=second.release_id),
        NewEntry("guide", "go back", "x", "r", alias="production", from_release=first.release_id),
        NewEntry("guide", "revoke", "x", "r", to_release=second.release_id),
    ):
        with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            append_entry(connection, new)


def test_a_ledger_that_nobody_signed_for_minutes_is_a_fault(
    environment: Environment, entered: list[LedgerEntry]
) -> None:
    assert problems(environment, entered) == []
    old = rewritten([replace(entry, at=entry.at - timedelta(minutes=10)) for entry in entered])
    assert problems(environment, old) == [(8, "the notary has signed nothing of it, or every head is gone")]


def test_nobody_but_the_owner_writes_the_tables_of_trust_directly(
    database: FreshDatabase, entered: list[LedgerEntry]
) -> None:
    statements = {
        "llmops_worker": (
            "INSERT INTO release_ledger SELECT * FROM release_ledger",
            "UPDATE release_ledger SET actor = 'x'",
            "DELETE FROM release_ledger",
            "TRUNCATE release_ledger",
            "INSERT INTO ledger_heads VALUES (1, 'x', 'y')",
            "DELETE FROM ledger_heads",
            "UPDATE approvals SET decision = 'approved'",
            "DELETE FROM promotions",
            "UPDATE promotions SET to_release = from_release",
            "UPDATE approval_attempts SET person = NULL",
            "DELETE FROM personal_signatures",
            "SELECT ledger_hash(r) FROM release_ledger r",
        ),
        "llmops_notary": (
            "UPDATE release_ledger SET actor = 'x'",
            "DELETE FROM ledger_heads",
            "UPDATE approvals SET decision = 'approved'",
            "DELETE FROM approvals",
        ),
        "llmops_serving": (
            "INSERT INTO ledger_heads VALUES (1, 'x', 'y')",
            "INSERT INTO personal_signatures VALUES ('x', 'y', 'z', 's')",
            "UPDATE promotions SET state = 'complete'",
        ),
    }
    for role, forbidden in statements.items():
        for statement in forbidden:
            with (
                psycopg.connect(database.url(role)) as connection,
                pytest.raises(psycopg.errors.InsufficientPrivilege),
            ):
                connection.execute(statement)


def test_heads_are_kept_in_mlflow_and_delta_and_a_manipulated_database_replaces_no_copy(
    environment: Environment, database: FreshDatabase, entered: list[LedgerEntry], head: SignedHead
) -> None:
    def store(kept: SignedHead) -> None:
        with psycopg.connect(database.url("llmops_owner")) as connection:
            connection.execute("DELETE FROM ledger_heads")
            connection.execute(
                "INSERT INTO ledger_heads VALUES (%s, %s, %s)", (kept.entry, kept.statement, kept.signature)
            )

    store(head)
    assert (keep_in_delta(environment), keep_in_delta(environment)) == (1, 0)
    store(replace(head, statement="{}"))
    assert keep_in_delta(environment) == 1
    with psycopg.connect(database.url("llmops_owner")) as connection:
        connection.execute("DELETE FROM ledger_heads")
    assert head in kept_heads(environment)
    MlflowCopies(environment).keep(head)
    assert MlflowCopies(environment).kept() == [head]
    assert kept_heads(environment).count(head) == 2


def test_the_ledger_says_what_was_in_production_at_any_time(
    environment: Environment,
    url: str,
    release: Make,
    report: Make,
    ask: Callable[..., ApprovalRequest],
    record: Any,
) -> None:
    release_id = release()
    report_hash = report(release_id)
    stage(environment, release_id, report_hash, ANNA)
    request = ask(release_id, report_hash)
    record(request)
    promote(environment, request, ANNA)
    moved = ledger(url, "guide", "production")[-1].at
    with connect(url) as connection:
        assert current_release(connection, "guide", "production", moved) == release_id
        assert current_release(connection, "guide", "production", moved - timedelta(microseconds=1)) is None
        assert current_release(connection, "guide", "staging", moved) == release_id


def test_entries_from_before_the_chain_become_its_beginning(postgres: Any, database: FreshDatabase) -> None:
    """The migration is applied by hand to a table as the earlier version left it, gaps and all."""
    from importlib import resources

    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public AUTHORIZATION llmops_owner")
        connection.execute("CREATE EXTENSION vector")
    files = sorted(resources.files("llmops").joinpath("migrations").iterdir(), key=lambda file: file.name)
    with psycopg.connect(database.url("llmops_owner")) as connection:
        for file in files:
            if file.name.startswith("0006"):
                connection.execute("INSERT INTO releases VALUES (repeat('a', 64), 'guide', '{}')")
                for name in ("anna", "lost", "carl"):
                    connection.execute(
                        "INSERT INTO release_ledger (assistant, alias, action, to_release, actor, reason) "
                        "VALUES ('guide', 'staging', 'stage', repeat('a', 64), %s, 'r')",
                        (name,),
                    )
                connection.execute("DELETE FROM release_ledger WHERE actor = 'lost'")
            connection.execute(file.read_text())  # type: ignore[call-overload]
    entries = ledger(database.url("llmops_owner"))
    assert [(entry.entry, entry.actor) for entry in entries] == [(1, "anna"), (2, "carl")]
    assert [entry.hash for entry in rewritten(entries)] == [entry.hash for entry in entries]


def test_a_head_says_what_it_covers(
    environment: Environment, entered: list[LedgerEntry], head: SignedHead
) -> None:
    opened = open_head(head, "dev", notary_keys(environment))
    assert (opened.entry, opened.hash, opened.environment) == (8, entered[-1].hash, "dev")
    assert json.loads(head.statement)["kind"] == "ledger head"


def test_revoking_is_entered_once_with_name_and_reason(
    environment: Environment, url: str, release: Make
) -> None:
    from llmops.errors import NotApproved

    release_id = release()
    for actor, reason in ((Actor(" ", "x"), "bad"), (ANNA, " ")):
        with pytest.raises(NotApproved):
            revoke(environment, release_id, actor, reason)
    assert [revoke(environment, release_id[:20], ANNA, "bad") for _ in range(2)] == [release_id] * 2
    (entry,) = ledger(url, "guide")
    assert (entry.action, entry.actor, entry.reason) == ("revoke", "anna", "bad")
    assert signed_heads(url) == []
