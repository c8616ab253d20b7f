"""The one number that people read as "how good are the answers" must tell good from bad."""

from pathlib import Path

import pytest

from llmops.evaluation import SLICES, load_cases, score_answer
from support.answers import mechanical, scenarios

_SCENARIOS = scenarios()
_GUIDE = Path(__file__).parents[2] / "include" / "assistants" / "library_guide.cases.jsonl"


def test_every_slice_has_ten_known_bad_answers_that_differ():
    for name in SLICES:
        bad = _SCENARIOS[name].bad
        assert len({(o.text, o.refused, o.retrieved) for o in bad.values()}) == len(bad) >= 10


@pytest.mark.parametrize(("name", "kind"), [(s, kind) for s in SLICES for kind in _SCENARIOS[s].bad])
def test_known_bad_answer_scores_below_0_3(name, kind):
    scenario = _SCENARIOS[name]
    assert score_answer(scenario.case, scenario.bad[kind])["quality"] < 0.3


@pytest.mark.parametrize(("name", "kind"), [(s, kind) for s in SLICES for kind in _SCENARIOS[s].good])
def test_good_answer_scores_above_0_7(name, kind):
    scenario = _SCENARIOS[name]
    assert score_answer(scenario.case, scenario.good[kind])["quality"] > 0.7


@pytest.mark.parametrize("name", SLICES)
def test_bad_and_good_answers_to_the_real_questions_are_told_apart(name):
    cases = load_cases(_GUIDE)
    answerable = [case for case in cases if case.facts]
    chosen = [case for case in cases if case.slice == name and (case.facts or case.unanswerable)]
    assert len(chosen) >= 10
    wrong = []
    for case in chosen:
        expected = set(case.expected_documents)
        other = next(c for c in reversed(answerable) if not expected & set(c.expected_documents))
        good, bad = mechanical(case, other)
        if score_answer(case, good)["quality"] <= 0.7:
            wrong.append((case.id, "good"))
        wrong += [(case.id, kind) for kind, o in bad.items() if score_answer(case, o)["quality"] >= 0.3]
    assert wrong == []
