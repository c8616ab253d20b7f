"""``llmops gate erase`` takes questions and answers away, and nothing of what a report was decided by."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import Result

from llmops.errors import ConfigurationError, MissingInput
from llmops.llm import Failure
from llmops.llm import FakeLanguageModel as Fake
from llmops.release import ApprovalRequest, ReportedCase, StoredReport, read_report, report_cases
from support.services import FreshDatabase

Gate = Callable[..., Result]
Configure = Callable[..., None]
Decided = Callable[[], StoredReport]


@pytest.fixture
def compared(promoted: StoredReport, configure: Configure, decided: Decided) -> StoredReport:
    """The report of a release that was compared with production, over the same questions."""
    configure(prompt="Answer at once.")
    return decided()


def left_of(case: ReportedCase) -> tuple[bool, bool, bool]:
    """Return whether the question, the candidate's answer and the baseline's are there."""
    assert case.baseline is not None
    texts = (case.case, case.candidate.text, case.baseline.text)
    return tuple(text is not None and text.content is not None for text in texts)  # type: ignore[return-value]


def test_a_case_is_erased_with_its_question_and_both_answers_and_is_decided_as_before(
    url: str, compared: StoredReport, promoted: StoredReport, gate: Gate
) -> None:
    result = gate("erase", compared.report_hash[:12], "--case", "q00", "--yes")
    assert result.exit_code == 0, result.output
    for what in ("the question of q00", "the candidate's answer to q00", "the baseline's answer to q00"):
        assert what in result.stdout
    said = f"3 texts erased. 1 of 40 cases of report {compared.report_hash[:12]} are erased; "
    assert f"{said}`llmops gate replay {compared.report_hash[:12]}` still decides it" in result.stdout
    assert result.stderr == "2 reports name a text of these.\n"
    first, second, *_ = report_cases(url, compared.report_hash)
    assert (left_of(first), left_of(second)) == ((False, False, False), (True, True, True))
    assert report_cases(url, promoted.report_hash)[0].question is None
    assert read_report(url, compared.report_hash).report == compared.report
    assert gate("replay", compared.report_hash).exit_code == 0


def test_erasing_again_changes_nothing_and_says_so(url: str, compared: StoredReport, gate: Gate) -> None:
    arguments = ("erase", compared.report_hash, "--case", "q00")
    gate(*arguments, "--yes")
    before = report_cases(url, compared.report_hash)[0].case.erased_at
    again = gate(*arguments)
    assert again.exit_code == 0, again.output
    assert again.stdout.count("erased already") == 3
    assert "0 texts erased. 1 of 40 cases" in again.stdout
    assert report_cases(url, compared.report_hash)[0].case.erased_at == before


def test_one_text_is_erased_by_the_beginning_of_its_digest(
    url: str, compared: StoredReport, gate: Gate
) -> None:
    text = report_cases(url, compared.report_hash)[3].candidate.text
    assert text is not None
    result = gate("erase", compared.report_hash, "--digest", text.digest[:16], "--yes")
    assert result.exit_code == 0, result.output
    assert f"  {text.digest[:12]}  the candidate's answer to q03\n1 text erased." in result.stdout
    assert result.stderr == "1 report names a text of these.\n"
    assert left_of(report_cases(url, compared.report_hash)[3]) == (True, False, True)


def test_nothing_is_erased_before_somebody_says_yes(url: str, compared: StoredReport, gate: Gate) -> None:
    arguments = ("erase", compared.report_hash, "--case", "q00", "--case", "q01")
    refused = gate(*arguments, input="n\n")
    assert refused.exit_code == 1
    assert "Erase 6 texts for good?" in refused.output
    assert all(case.question for case in report_cases(url, compared.report_hash))
    assert gate(*arguments, input="y\n").exit_code == 0
    erased = [case.id for case in report_cases(url, compared.report_hash) if case.question is None]
    assert erased == ["q00", "q01"]


def test_a_text_that_several_cases_have_word_for_word_is_named_with_all_of_them(
    url: str, fake: Fake, promoted: StoredReport, configure: Configure, decided: Decided, gate: Gate
) -> None:
    """An error's message is a text too, and the same for whoever met it."""
    fake.queue(*[Failure(400, "too long")] * 5)
    configure(prompt="Answer at once.")
    report = decided()
    same = [case for case in report_cases(url, report.report_hash) if case.candidate.error]
    assert same[0].candidate.text is not None
    result = gate("erase", report.report_hash, "--digest", same[0].candidate.text.digest, "--yes")
    names = ", ".join(f"the candidate's answer to {case.id}" for case in same[:3])
    assert f"{names} and 2 more\n1 text erased. 5 of 40 cases" in result.stdout


def test_an_approval_that_waits_on_a_page_with_the_question_is_warned_of(
    compared: StoredReport, ask: Callable[..., ApprovalRequest], gate: Gate
) -> None:
    arguments = ("erase", compared.report_hash, "--case")
    assert "waits for an approval" not in gate(*arguments, "q00", "--yes").stderr
    ask(compared.release_id, compared.report_hash)
    warned = gate(*arguments, "q01", "--yes").stderr
    assert f"release {compared.release_id[:12]} waits for an approval" in warned


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--case", "q99"), "has no case 'q99'"),
        (("--case", "q00", "--case", "q99"), "has no case 'q99'"),
        (("--digest", "zz"), "'zz' fits no text"),
        (("--digest", ""), "'' fits several texts"),
    ],
)
def test_what_the_report_does_not_have_is_named_and_nothing_is_erased(
    url: str, promoted: StoredReport, gate: Gate, arguments: tuple[str, ...], message: str
) -> None:
    result = gate("erase", promoted.report_hash, *arguments, "--yes")
    assert isinstance(result.exception, MissingInput)
    assert message in str(result.exception)
    assert all(case.question for case in report_cases(url, promoted.report_hash))


def test_a_report_that_is_not_there_and_a_call_that_names_no_text_are_errors(
    promoted: StoredReport, gate: Gate
) -> None:
    unknown = gate("erase", "zz", "--case", "q00", "--yes")
    assert isinstance(unknown.exception, MissingInput)
    assert "no gate report" in str(unknown.exception)
    nothing = gate("erase", promoted.report_hash, "--yes")
    assert nothing.exit_code == 2
    assert "--case or --digest" in nothing.output


def test_a_role_that_may_only_read_erases_nothing_and_is_told_which_may(
    url: str, promoted: StoredReport, gate: Gate, database: FreshDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPS_DATABASE_URL", database.url("llmops_serving"))
    result = gate("erase", promoted.report_hash, "--case", "q00", "--yes")
    assert isinstance(result.exception, ConfigurationError)
    assert "llmops_worker" in str(result.exception)
    assert report_cases(url, promoted.report_hash)[0].question is not None
