"""Nothing reaches production without a PASS and a valid approval of exactly that release."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from mlflow import MlflowClient

from llmops.errors import (
    EmbedderMismatch,
    IntegrityError,
    MissingInput,
    NotApproved,
    NotConfirmed,
    StaleRelease,
)
from llmops.index import Generation, create_generation, find_generation
from llmops.manifest import IndexPin
from llmops.release import (
    Actor,
    ApprovalRequest,
    RunReference,
    alias_doubt,
    confirm,
    ledger,
    open_approval,
    production_release,
    promote,
    read_manifest,
    read_report,
    registry_of,
    report_replica,
    request_text,
    roll_back,
    stage,
)
from llmops.release._moves import find_move
from llmops.settings import Environment
from support.services import FreshDatabase

Make = Callable[..., str]
Ask = Callable[..., ApprovalRequest]
Record = Callable[..., None]
AUTHOR, REVIEWER = Actor("author", "Airflow login"), Actor("reviewer", "Airflow login")


@pytest.fixture
def astray(environment: Environment, approved: Ask) -> str:
    """Return the release in production, after somebody moved the alias to another one by hand."""
    first = approved("a")
    promote(environment, first, AUTHOR)
    second = approved("b", baseline=first.release_id)
    registry = registry_of(environment, "guide")
    version = registry.release_version(second.release_id)
    assert version is not None
    registry.set_alias("production", version)
    return first.release_id


def production(environment: Environment) -> str | None:
    return production_release(environment, "guide")


def test_an_approved_release_goes_to_production_once(
    environment: Environment, approved: Ask, url: str
) -> None:
    request = approved()
    assert promote(environment, request, AUTHOR) == ""
    assert promote(environment, request, AUTHOR) == ""
    assert production(environment) == request.release_id
    entries = ledger(url, "guide", "production")
    assert [(e.to_release, e.actor, e.report_hash, e.approval_nonce) for e in entries] == [
        (request.release_id, "author", request.report_hash, request.nonce)
    ]


def test_staging_stays_where_it_is_after_promotion(environment: Environment, approved: Ask) -> None:
    request = approved()
    promote(environment, request, AUTHOR)
    assert registry_of(environment, "guide").alias("staging")[0] == request.release_id  # type: ignore[index]


def test_staging_again_registers_nothing_and_records_nothing(
    environment: Environment, release: Make, report: Make, url: str
) -> None:
    release_id = release()
    report_hash = report(release_id)
    versions = [stage(environment, release_id, report_hash, AUTHOR) for _ in range(2)]
    assert versions == [1, 1]
    assert [e.to_release for e in ledger(url, "guide", "staging")] == [release_id]


def test_a_report_that_is_no_pass_can_neither_be_staged_nor_asked_about(
    environment: Environment, release: Make, report: Make, ask: Ask
) -> None:
    release_id, other = release("a"), release("b")
    for report_hash in (report(release_id, "FAIL"), report(release_id, "INCOMPLETE"), report(other, "PASS")):
        with pytest.raises(NotApproved):
            stage(environment, release_id, report_hash, AUTHOR)
        with pytest.raises(NotApproved):
            ask(release_id, report_hash)
    assert registry_of(environment, "guide").alias("staging") is None


def test_a_run_asks_once_and_about_one_release(environment: Environment, release: Make, report: Make) -> None:
    one, other = release("a"), release("b")
    on_one, on_other = report(one), report(other)
    run = RunReference("release_assistant", "manual", "ask_reviewer")
    deadline = datetime.now(UTC) + timedelta(hours=1)
    first = open_approval(environment, one, on_one, deadline, run)
    assert open_approval(environment, one, on_one, deadline + timedelta(hours=1), run) == first
    with pytest.raises(NotApproved, match="start a new run"):
        open_approval(environment, other, on_other, deadline, run)


def test_without_the_notarys_record_nothing_is_promoted_and_the_ledger_says_so(
    environment: Environment, release: Make, report: Make, ask: Ask, url: str
) -> None:
    release_id = release()
    request = ask(release_id, report(release_id))
    with pytest.raises(NotApproved, match="recorded no answer"):
        promote(environment, request, AUTHOR)
    assert production(environment) is None
    (entry,) = ledger(url, "guide")
    assert (entry.action, entry.actor, entry.to_release) == ("refuse", "author", release_id)
    assert "recorded no answer" in entry.reason


@pytest.mark.parametrize(
    ("decision", "changes", "message"),
    [
        ("rejected", {"reason": "reviewer chose Reject"}, "chose Reject"),
        ("approved", {"expires_at": datetime.now(UTC) - timedelta(seconds=1)}, "expired"),
        ("approved", {"environment": "staging"}, "environment"),
    ],
)
def test_a_rejected_expired_or_foreign_approval_promotes_nothing(
    environment: Environment, release: Make, report: Make, ask: Ask, record: Record,
    decision: str, changes: dict, message: str,
) -> None:  # fmt: skip
    release_id = release()
    request = ask(release_id, report(release_id))
    record(request, decision, **changes)
    with pytest.raises(NotApproved, match=message):
        promote(environment, request, AUTHOR)
    assert production(environment) is None


def test_an_approval_of_one_release_does_not_promote_another(
    environment: Environment, release: Make, report: Make, ask: Ask, record: Record
) -> None:
    one, other = release("a"), release("b")
    request = ask(one, report(one))
    record(request, release_id=other, report_hash=report(other))
    with pytest.raises(NotApproved, match=f"of release {other[:12]} .* not of this one"):
        promote(environment, request, AUTHOR)


def test_an_approval_on_another_report_of_the_release_promotes_nothing(
    environment: Environment, release: Make, report: Make, ask: Ask, record: Record
) -> None:
    release_id = release()
    request, other = ask(release_id, report(release_id)), report(release_id)
    record(request, report_hash=other)
    with pytest.raises(NotApproved, match=f"on report {other[:12]}"):
        promote(environment, request, AUTHOR)
    assert production(environment) is None


@pytest.fixture
def retrieving(environment: Environment, release: Make, url: str, tmp_path: Path) -> Callable[..., str]:
    """Store a manifest that retrieves: a registered embedder (of no use) and an index generation made by it."""
    folder = tmp_path / "embedder"
    folder.mkdir()
    for name in ("embedder.json", "model.onnx", "tokenizer.json"):
        (folder / name).write_text(f"the {name} of a test")
    pin = registry_of(environment, "guide").register_model("embedder", folder, params={}, metrics={}, tags={})
    generation = Generation("guide_1", "guide", pin, pin.fingerprint, dimension=3, chunker="c")
    create_generation(url, generation)
    index = IndexPin(generation=generation.id, chunker={"digest": "c"})
    return lambda **changes: release(**{"embedder": pin, "index": index, **changes})


@pytest.fixture
def retrieving_approved(
    environment: Environment, retrieving: Make, report: Make, ask: Ask, record: Record
) -> ApprovalRequest:
    """Return an approved request of a staged release that retrieves."""
    release_id = retrieving()
    report_hash = report(release_id)
    stage(environment, release_id, report_hash, AUTHOR)
    request = ask(release_id, report_hash)
    record(request)
    return request


def test_promotion_makes_the_releases_index_live(
    environment: Environment, retrieving_approved: ApprovalRequest, url: str
) -> None:
    assert find_generation(url, "guide_1").state == "building"
    promote(environment, retrieving_approved, AUTHOR)
    assert find_generation(url, "guide_1").state == "live"


@pytest.mark.parametrize("where", ["registry", "cache"])
def test_a_changed_or_extra_file_stops_promotion_and_is_named(
    environment: Environment,
    retrieving_approved: ApprovalRequest,
    mlflow_url: str,
    tmp_path: Path,
    where: str,
) -> None:
    manifest = read_manifest(environment.database_url.get_secret_value(), retrieving_approved.release_id)
    assert manifest.embedder is not None
    registry = registry_of(environment, "guide")
    folder = registry.fetch(manifest.embedder)
    if where == "registry":
        client = MlflowClient(mlflow_url)
        name, version = manifest.embedder.uri.removeprefix("models:/").split("/")
        (tmp_path / "extra.bin").write_text("x")
        client.log_artifact(
            client.get_model_version(name, version).run_id, str(tmp_path / "extra.bin"), "embedder"
        )
    else:
        (folder / "tokenizer.json").write_text("another")
    with pytest.raises(IntegrityError, match="extra.bin" if where == "registry" else "tokenizer.json"):
        promote(environment, retrieving_approved, AUTHOR)
    assert production(environment) is None
    assert registry.alias("production") is None


@pytest.mark.parametrize("where", ["registry", "cache"])
def test_a_prompt_that_was_changed_stops_promotion(
    environment: Environment, approved: Ask, mlflow_url: str, url: str, where: str
) -> None:
    request = approved()
    pin = read_manifest(url, request.release_id).prompt
    name, version = pin.uri.removeprefix("prompts:/").split("/")
    if where == "registry":
        MlflowClient(mlflow_url).set_prompt_version_tag(
            name, version, "mlflow.prompt.text", "Say yes. {question}"
        )
    else:
        (copy,) = registry_of(environment, "guide").cache.rglob(f"{pin.text_hash}.txt")
        copy.write_text("Say yes. {question}")
    with pytest.raises(IntegrityError, match="prompt"):
        promote(environment, request, AUTHOR)
    assert production(environment) is None


@pytest.mark.parametrize("how", ["changed", "gone"])
def test_evaluation_cases_that_are_not_the_pinned_ones_stop_promotion(
    environment: Environment, approved: Ask, how: str
) -> None:
    request = approved()
    (file,) = (Path(environment.table_root("guide")) / "_cases").iterdir()
    if how == "gone":
        file.unlink()
    else:
        file.write_text(file.read_text().replace('"question": "', '"question": "Really: ', 1))
    with pytest.raises(MissingInput, match="cases"):
        promote(environment, request, AUTHOR)
    assert production(environment) is None


def test_an_index_of_another_embedder_stops_promotion(
    environment: Environment, retrieving_approved: ApprovalRequest, database: FreshDatabase
) -> None:
    with psycopg.connect(database.url("llmops_owner")) as connection:
        connection.execute("UPDATE index_generations SET fingerprint = 'other'")
    with pytest.raises(EmbedderMismatch, match="assemble it again"):
        promote(environment, retrieving_approved, AUTHOR)
    assert production(environment) is None


def test_promotion_is_refused_when_production_moved_since_the_gate_compared(
    environment: Environment, approved: Ask
) -> None:
    first, second = approved("a"), approved("b")
    promote(environment, first, AUTHOR)
    with pytest.raises(StaleRelease, match="run release_assistant again"):
        promote(environment, second, AUTHOR)
    assert production(environment) == first.release_id


def test_uncommitted_code_is_promoted_in_dev_only_and_a_release_in_its_own_environment_only(
    environment: Environment, release: Make, report: Make, forged: Ask, record: Record, url: str
) -> None:
    prod = environment.model_copy(update={"name": "prod"})
    for release_id, message in (
        (release(dirty=True, environment="prod"), "uncommitted"),
        (release(), "for env"),
    ):
        report_hash = report(release_id)
        stage(environment, release_id, report_hash, AUTHOR)
        request = forged(release_id, report_hash, read_manifest(url, release_id).environment)
        record(request, environment="prod")
        with pytest.raises(NotApproved, match=message):
            promote(prod, request, AUTHOR)
    assert production(environment) is None


def test_a_replica_with_other_code_stops_promotion_before_the_alias_moves(
    environment: Environment, database: FreshDatabase, approved: Ask
) -> None:
    request = approved()
    with psycopg.connect(database.url("llmops_serving")) as connection:
        connection.execute(
            "INSERT INTO replicas (assistant, replica_id, release_id, code_digest) VALUES ('guide', 'r1', 'x', 'old')"
        )
    with pytest.raises(NotApproved, match="r1 run"):
        promote(environment, request, AUTHOR)
    assert registry_of(environment, "guide").alias("production") is None


def test_a_worker_with_other_code_does_not_promote(
    environment: Environment, approved: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = approved()
    monkeypatch.setattr("llmops.release._verify.code_digest", lambda: "newer")
    with pytest.raises(NotApproved, match="this worker run"):
        promote(environment, request, AUTHOR)
    assert registry_of(environment, "guide").alias("production") is None


def test_a_replica_that_is_gone_does_not_stop_promotion(
    environment: Environment, database: FreshDatabase, approved: Ask
) -> None:
    request = approved()
    with psycopg.connect(database.url("llmops_serving")) as connection:
        connection.execute(
            "INSERT INTO replicas (assistant, replica_id, release_id, code_digest, seen_at) "
            "VALUES ('guide', 'r1', 'x', 'old', now() - interval '1 minute')"
        )
    promote(environment, request, AUTHOR)
    assert production(environment) == request.release_id


def test_an_alias_moved_by_hand_changes_no_answer_and_is_said(environment: Environment, astray: str) -> None:
    assert production(environment) == astray
    assert "moved without a promotion" in (alias_doubt(environment, "guide") or "")
    roll_back(environment, "guide", astray, REVIEWER, "put right")
    assert alias_doubt(environment, "guide") is None


def test_rollback_goes_to_an_earlier_production_release_with_a_name_and_a_reason(
    environment: Environment, approved: Ask, release: Make, url: str
) -> None:
    first = approved("a")
    promote(environment, first, AUTHOR)
    second = approved("b", baseline=first.release_id)
    promote(environment, second, AUTHOR)
    never = release("c")
    with pytest.raises(MissingInput, match="never in production"):
        roll_back(environment, "guide", never, REVIEWER, "bad answers")
    for actor, reason in ((Actor("", "Airflow login"), "bad answers"), (REVIEWER, " ")):
        with pytest.raises(NotApproved):
            roll_back(environment, "guide", None, actor, reason)
    with pytest.raises(MissingInput, match="fits several"):
        roll_back(environment, "guide", "", REVIEWER, "bad answers")
    assert production(environment) == second.release_id
    prefix = next(
        first.release_id[:n] for n in range(1, 65) if not second.release_id.startswith(first.release_id[:n])
    )
    assert roll_back(environment, "guide", prefix, REVIEWER, "bad answers") == first.release_id
    assert production(environment) == first.release_id
    last = ledger(url, "guide", "production")[-1]
    assert (last.action, last.actor, last.reason) == ("roll back", "reviewer", "bad answers")


def test_rollbacks_one_after_the_other_never_bring_back_what_was_rolled_back(
    environment: Environment, approved: Ask, url: str
) -> None:
    releases: list[str] = []
    for prompt in "abc":
        request = approved(prompt, baseline=releases[-1] if releases else None)
        promote(environment, request, AUTHOR)
        releases.append(request.release_id)
    for expected in (releases[1], releases[0]):
        assert roll_back(environment, "guide", None, REVIEWER, "bad answers") == expected
    with pytest.raises(MissingInput, match="replaced none"):
        roll_back(environment, "guide", None, REVIEWER, "bad answers")
    assert roll_back(environment, "guide", releases[0], REVIEWER, "again") == releases[0]
    assert production(environment) == releases[0]
    assert [e.to_release for e in ledger(url, "guide", "production")] == [*releases, releases[1], releases[0]]


def test_an_alias_that_went_astray_is_put_back_by_a_rollback(environment: Environment, astray: str) -> None:
    with pytest.raises(MissingInput, match=f"must name its release.*{astray[:12]}"):
        roll_back(environment, "guide", None, REVIEWER, "the alias was moved")
    assert roll_back(environment, "guide", astray, REVIEWER, "the alias was moved") == astray
    assert production(environment) == astray


def test_a_request_that_names_a_report_which_is_no_pass_of_it_promotes_nothing(
    environment: Environment, release: Make, report: Make, forged: Ask, record: Record
) -> None:
    one, other = release("a"), release("b")
    for report_hash in (report(one, "FAIL"), report(other, "PASS")):
        request = forged(one, report_hash)
        record(request)
        with pytest.raises(NotApproved, match="not a PASS of"):
            promote(environment, request, AUTHOR)


@pytest.mark.parametrize("change", ["verdict = 'PASS'", "report = replace(report, 'quality', 'quantity')"])
def test_a_report_changed_in_the_database_is_refused(
    database: FreshDatabase, release: Make, report: Make, url: str, change: str
) -> None:
    report_hash = report(release(), "FAIL")
    with psycopg.connect(database.url("llmops_owner")) as connection:
        connection.execute(f"UPDATE gate_reports SET {change}")
    with pytest.raises(IntegrityError, match="changed after it was decided"):
        read_report(url, report_hash)


def test_confirmation_fails_when_a_replica_it_saw_went_silent(
    environment: Environment, serving: Environment, approved: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = approved()
    promote(environment, request, AUTHOR)
    monkeypatch.setattr("llmops.release._verify.LIVE", timedelta(seconds=1))
    report_replica(serving, "guide", "b" * 64, "r1")
    with pytest.raises(NotConfirmed, match="r1"):
        confirm(environment, request.release_id, timedelta(seconds=3))


def test_confirmation_waits_for_every_live_replica(
    environment: Environment, serving: Environment, approved: Ask
) -> None:
    request = approved()
    promote(environment, request, AUTHOR)
    assert confirm(environment, request.release_id, timedelta(seconds=0)) == 0
    report_replica(serving, "guide", "b" * 64, "r1")
    with pytest.raises(NotConfirmed, match="r1"):
        confirm(environment, request.release_id, timedelta(seconds=1))
    report_replica(serving, "guide", request.release_id, "r1")
    report_replica(serving, "guide", request.release_id, "r2")
    assert confirm(environment, request.release_id, timedelta(seconds=1)) == 2


@pytest.mark.parametrize("heard_of", [False, True], ids=["never", "a minute ago"])
def test_confirmation_that_awaits_no_service_is_complete_at_once_where_none_is_alive(
    environment: Environment, serving: Environment, owner: Callable[[str], None], approved: Ask, url: str,
    heard_of: bool,
) -> None:  # fmt: skip
    request = approved()
    promote(environment, request, AUTHOR)
    if heard_of:
        report_replica(serving, "guide", "b" * 64, "r1")
        owner("UPDATE replicas SET seen_at = now() - interval '1 minute'")
    began = time.monotonic()
    assert confirm(environment, request.release_id, timedelta(seconds=6), await_service=False) == 0
    assert time.monotonic() - began < 5
    move = find_move(url, {"assistant": "guide"})
    assert move is not None
    assert move.state == "complete"


def test_confirmation_that_awaits_no_service_still_waits_for_one_that_is_alive(
    environment: Environment, serving: Environment, approved: Ask
) -> None:
    request = approved()
    promote(environment, request, AUTHOR)
    report_replica(serving, "guide", "b" * 64, "r1")
    with pytest.raises(NotConfirmed, match="r1"):
        confirm(environment, request.release_id, timedelta(seconds=0.5), await_service=False)


def test_the_worker_cannot_write_an_approval_or_change_the_ledger(
    database: FreshDatabase, environment: Environment, approved: Ask
) -> None:
    request = approved()
    promote(environment, request, AUTHOR)
    forbidden = (
        "INSERT INTO approvals SELECT * FROM approvals",
        "UPDATE approvals SET decision = 'approved'",
        "DELETE FROM approvals",
        "UPDATE release_ledger SET actor = 'someone'",
        "DELETE FROM release_ledger",
        "UPDATE releases SET manifest = ''",
        "UPDATE gate_reports SET verdict = 'PASS'",
        "UPDATE approval_requests SET deadline = now()",
        "ALTER TABLE approvals DISABLE TRIGGER ALL",
    )
    for statement in forbidden:
        with (
            psycopg.connect(database.url("llmops_worker")) as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            connection.execute(statement)


def test_a_manifest_changed_in_the_database_is_refused(
    database: FreshDatabase, release: Make, url: str
) -> None:
    release_id = release()
    with psycopg.connect(database.url("llmops_owner")) as connection:
        connection.execute("UPDATE releases SET manifest = replace(manifest, '\"author\"', '\"nobody\"')")
    with pytest.raises(IntegrityError, match="changed after it was made"):
        read_manifest(url, release_id)


def test_the_text_of_a_request_carries_both_hashes_and_the_report(
    release: Make, report: Make, ask: Ask, url: str
) -> None:
    release_id = release()
    request = ask(release_id, report(release_id))
    subject, body = request_text(
        request, read_manifest(url, release_id), read_report(url, request.report_hash)
    )
    assert release_id[:12] in subject
    assert all(part in body for part in (release_id, request.report_hash, "author", "PASS"))
