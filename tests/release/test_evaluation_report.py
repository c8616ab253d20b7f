"""A stored report: its texts are erased one by one, it is decided again, and the gate is tried by it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from click.testing import Result

from llmops.errors import ConfigurationError, IntegrityError, MissingInput
from llmops.evaluation import GateReport
from llmops.llm import FakeLanguageModel as Fake
from llmops.release import (
    StoredReport,
    erase_gate_text,
    find_report,
    read_gate_texts,
    read_report,
    report_cases,
)
from support.evaluations import content_of
from support.services import FreshDatabase

Configure = Callable[..., None]
Decided = Callable[[], StoredReport]
Candidate = Callable[[], str]
Gate = Callable[..., Result]


def test_a_text_is_erased_everywhere_and_the_report_stays_what_it_was(
    url: str, promoted: StoredReport, configure: Configure, decided: Decided,
    gate: Gate,
) -> None:  # fmt: skip
    configure(prompt="Answer at once.")
    configure({"metric": "facts_covered", "minimum": 0.5})
    report = decided()
    first, second, *_ = report_cases(url, report.report_hash)
    assert second.candidate.text is not None
    for _ in range(2):
        erase_gate_text(url, first.case.digest)
        erase_gate_text(url, second.candidate.text.digest)
    again = report_cases(url, report.report_hash)
    assert again[0].question is None
    assert again[0].case.erased_at is not None
    assert again[1].question == second.question
    assert again[1].candidate.text is not None
    assert again[1].candidate.text.content is None
    assert again[1].baseline == second.baseline
    assert read_report(url, report.report_hash).report == report.report
    result = gate("replay", report.report_hash)
    assert result.exit_code == 0, result.output
    assert "2 of 40 cases are erased" in result.output


def test_an_erased_question_is_gone_from_the_page_and_does_not_come_back(
    url: str,
    fake: Fake,
    promoted: StoredReport,
    configure: Configure,
    decided: Decided,
) -> None:
    fake.queue(*["I know nothing."] * 3)
    configure({"metric": "quality", "minimum": 0.5}, prompt="Answer at once.")
    report = decided()
    lost = [c for c in report_cases(url, report.report_hash) if c.candidate.scores["quality"] == 0]
    assert len(lost) == 3
    question = str(lost[0].question).rstrip("?")
    assert question in report.markdown
    erase_gate_text(url, lost[0].case.digest)
    page = read_report(url, report.report_hash).markdown
    assert question not in page
    assert page.count("*erased*") == 1
    assert str(lost[1].question).rstrip("?") in page
    later = decided()
    assert question not in later.markdown
    assert report_cases(url, later.report_hash)[0].id == "q00"
    assert [c.id for c in report_cases(url, later.report_hash) if c.question is None] == [lost[0].id]


def test_a_digest_that_names_no_text_cannot_be_erased(url: str) -> None:
    with pytest.raises(MissingInput, match="names its texts by 64"):
        erase_gate_text(url, "0" * 64)


def test_a_text_cannot_be_replaced_by_another(
    url: str, promoted: StoredReport, database: FreshDatabase
) -> None:
    digest = report_cases(url, promoted.report_hash)[0].case.digest
    with pytest.raises(psycopg.errors.CheckViolation), psycopg.connect(url) as connection:
        connection.execute("UPDATE gate_texts SET content = '{}' WHERE digest = %s", (digest,))
    with pytest.raises(psycopg.errors.InsufficientPrivilege), psycopg.connect(url) as connection:
        connection.execute("DELETE FROM gate_texts")
    with pytest.raises(psycopg.errors.InsufficientPrivilege), psycopg.connect(url) as connection:
        connection.execute("UPDATE gate_reports SET verdict = 'PASS'")
    for role in ("llmops_serving", "llmops_notary"):
        assert read_gate_texts(database.url(role), [digest])[digest].content is not None
        with (
            pytest.raises(psycopg.errors.InsufficientPrivilege),
            psycopg.connect(database.url(role)) as connection,
        ):
            connection.execute("UPDATE gate_texts SET content = NULL, erased_at = now()")


def tamper(database: FreshDatabase, *statements: str) -> None:
    """Change the database as someone can who owns it."""
    with psycopg.connect(database.admin_url) as connection:
        for statement in statements:
            connection.execute(statement)  # type: ignore[call-overload]


def test_replaying_gives_the_same_report_and_says_so(promoted: StoredReport, gate: Gate) -> None:
    result = gate("replay", promoted.report_hash[:10])
    assert result.exit_code == 0, result.output
    assert f"report {promoted.report_hash}: PASS" in result.output
    assert "✓ quality: pass" in result.output
    assert "80 texts are what their digests say; 0 of 40 cases are erased" in result.output
    assert "decided again, everything is equal" in result.output
    assert "installed code" not in result.output
    found = json.loads(gate("replay", promoted.report_hash, "--json").output)
    assert found["equal"]
    assert found["rules"] == [{"rule": "quality", "differences": []}]


def forge(database: FreshDatabase, report: StoredReport, change: Callable[[dict[str, Any]], None]) -> str:
    """Store a changed copy of a report under its own right hash, as the worker could."""
    content = content_of(report)
    change(content)
    forged = GateReport(content)
    with psycopg.connect(database.url("llmops_worker")) as connection:
        connection.execute(
            "INSERT INTO gate_reports (report_hash, release_id, baseline, verdict, report, markdown) "
            "VALUES (%s, %s, %s, %s, %s, '')",
            (forged.report_hash, report.release_id, report.baseline, content["verdict"], forged.json()),
        )
    return forged.report_hash


def test_a_report_whose_outcome_does_not_follow_is_found(
    configure: Configure,
    decided: Decided,
    database: FreshDatabase,
    gate: Gate,
) -> None:
    configure({"metric": "quality", "minimum": 0.5}, {"metric": "facts_covered", "minimum": 1.1})
    failed = decided()
    assert failed.verdict == "FAIL"

    def whitewash(content: dict[str, Any]) -> None:
        content["verdict"] = "PASS"
        content["outcomes"][1].update(outcome="pass", reason="fine")

    result = gate("replay", forge(database, failed, whitewash))
    assert result.exit_code == 1
    assert "✓ quality: pass" in result.output
    assert "✗ facts_covered: pass\n    outcome: 'pass' → 'fail'" in result.output
    assert "✗ verdict: 'PASS' → 'FAIL'" in result.output
    assert "it is NOT the same" in result.output


def test_other_code_is_said_and_no_fault(promoted: StoredReport, database: FreshDatabase, gate: Gate) -> None:
    other = forge(database, promoted, lambda content: content["context"].update(code_digest="0" * 64))
    result = gate("replay", other)
    assert result.exit_code == 0, result.output
    assert "the installed code is not the code that decided it" in result.output


def test_a_text_that_was_changed_or_taken_away_is_a_named_fault(
    url: str, promoted: StoredReport, database: FreshDatabase, gate: Gate
) -> None:
    first, second, *_ = report_cases(url, promoted.report_hash)
    tamper(
        database,
        "ALTER TABLE gate_texts DROP CONSTRAINT gate_texts_hash",
        f"UPDATE gate_texts SET content = '{{}}' WHERE digest = '{first.case.digest}'",
    )
    changed = gate("replay", promoted.report_hash)
    assert isinstance(changed.exception, IntegrityError)
    assert f"1 of 80 texts of the gate report differ from their digest ({first.case.digest[:12]})" in str(
        changed.exception
    )
    tamper(
        database, f"DELETE FROM gate_texts WHERE digest IN ('{first.case.digest}', '{second.case.digest}')"
    )
    gone = gate("replay", promoted.report_hash)
    assert isinstance(gone.exception, IntegrityError)
    assert "2 of 80 texts of the gate report were never stored" in str(gone.exception)


def test_a_report_is_found_by_the_beginning_of_its_hash(url: str, promoted: StoredReport) -> None:
    assert find_report(url, promoted.report_hash[:8]) == promoted.report_hash
    with pytest.raises(MissingInput, match="no gate report"):
        find_report(url, "x")


def test_the_power_of_the_rules_is_printed(promoted: StoredReport, configure: Configure, gate: Gate) -> None:
    configure({"metric": "quality", "largest_loss": 0.02}, {"metric": "correct_refusal", "minimum": 0.5})
    result = gate("power", "--assistant", "guide")
    assert result.exit_code == 0, result.output
    (line,) = result.output.splitlines()
    assert line.startswith("quality: 40 questions exclude a loss of 0.0")
    assert line.endswith(" needed")
    found = json.loads(gate("power", "--assistant", "guide", "--json").output)
    assert [rule["enough"] for rule in found["rules"]] == [False]


def test_without_a_report_of_production_its_power_is_not_known(configure: Configure, gate: Gate) -> None:
    result = gate("power", "--assistant", "guide")
    assert result.exit_code == 0
    assert "No report of a release of 'guide' in production yet" in result.output


def test_the_self_test_holds_and_turns_red_with_a_worse_candidate(
    fake: Fake,
    configure: Configure,
    decided: Decided,
    gate: Gate,
) -> None:
    fake.queue(*["I know nothing."] * 8)
    configure({"metric": "quality", "largest_loss": 0.3})
    report = decided()
    arguments = ("self-test", "--report", report.report_hash[:12], "--runs", "200")
    held = gate(*arguments)
    assert held.exit_code == 0, held.output
    assert "quality: tolerates 0.3 on 40 questions" in held.output
    assert "at most 20.0% ✓" in held.output
    assert "at most 5.0% ✓" in held.output
    red = gate(*arguments, "--worse")
    assert red.exit_code == 1
    assert "at most 20.0% ✗" in red.output
    found = json.loads(gate(*arguments, "--json").output)
    assert found["holds"]
    assert found["rules"][0]["false_block"]["runs"] == 200
    assert gate(*arguments, "--json").output == gate(*arguments, "--json").output


def test_the_self_test_of_an_assistant_takes_its_report_of_production(
    promoted: StoredReport, gate: Gate
) -> None:
    result = gate("self-test", "--assistant", "guide", "--runs", "100")
    assert f"report {promoted.report_hash[:12]}" in result.output
    assert result.exit_code == 1
    assert "no rule here can tell" in result.output
    missing = gate("self-test", "--assistant", "other", "--runs", "100")
    assert isinstance(missing.exception, MissingInput)
    both = gate("self-test", "--assistant", "guide", "--report", "0")
    assert isinstance(both.exception, ConfigurationError)
