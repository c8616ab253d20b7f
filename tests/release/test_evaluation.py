"""A release is evaluated and decided, and what its report names lies apart."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import Result

from llmops.errors import ConfigurationError, IntegrityError
from llmops.llm import FakeLanguageModel as Fake
from llmops.release import (
    StoredReport,
    decide_release,
    evaluate_release,
    read_manifest,
    report_cases,
)
from llmops.settings import Environment
from support.evaluations import PRICES, QUESTIONS, content_of

Configure = Callable[..., None]
Decided = Callable[[], StoredReport]
Candidate = Callable[[], str]
Gate = Callable[..., Result]


def test_report_and_results_hold_digests_and_the_texts_lie_apart(
    environment: Environment, url: str, candidate: Candidate
) -> None:
    results = evaluate_release(environment, candidate())
    report = decide_release(environment, results)
    assert report.verdict == "PASS"
    for text in (report.report, results.read_text()):
        assert "canary" not in text
        assert "What is" not in text
    (first, *others) = report_cases(url, report.report_hash)
    assert len(others) == QUESTIONS - 1
    assert (first.id, first.question) == ("q00", "What is number 0?")
    assert first.candidate.text is not None
    assert first.candidate.text.content is not None
    answer = first.candidate.text.content
    assert answer["text"] == "The answer is number 0 of the canary list."
    assert answer["usage"] == {"prompt_tokens": 11, "completion_tokens": 7}
    assert first.candidate.scores["quality"] == 1.0
    assert first.baseline is None


def test_both_answers_of_every_question_are_shown_side_by_side(
    url: str, promoted: StoredReport, configure: Configure, decided: Decided
) -> None:
    configure(prompt="Answer at once.")
    report = decided()
    assert report.baseline == promoted.release_id
    for case in report_cases(url, report.report_hash):
        assert case.baseline is not None
        for side in (case.candidate, case.baseline):
            assert side.text is not None
            assert side.text.content is not None
            assert side.text.content["text"].startswith(f"The answer is number {int(case.id[1:])} ")


def test_answers_cost_what_the_price_table_says(configure: Configure, decided: Decided) -> None:
    configure(
        {"metric": "cost_per_answer", "maximum": 0.01}, {"metric": "cost_per_good_answer", "maximum": 0.01}
    )
    report = decided()
    assert report.verdict == "PASS"
    expected = (11 * 100 + 7 * 300) / 1_000_000
    assert [o["candidate"] for o in content_of(report)["outcomes"]] == pytest.approx([expected] * 2)
    assert content_of(report)["context"]["prices"]["currency"] == "EUR"


def test_an_answer_whose_price_nobody_knows_has_no_cost(
    folder: Path, url: str, configure: Configure, decided: Decided
) -> None:
    (folder / "prices.yaml").write_text(yaml.safe_dump({**PRICES, "models": {}}))
    configure({"metric": "cost_per_answer", "maximum": 1})
    report = decided()
    assert report.verdict == "INCOMPLETE"
    (case, *_) = report_cases(url, report.report_hash)
    assert case.candidate.missing == ("cost",)
    assert "cost" not in case.candidate.scores
    assert case.candidate.text is not None
    assert case.candidate.text.content is not None
    assert case.candidate.text.content["unpriced"] == "prices.yaml has no model 'small'"


def test_prices_and_rules_that_changed_since_the_release_was_assembled_are_refused(
    environment: Environment,
    folder: Path,
    configure: Configure,
    candidate: Candidate,
    fake: Fake,
) -> None:
    release_id = candidate()
    (folder / "prices.yaml").write_text(yaml.safe_dump({**PRICES, "currency": "USD"}))
    with pytest.raises(IntegrityError, match=r"price table changed .*run release_assistant again"):
        evaluate_release(environment, release_id)
    (folder / "prices.yaml").write_text(yaml.safe_dump(PRICES))
    configure({"metric": "quality", "minimum": 0.1})
    with pytest.raises(IntegrityError, match=r"rules of 'guide' changed .*run release_assistant again"):
        evaluate_release(environment, release_id)
    assert not fake.history


def test_a_tolerance_too_small_is_refused_before_any_question_is_asked(
    environment: Environment, promoted: StoredReport, configure: Configure, candidate: Candidate,
    fake: Fake, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    asked = len(fake.history)
    configure({"metric": "quality", "largest_loss": 0.01})
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(ConfigurationError, match="40 questions exclude only a loss of"),
    ):
        evaluate_release(environment, candidate())
    assert len(fake.history) == asked
    assert "gate rule quality: 40 questions exclude a loss of" in caplog.text
    configure({"metric": "quality", "largest_loss": 0.01, "underpowered": "allow"})
    evaluate_release(environment, candidate())
    assert len(fake.history) == asked + 2 * QUESTIONS


def test_judges_score_answers_and_are_named_in_the_report(
    url: str,
    fake: Fake,
    configure: Configure,
    decided: Decided,
    tmp_path: Path,
) -> None:
    key = tmp_path / "key"
    key.write_text("canary-key")
    key.chmod(0o600)
    judge = {
        "kind": "prompt", "name": "exact", "url": fake.url, "model": "strict", "key_file": str(key),
        "prompt": "Is it exact? {question} {answer} {facts}",
    }  # fmt: skip
    configure({"metric": "judge_exact", "minimum": 0.7}, judges=[judge])
    report = decided()
    assert report.verdict == "PASS"
    found = content_of(report)
    assert found["outcomes"][0]["candidate"] == 0.75
    (named,) = found["judges"]
    assert (named["model"], named["metric"], len(named["prompt_hash"])) == ("strict", "judge_exact", 64)
    assert "canary-key" not in report.report
    (case, *_) = report_cases(url, report.report_hash)
    assert case.candidate.text is not None
    assert case.candidate.text.content is not None
    assert case.candidate.text.content["judgements"]["judge_exact"]["reason"] == "It names the number."


def test_a_key_file_that_is_not_there_is_refused_before_any_question_is_asked(
    environment: Environment,
    fake: Fake,
    configure: Configure,
    candidate: Candidate,
) -> None:
    judge = {
        "kind": "prompt", "name": "exact", "url": fake.url, "model": "strict", "key_file": "/nowhere/key",
        "prompt": "{question} {answer}",
    }  # fmt: skip
    configure({"metric": "judge_exact", "minimum": 0.7}, judges=[judge])
    with pytest.raises(ConfigurationError, match="key file"):
        evaluate_release(environment, candidate())
    assert not fake.history


def test_the_manifest_names_the_price_table(url: str, candidate: Candidate, folder: Path) -> None:
    first = read_manifest(url, candidate())
    (folder / "prices.yaml").write_text(yaml.safe_dump({**PRICES, "currency": "USD"}))
    second = read_manifest(url, candidate())
    assert first.prices_digest != second.prices_digest
    assert first.release_id != second.release_id
    assert hashlib.sha256().digest_size * 2 == len(first.prices_digest)
