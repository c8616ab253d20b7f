"""A receipt ticks what verifies and names what does not, line by line."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from llmops.answers import AnswerChunk, AnswerOutcome, close_answer, open_answer
from llmops.corpus import chunk_id_of, document_id
from llmops.corpus._tables import chunks_schema, documents_schema
from llmops.errors import MissingInput
from llmops.lakehouse import LakeTable
from llmops.release import (
    Actor,
    ApprovalRequest,
    confirm,
    ledger,
    promote,
    receipt,
    revoke,
    roll_back,
    sign_release,
    stage,
)
from llmops.settings import Environment
from llmops.signing import SigningKey
from release.conftest import PERSONAL
from support.services import FreshDatabase

Ask = Callable[..., ApprovalRequest]
ANNA = Actor("anna", "Airflow login")
CHUNK = {
    "source": "docs", "path": "a.md", "title": "A", "position": 0, "embed_text": "x", "token_count": 1,
}  # fmt: skip


@pytest.fixture
def kept(environment: Environment, url: str) -> Callable[[str], AnswerChunk]:
    """Store a document of one section and its chunk, as ingestion does, and return the chunk."""

    def keep(text: str) -> AnswerChunk:
        root, document = environment.table_root("guide"), document_id("docs", "a.md")
        body = f"# A\n\n{text}\n"
        version = sha256(f"A\0{body}".encode()).hexdigest()
        chunk = chunk_id_of("c" * 64, document, ["A"], text, 0)
        documents = {
            "document_id": document, "version": version, "source": "docs", "path": "a.md", "title": "A",
            "text": body, "media_type": "text/markdown", "source_date": None, "metadata": "{}",
        }  # fmt: skip
        chunks = {
            **CHUNK, "chunk_id": chunk, "document_id": document, "document_version": version, "text": text,
            "heading_path": json.dumps(["A"]), "char_start": 5, "char_end": 5 + len(text), "chunker": "c" * 64,
        }  # fmt: skip
        for name, key, row, schema in (
            ("documents", "document_id", documents, documents_schema()),
            ("chunks", "chunk_id", chunks, chunks_schema()),
        ):
            LakeTable(root, name).merge(
                pa.Table.from_pylist([row], schema=schema), key=key, database_url=url, delete_missing=True
            )
        return AnswerChunk(chunk, document, version, cited=True)

    return keep


@pytest.fixture
def answered(database: FreshDatabase) -> Callable[..., str]:
    """Log an answer of a release, as the service does."""

    def log(release_id: str, *chunks: AnswerChunk, status: Any = "complete") -> str:
        serving = database.url("llmops_serving")
        answer_id = open_answer(serving, assistant="guide", release_id=release_id, question="Why?")
        if status != "open":
            close_answer(serving, answer_id, AnswerOutcome("Because. [1]", chunks=chunks, status=status))
        return answer_id

    return log


@pytest.fixture
def answer_id(
    environment: Environment, approved: Ask, kept: Any, answered: Any, signed: Callable[[], None]
) -> str:
    """Return an answer for which everything holds."""
    request = approved()
    promote(environment, request, ANNA)
    signed()
    return str(answered(request.release_id, kept("Kilns dry wood.")))


NAMES = ["answer", "chunk", "release", "gate report", "approval", "production", "ledger"]


def lines(environment: Environment, answer: str) -> dict[str, str | None]:
    return {check.name: check.fault for check in receipt(environment, answer).checks}


def test_every_line_of_a_good_answer_is_a_tick(environment: Environment, answer_id: str) -> None:
    found = receipt(environment, answer_id)
    assert found.faults == []
    assert [check.name for check in found.checks] == NAMES
    assert "docs:a.md" in found.checks[1].detail
    assert "by reviewer" in found.checks[4].detail
    assert json.dumps(found.as_dict())


def test_an_answer_that_is_not_in_the_log_has_no_receipt(environment: Environment) -> None:
    with pytest.raises(MissingInput, match="no answer"):
        receipt(environment, "none")


def test_a_refusal_cites_nothing_and_that_is_a_tick(
    environment: Environment, answer_id: str, answered: Any
) -> None:
    release_id = ledger(environment.database_url.get_secret_value(), "guide", "production")[-1].to_release
    assert lines(environment, answered(release_id)) == {
        "answer": None, "chunks": None, "release": None, "gate report": None, "approval": None,
        "production": None, "ledger": None,
    }  # fmt: skip


@pytest.mark.parametrize("status", ["open", "failed"])
def test_an_answer_that_nobody_got_whole_is_named(
    environment: Environment, answer_id: str, answered: Any, url: str, status: str
) -> None:
    release_id = ledger(url, "guide", "production")[-1].to_release
    assert status in str(lines(environment, answered(release_id, status=status))["answer"])


def test_a_document_that_changed_since_is_read_as_it_was_then(
    environment: Environment, answer_id: str, kept: Any
) -> None:
    kept("Kilns dry wood and clay.")
    assert receipt(environment, answer_id).faults == []


@pytest.mark.parametrize(
    ("table", "key", "column", "message"),
    [
        ("chunks", "chunk_id", "text", "does not give the chunk's id"),
        ("chunks", "chunk_id", "heading_path", "does not give the chunk's id"),
        ("documents", "document_id", "text", "does not give its version"),
        ("chunks", "chunk_id", "char_start", "does not hold the chunk"),
    ],
)
def test_a_text_that_was_changed_in_the_tables_is_named(
    environment: Environment, answer_id: str, url: str, table: str, key: str, column: str, message: str
) -> None:
    lake = LakeTable(environment.table_root("guide"), table)
    rows = lake.read()
    changed = pa.array([7], pa.int32()) if column == "char_start" else pa.array(["something else"])
    lake.merge(rows.set_column(rows.column_names.index(column), column, changed), key=key, database_url=url)
    assert message in str(lines(environment, answer_id)["chunk"])


def test_a_chunk_that_is_nowhere_is_named(
    environment: Environment, answer_id: str, answered: Any, url: str
) -> None:
    release_id = ledger(url, "guide", "production")[-1].to_release
    made_up = AnswerChunk("f" * 32, "d" * 32, "v" * 64, cited=True)
    assert "neither now nor as that was then" in str(
        lines(environment, answered(release_id, made_up))["chunk"]
    )


NEVER = "the ledger never had this release in production"
NOT_THEN = "was not in production then"
EDITED = "entry 2 was edited after it was made"


@pytest.mark.parametrize(
    ("statement", "faults"),
    [
        (
            "UPDATE answer_log SET release_id = repeat('e', 64)",
            {
                "release": "no release", "gate report": "rests on the line 'approval'", "approval": NEVER,
                "production": NOT_THEN, "ledger": "rests on the line 'approval'",
            },
        ),
        (
            "UPDATE releases SET manifest = '{}'",
            {
                "release": "damaged", "gate report": "rests on the line 'release'",
                "approval": "rests on the line 'gate report'",
            },
        ),
        (
            "UPDATE gate_reports SET report = report || ' '",
            {"gate report": "changed after it was decided", "approval": "rests on the line 'gate report'"},
        ),
        ("UPDATE approvals SET reason = 'other'", {"approval": "edited the record"}),
        ("UPDATE release_ledger SET actor = 'x' WHERE action = 'stage'", {"ledger": "was edited"}),
        (
            "UPDATE release_ledger SET actor = 'x' WHERE action = 'promote'",
            {"approval": EDITED, "production": EDITED, "ledger": "entry 2: was edited"},
        ),
        (
            "DELETE FROM release_ledger WHERE action = 'promote'",
            {
                "gate report": "rests on the line 'approval'", "approval": NEVER, "production": NOT_THEN,
                "ledger": "cut off",
            },
        ),
        ("DELETE FROM ledger_heads", {"ledger": "not signed the ledger that far"}),
        ("UPDATE answer_log SET created_at = created_at - interval '1 day'", {"production": NOT_THEN}),
    ],
)  # fmt: skip
def test_what_was_changed_in_the_database_is_named_on_its_line_and_on_those_that_rest_on_it(
    environment: Environment, answer_id: str, owner: Callable[[str], None], statement: str, faults: dict[str, str]
) -> None:  # fmt: skip
    owner(statement)
    found = lines(environment, answer_id)
    assert list(found) == NAMES
    assert {name for name, fault in found.items() if fault} == set(faults)
    for name, message in faults.items():
        assert message in str(found[name])


def test_faults_that_have_nothing_to_do_with_each_other_are_all_named(
    environment: Environment, answer_id: str, owner: Callable[[str], None]
) -> None:
    owner(
        "UPDATE releases SET manifest = '{}'; UPDATE approvals SET reason = 'other'; DELETE FROM ledger_heads; "
        "UPDATE answer_log SET status = 'failed', created_at = created_at - interval '1 day'"
    )
    found = lines(environment, answer_id)
    assert list(found) == NAMES
    for name, message in (
        ("answer", "it is failed"), ("release", "damaged"), ("gate report", "rests on the line 'release'"),
        ("approval", "edited the record"), ("production", NOT_THEN), ("ledger", "not signed the ledger that far"),
    ):  # fmt: skip
        assert message in str(found[name])


def test_without_the_notarys_public_key_nothing_that_it_signed_is_ticked(
    environment: Environment, answer_id: str
) -> None:
    Path(environment.notary_keys).unlink()
    found = lines(environment, answer_id)
    assert list(found) == NAMES
    assert [name for name, fault in found.items() if fault] == ["approval", "ledger"]


def test_the_approvers_own_signature_is_said_where_it_verifies_and_named_where_it_does_not(
    environment: Environment, release: Any, report: Any, ask: Any, record: Any, answered: Any, signed: Any
) -> None:
    key, release_id = SigningKey.generate(), release(gate=PERSONAL)
    report_hash = report(release_id, gate=PERSONAL)
    assert environment.reviewer_keys is not None
    environment.reviewer_keys.write_text(f"reviewer {key.public_line}\n")
    stage(environment, release_id, report_hash, ANNA)
    request = ask(release_id, report_hash)
    record(request, personal=(sign_release(environment, release_id, key),))
    promote(environment, request, ANNA)
    signed()
    answer = answered(release_id)
    good = receipt(environment, answer)
    assert good.faults == []
    assert "signed by the notary, signed by reviewer's own key" in good.checks[4].detail
    environment.reviewer_keys.write_text(f"reviewer {SigningKey.generate().public_line}\n")
    (bad,) = receipt(environment, answer).faults
    assert (bad.name, "own signature" in str(bad.fault)) == ("approval", True)
    assert "own key" not in bad.detail


def test_a_release_that_was_revoked_later_keeps_its_receipts(
    environment: Environment, answer_id: str, approved: Ask, url: str, signed: Callable[[], None]
) -> None:
    first = str(ledger(url, "guide", "production")[-1].to_release)
    promote(environment, approved("b", baseline=first), ANNA)
    revoke(environment, first, ANNA, "it leaks")
    signed()
    assert receipt(environment, answer_id).faults == []


def test_an_answer_counts_for_the_time_in_which_its_release_was_in_production(
    environment: Environment, answer_id: str, approved: Ask, answered: Any, kept: Any, url: str,
    signed: Callable[[], None], owner: Callable[[str], None],
) -> None:  # fmt: skip
    first = str(ledger(url, "guide", "production")[-1].to_release)
    second = approved("b", baseline=first)
    promote(environment, second, ANNA)
    confirm(environment, second.release_id, timedelta())
    roll_back(environment, "guide", None, ANNA, "bad")
    signed()
    late = answered(second.release_id)  # a request that was under way when the rollback came
    assert lines(environment, late)["production"] is None
    owner("UPDATE answer_log SET created_at = created_at + interval '1 hour'")
    assert "was not in production then" in str(lines(environment, late)["production"])
    assert lines(environment, answer_id)["production"] is None
