import dataclasses
import json
from pathlib import Path

import pytest

from llmops.errors import IntegrityError
from llmops.evaluation import (
    KEYWORD_BASELINE,
    Case,
    Evaluation,
    GateReport,
    GateRules,
    case_digest,
    decide,
    digest_text,
)
from llmops.evaluation._cases import case_text
from llmops.evaluation._evaluate import CaseResult
from llmops.evaluation._markdown import escape
from llmops.evaluation._outputs import failure_text
from llmops.manifest import canonical_json

_GOLDEN = Path(__file__).parent / "golden" / "gate_report.md"
_HOSTILE = (
    "<script>alert(1)</script> [click](javascript:alert(1)) ![x](http://evil.example/p.png) | cell | `code` "
    "\x1b[31mred\x1b[0m \u202egnp.exe\u202c\n\n# heading https://evil.example =cmd()"
)


def _evaluation(label, quality, *, synthetic=False, error=False, question="How does thing {n} work?"):
    results, texts = [], {}
    for n, score in enumerate(quality):
        name = ("how-to", "concept", "limits", "unanswerable")[n % 4]
        known = (
            {} if name == "unanswerable" else {"expected_documents": ["guide:one"], "facts": ["It works."]}
        )
        case = Case(id=f"q{n:02}", question=question.format(n=n), slice=name, synthetic=synthetic, **known)
        scores = {"quality": score, "latency_seconds": 0.1 + n / 100, "correct_refusal": 1.0}
        if known:
            scores |= {"recall_at_10": min(1.0, score + 0.2)}
        failed = error and n == 5
        output = (
            failure_text("TimeoutError: <b>late</b>") if failed else canonical_json({"text": label, "n": n})
        )
        texts |= {case_digest(case): case_text(case), digest_text(output): output}
        results.append(
            CaseResult.of(
                case, {} if failed else scores, "TimeoutError" if failed else None, output=digest_text(output)
            )
        )
    return Evaluation(label, tuple(results), texts)


_RULES = GateRules(
    rules=[
        {"metric": "recall_at_10", "minimum": 0.5, "largest_loss": 0.2},
        {"metric": "quality", "slice": "limits", "minimum": 0.9},
        {"metric": "latency_p95_seconds", "maximum": 3},
        {"metric": "groundedness", "minimum": 0.5},
        {"metric": "quality", "largest_loss": 0.0, "baseline": "keyword"},
    ],
    underpowered="allow",
    resamples=1_000,
)
_BEFORE = [0.5, 0.7, 0.4, 1.0] * 4
_AFTER = [0.6, 0.7, 0.4, 1.0] * 3 + [0.1, 0.7, 0.4, 1.0]


def _report(**changes):
    return decide(
        _RULES,
        _evaluation("candidate", _AFTER, **changes),
        _evaluation("production 0123456789ab", _BEFORE, **changes),
        context={"release_id": "f" * 64, "generation": "g1", "chunks_version": 3},
    )


def test_the_page_for_approvers_is_as_it_was_agreed():
    """After an intended change: write ``_report().markdown()`` to the golden file and read the difference."""
    assert _report().markdown() == _GOLDEN.read_text(encoding="utf-8")


def test_the_verdict_comes_first():
    assert _report().markdown().startswith("## FAIL: ")


def test_the_hash_is_that_of_the_text_and_sees_every_change():
    report = _report()
    assert GateReport.parse(report.json(), report.report_hash) == report
    again = GateReport.parse(report.json(), report.report_hash, report.texts)
    assert again.markdown() == report.markdown()
    changed = json.loads(report.json())
    changed["verdict"] = "PASS"
    with pytest.raises(IntegrityError, match="changed after it was made"):
        GateReport.parse(json.dumps(changed), report.report_hash)
    with pytest.raises(IntegrityError, match="cannot be read"):
        GateReport.parse("{", report.report_hash)


def test_the_report_holds_no_text_of_questions_and_answers():
    report = _report(error=True)
    text = report.json()
    assert len(report.texts) == 16 + 2 * 16 - 1
    assert set(report.digests()) == set(report.texts)
    for part in ("How does thing", "It works", "guide:one", "<b>late"):
        assert part not in text
        assert any(part in held for held in report.texts.values())


def test_the_hash_is_the_same_with_and_without_the_texts():
    report = _report()
    bare = GateReport.parse(report.json(), report.report_hash)
    assert bare.report_hash == report.report_hash
    assert bare == report


def test_an_erased_question_is_shown_as_erased_and_the_others_stay():
    report = _report()
    gone = next(r["case"] for r in report.content["results"] if r["id"] == "q04")
    left = {digest: text for digest, text in report.texts.items() if digest != gone}
    page = GateReport.parse(report.json(), report.report_hash, left).markdown()
    assert "How does thing 4 " not in page
    assert "| q04 | *erased* | +0.10 |" in page
    assert page.replace("*erased*", "How does thing 4 work\\?") == report.markdown()


def test_synthetic_questions_are_said_to_be_synthetic():
    assert "16 of 16 questions are synthetic" in _report(synthetic=True).markdown()
    assert _report(synthetic=True).synthetic
    assert "synthetic" not in _report().markdown()


def test_unmeasured_questions_are_named_with_their_error():
    page = _report(error=True).markdown()
    assert "**1 questions were not measured (candidate):**" in page
    assert "TimeoutError" in page
    assert "(1 missing)" in page


def test_the_first_release_is_shown_against_the_keyword_baseline():
    report = decide(_RULES, _evaluation("candidate", _AFTER), _evaluation(KEYWORD_BASELINE, _BEFORE))
    assert "### Keyword baseline → candidate" in report.markdown()
    alone = decide(_RULES, _evaluation("candidate", _AFTER), None)
    assert "there is no baseline" in alone.markdown()


def test_what_questions_and_errors_carry_is_inert_on_the_page():
    page = _report(question=_HOSTILE + " {n}", error=True).markdown()
    for harmful in (
        "<script",
        "<b>",
        "](",
        "\x1b",
        "\u202e",
        "https://",
        "http://",
        "`code`",
        "\n# ",
    ):
        assert harmful not in page
    rows = [line for line in page.splitlines() if line.startswith("|") and "evil" in line]
    assert rows
    assert all(row.replace("\\|", "").count("|") == 4 for row in rows)


def test_a_label_cannot_leave_its_code_span():
    hostile = dataclasses.replace(_evaluation("x", _AFTER), label="a`<img src=x>`b")
    assert "`aimg srcxb`" in decide(_RULES, hostile, None).markdown()


def test_escaping_keeps_one_short_line():
    assert escape("a\nb\tc") == "a b c"
    assert escape("x" * 500) == "x" * 119 + "…"
    assert escape("a & b") == "a &amp; b"
    assert escape("=1+1") == "\\=1\\+1"


def test_the_page_stays_small_however_many_questions_there_are():
    quality, worse = [1.0] * 2_000, [0.0] * 2_000
    report = decide(
        _RULES,
        _evaluation("candidate", worse, question="x" * 900 + "{n}"),
        _evaluation("production", quality, question="x" * 900 + "{n}"),
    )
    assert len(report.markdown()) < 8_000
