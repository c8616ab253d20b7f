"""A release answers only on a ledger entry, an approval and artifacts that verify against the service's own keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from llmops.errors import ConfigurationError, IntegrityError, NotApproved, SignatureInvalid
from llmops.release import (
    Actor,
    ApprovalRequest,
    load_release,
    make_notary_key,
    promote,
    read_manifest,
    read_report,
    roll_back,
    sign_release,
    stage,
    store_signature,
)
from llmops.release._approval import require_pass_of
from llmops.release._ledger import newest_move
from llmops.release._statement import RELEASES, PersonalSignature, personal_signatures
from llmops.settings import Environment
from llmops.signing import SigningKey
from release.conftest import PERSONAL

Make = Callable[..., str]
Ask = Callable[..., ApprovalRequest]
Record = Callable[..., None]
AUTHOR = Actor("author", "Airflow login")


@pytest.fixture
def promoted(environment: Environment, approved: Ask) -> ApprovalRequest:
    """Return the request of the release in production."""
    request = approved()
    promote(environment, request, AUTHOR)
    return request


def loaded(serving: Environment) -> str | None:
    found = load_release(serving, "guide")
    if found is None:
        return None
    found.close()
    return found.release_id


def test_an_approved_release_is_loaded(serving: Environment, promoted: ApprovalRequest) -> None:
    assert loaded(serving) == promoted.release_id


def test_without_a_production_release_nothing_is_loaded(serving: Environment, approved: Ask) -> None:
    approved()
    assert loaded(serving) is None


@pytest.mark.parametrize(
    ("statement", "error", "message"),
    [
        ("UPDATE approvals SET signature = NULL, statement = NULL", SignatureInvalid, "no signature"),
        ("UPDATE approvals SET statement = '{}'", SignatureInvalid, "damaged"),
        (
            "UPDATE approvals SET statement = replace(statement, 'reviewer', 'reviewed')",
            SignatureInvalid,
            "not the notary's",
        ),
        ("UPDATE approvals SET approver = 'somebody'", SignatureInvalid, "edited the record"),
        ("UPDATE approvals SET reason = 'other'", SignatureInvalid, "edited the record"),
        (
            "UPDATE approvals SET expires_at = expires_at + interval '1 year'",
            SignatureInvalid,
            "edited the record",
        ),
        ("UPDATE approvals SET environment = 'prod'", SignatureInvalid, "edited the record"),
        (
            "UPDATE release_ledger SET actor = 'other' WHERE action = 'promote'",
            IntegrityError,
            "edited after",
        ),
        ("UPDATE gate_reports SET report = report || ' '", IntegrityError, "changed after it was decided"),
        ("UPDATE releases SET manifest = manifest || ' '", None, ""),
        (
            """UPDATE releases SET manifest = replace(manifest, '"author"', '"nobody"')""",
            IntegrityError,
            "changed after it was made",
        ),
        (
            "INSERT INTO release_ledger SELECT (jsonb_populate_record(l, "
            """'{"entry": 99, "action": "revoke", "alias": null}')).* FROM release_ledger l """
            "WHERE action = 'promote'",
            NotApproved,
            "is revoked",
        ),
    ],
)
def test_what_a_database_administrator_changes_is_refused(
    serving: Environment, promoted: ApprovalRequest, owner: Callable[[str], None],
    statement: str, error: type[Exception] | None, message: str,
) -> None:  # fmt: skip
    owner(statement)
    if error is None:  # spaces around the JSON change nothing that counts
        assert loaded(serving) == promoted.release_id
        return
    with pytest.raises(error, match=message):
        loaded(serving)


def test_a_notary_of_another_key_approves_nothing(
    environment: Environment, serving: Environment, release: Make, report: Make, ask: Ask, record: Record,
    owner: Callable[[str], None],
) -> None:  # fmt: skip
    release_id = release()
    report_hash = report(release_id)
    stage(environment, release_id, report_hash, AUTHOR)
    request = ask(release_id, report_hash)
    record(request, key=SigningKey.generate())
    with pytest.raises(SignatureInvalid, match="not the notary's"):
        promote(environment, request, AUTHOR)
    owner(
        "SELECT append_ledger_entry(jsonb_build_object('assistant', 'guide', 'alias', 'production', 'action', "
        f"'promote', 'actor', 'x', 'reason', 'r', 'to_release', '{release_id}', 'report_hash', '{report_hash}', "
        f"'approval_nonce', '{request.nonce}'))"
    )
    with pytest.raises(SignatureInvalid, match="not the notary's"):
        loaded(serving)


@pytest.mark.parametrize("decision", ["approved", "rejected"])
def test_an_approval_of_another_release_does_not_carry_this_one(
    serving: Environment, promoted: ApprovalRequest, approved: Ask, report: Make, ask: Ask, record: Record,
    owner: Callable[[str], None], decision: str,
) -> None:  # fmt: skip
    """A replayed or a turned approval: signed by the notary, but of something else."""
    other = promoted if decision == "rejected" else approved("b")
    if decision == "rejected":
        asked = ask(promoted.release_id, promoted.report_hash)
        record(asked, "rejected")
        nonce = asked.nonce
    else:
        nonce = other.nonce
    owner(f"UPDATE release_ledger SET approval_nonce = '{nonce}' WHERE action = 'promote'")
    owner("UPDATE release_ledger r SET hash = ledger_hash(r) WHERE action = 'promote'")
    with pytest.raises(NotApproved, match="but its approval says"):
        loaded(serving)


def test_an_approval_of_another_environment_or_assistant_is_refused(
    serving: Environment, promoted: ApprovalRequest
) -> None:
    elsewhere = serving.model_copy(update={"name": "prod"})
    with pytest.raises(NotApproved, match="for 'guide' in environment 'dev', this is 'guide' in 'prod'"):
        loaded(elsewhere)


def test_a_report_without_rules_is_none_of_a_release(release: Make, report: Make, url: str) -> None:
    release_id = release()
    bare = replace(read_report(url, report(release_id)), report='{"verdict": "PASS"}')
    with pytest.raises(IntegrityError, match="decided with other rules"):
        require_pass_of(read_manifest(url, release_id), bare)


def test_a_release_that_was_rolled_back_to_rests_on_its_own_approval(
    environment: Environment, serving: Environment, promoted: ApprovalRequest, approved: Ask,
    owner: Callable[[str], None],
) -> None:  # fmt: skip
    second = approved("b", baseline=promoted.release_id)
    promote(environment, second, AUTHOR)
    roll_back(environment, "guide", None, AUTHOR, "bad answers")
    assert loaded(serving) == promoted.release_id
    owner(f"UPDATE approvals SET signature = 'none' WHERE nonce = '{promoted.nonce}'")
    with pytest.raises(SignatureInvalid):
        loaded(serving)
    roll_back(environment, "guide", second.release_id, AUTHOR, "back")
    with pytest.raises(SignatureInvalid):
        roll_back(environment, "guide", promoted.release_id, AUTHOR, "its approval was edited")


def test_rollback_checks_the_code_that_the_release_was_judged_with(
    environment: Environment, promoted: ApprovalRequest, approved: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(environment, approved("b", baseline=promoted.release_id), AUTHOR)
    monkeypatch.setattr("llmops.release._verify.code_digest", lambda: "newer")
    with pytest.raises(NotApproved, match="roll out the image first"):
        roll_back(environment, "guide", None, AUTHOR, "bad answers")


def test_a_revoked_release_is_never_promoted_nor_rolled_back_to(
    environment: Environment, promoted: ApprovalRequest, approved: Ask
) -> None:
    from llmops.release import revoke

    second = approved("b", baseline=promoted.release_id)
    with pytest.raises(NotApproved, match="is in production"):
        revoke(environment, promoted.release_id, AUTHOR, "it leaks")
    promote(environment, second, AUTHOR)
    revoke(environment, promoted.release_id, AUTHOR, "it leaks")
    with pytest.raises(NotApproved, match="revoked"):
        roll_back(environment, "guide", None, AUTHOR, "bad answers")
    third = approved("c", baseline=second.release_id)
    revoke(environment, third.release_id, AUTHOR, "found out")
    with pytest.raises(NotApproved, match="revoked"):
        promote(environment, third, AUTHOR)


@pytest.fixture
def personally(
    environment: Environment, release: Make, report: Make, ask: Ask, record: Record
) -> Callable[..., ApprovalRequest]:
    """Return a request, approved by the notary, of a release whose gate asks for the approver's own signature."""

    def make(*signatures: PersonalSignature, prompt: str = "a") -> ApprovalRequest:
        release_id = release(prompt, gate=PERSONAL)
        report_hash = report(release_id, gate=PERSONAL)
        stage(environment, release_id, report_hash, AUTHOR)
        request = ask(release_id, report_hash)
        record(request, personal=signatures)
        return request

    return make


def test_a_personal_gate_is_passed_by_the_approvers_own_signature_alone(
    environment: Environment, serving: Environment, release: Make, personally: Callable[..., ApprovalRequest]
) -> None:
    """Neither who administers Airflow or the database, nor the notary, can make that signature."""
    mine, other = SigningKey.generate(), SigningKey.generate()
    release_id = release(gate=PERSONAL)
    assert environment.reviewer_keys is not None

    def signature(principal: str, key: SigningKey, of: str = release_id) -> PersonalSignature:
        return PersonalSignature(
            principal=principal, fingerprint="f", signature=key.sign(of.encode(), RELEASES)
        )

    for nobody in (None, "# Nobody yet.\n"):
        if nobody is not None:
            environment.reviewer_keys.write_text(nobody)
        with pytest.raises(ConfigurationError, match="no keys of reviewers"):
            promote(environment, personally(), AUTHOR)
    environment.reviewer_keys.write_text(
        f'reviewer namespaces="llmops-release" {mine.public_line}\nanna {other.public_line}\n'
    )
    wrong = (
        (),
        (signature("reviewer", other),),
        (signature("anna", other),),
        (signature("reviewer", mine, of="b" * 64),),
        (PersonalSignature(principal="reviewer", fingerprint="f", signature="none"),),
    )
    for signatures in wrong:
        with pytest.raises(NotApproved, match="own signature"):
            promote(environment, personally(*signatures), AUTHOR)
    signed = sign_release(environment, release_id, mine)
    assert signed.principal == "reviewer"
    promote(environment, personally(signed), AUTHOR)
    assert loaded(serving) == release_id
    environment.reviewer_keys.write_text(f"reviewer {other.public_line}\n")
    with pytest.raises(NotApproved, match="own signature"):
        loaded(serving)


def test_a_signature_made_elsewhere_counts_and_junk_under_the_same_key_takes_no_place(
    environment: Environment, release: Make, url: str
) -> None:
    mine, release_id = SigningKey.generate(), release()
    assert environment.reviewer_keys is not None
    environment.reviewer_keys.write_text(f"reviewer {mine.public_line}\n")
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO personal_signatures (release_id, fingerprint, principal, signature) "
            "VALUES (%s, %s, 'reviewer', 'junk')",
            (release_id, mine.fingerprint),
        )
    assert personal_signatures(environment, release_id) == []
    environment.reviewer_keys.write_text("# Nobody yet.\n")
    assert personal_signatures(environment, release_id) == []
    environment.reviewer_keys.write_text(f"reviewer {mine.public_line}\n")
    with pytest.raises(SignatureInvalid):
        store_signature(environment, release_id, mine.sign(b"another", RELEASES))
    stored = store_signature(environment, release_id, mine.sign(release_id.encode(), RELEASES))
    assert personal_signatures(environment, release_id) == [stored]


def test_a_key_of_nobody_signs_no_release(environment: Environment, release: Make) -> None:
    assert environment.reviewer_keys is not None
    environment.reviewer_keys.write_text(f"reviewer {SigningKey.generate().public_line}\n")
    with pytest.raises(SignatureInvalid):
        sign_release(environment, release(), SigningKey.generate())


def test_what_an_earlier_key_of_the_notary_signed_still_verifies_after_a_rotation(
    environment: Environment, serving: Environment, promoted: ApprovalRequest, approved: Ask, record: Record,
    release: Make, report: Make, ask: Ask, tmp_path: Path,
) -> None:  # fmt: skip
    make_notary_key(tmp_path / "next" / "key", Path(environment.notary_keys))
    assert len(Path(environment.notary_keys).read_text().splitlines()) == 2
    assert loaded(serving) == promoted.release_id
    release_id = release("b")
    report_hash = report(release_id, baseline=promoted.release_id)
    stage(environment, release_id, report_hash, AUTHOR)
    request = ask(release_id, report_hash)
    record(request, key=SigningKey.load(tmp_path / "next" / "key"))
    promote(environment, request, AUTHOR)
    assert loaded(serving) == release_id


def test_a_key_that_was_retired_signs_nothing_afterwards(
    environment: Environment, approved: Ask, notary_key: SigningKey
) -> None:
    yesterday = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y%m%d%H%MZ")
    Path(environment.notary_keys).write_text(
        f'notary namespaces="llmops-approval",valid-before="{yesterday}" {notary_key.public_line}\n'
    )
    with pytest.raises(SignatureInvalid):
        promote(environment, approved(), AUTHOR)


def test_a_move_to_a_release_without_a_promotion_is_not_loaded(
    serving: Environment, promoted: ApprovalRequest, approved: Ask, owner: Callable[[str], None], url: str
) -> None:
    """Somebody who owns the database writes a move to a release that was approved, but never promoted."""
    second = approved("b", baseline=promoted.release_id)
    owner("UPDATE release_ledger SET action = 'roll back' WHERE action = 'promote'")
    owner(f"UPDATE release_ledger SET to_release = '{second.release_id}' WHERE action = 'roll back'")
    owner("UPDATE release_ledger r SET hash = ledger_hash(r) WHERE action = 'roll back'")
    entry = newest_move(url, "guide", "production")
    assert entry is not None
    assert entry.to_release == second.release_id
    with pytest.raises(NotApproved, match="never was promoted"):
        loaded(serving)
