import math

import pytest

from llmops.evaluation import Case, Observation, RetrievedChunk, score_answer
from llmops.evaluation._scorers import mrr, ndcg, recall
from support.answers import chunk, said, scenarios

_FACT = "The pool opens its connections in the background."
_CASE = Case(
    id="a",
    question="What does the pool do?",
    expected_documents=("guide:pool", "guide:more"),
    facts=(_FACT,),
    slice="concept",
)
_REFUSE = Case(id="b", question="What is the weather?", slice="unanswerable")


def test_ranking_metrics_agree_with_a_hand_computed_example():
    ranked, relevant = ["x", "a", "y", "b"], {"a": 2.0, "b": 1.0, "c": 1.0, "d": 0.0}
    assert recall(ranked, relevant) == pytest.approx(2 / 3)
    assert mrr(ranked, relevant) == pytest.approx(1 / 2)
    gained = 2 / math.log2(3) + 1 / math.log2(5)
    ideal = 2 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)
    assert ndcg(ranked, relevant) == pytest.approx(gained / ideal)


def test_ranking_metrics_look_at_the_first_ten_only():
    ranked, relevant = [str(n) for n in range(11)], {"10": 1.0}
    assert (recall(ranked, relevant), mrr(ranked, relevant), ndcg(ranked, relevant)) == (0, 0, 0)
    assert recall(ranked, relevant, 11) == 1


def test_retrieval_counts_each_document_once():
    chunks = [RetrievedChunk(str(n), "guide", "other", "x") for n in range(9)]
    chunks += [RetrievedChunk("p", "guide", "pool", "x"), RetrievedChunk("m", "guide", "more", "x")]
    scores = score_answer(_CASE, Observation("", False, tuple(chunks), 0.1))
    assert scores["recall_at_10"] == 1
    assert scores["mrr_at_10"] == pytest.approx(1 / 2)


def test_a_refusal_of_an_answerable_question_is_wrong_and_has_no_grounding():
    scores = score_answer(_CASE, said("I do not know.", refused=True))
    assert (scores["correct_refusal"], scores["quality"], scores["facts_covered"]) == (0, 0, 0)
    assert not {"groundedness", "citation_validity"} & scores.keys()


def test_an_unanswerable_question_has_refusal_and_quality_but_no_retrieval_scores():
    scores = score_answer(_REFUSE, said("I do not know.", chunk("pool", "x"), refused=True))
    assert scores == {"correct_refusal": 1.0, "latency_seconds": 0.1, "quality": 1.0, "good": 1.0}
    assert score_answer(_REFUSE, said(f"{_FACT} [1]", chunk("pool", _FACT)))["quality"] == 0


def test_groundedness_and_citations_are_shares_of_sentences():
    text = f"{_FACT} [1] It also sings at night in Latin. [1] Nobody has named a source for this."
    scores = score_answer(_CASE, said(text, chunk("pool", _FACT)))
    assert scores["groundedness"] == pytest.approx(1 / 3)
    assert scores["citation_validity"] == pytest.approx(2 / 3)
    assert scores["quality"] == pytest.approx(1 / 3)


def test_a_sentence_is_held_against_the_chunk_that_it_cites():
    chunks = (chunk("weather", "Clouds form when moist air cools."), chunk("pool", _FACT))
    assert score_answer(_CASE, said(f"{_FACT} [2]", *chunks))["groundedness"] == 1
    assert score_answer(_CASE, said(f"{_FACT} [1]", *chunks))["groundedness"] == 0
    swapped = said(f"{_FACT} [1] Clouds form when moist air cools. [2]", *chunks)
    assert score_answer(_CASE, swapped)["groundedness"] == 0


def test_a_citation_number_other_than_the_place_is_honoured():
    cited = RetrievedChunk("p", "guide", "pool", _FACT, cited=True, number=7)
    other = RetrievedChunk("w", "guide", "weather", "Clouds form when moist air cools.")
    assert score_answer(_CASE, Observation(f"{_FACT} [7]", False, (other, cited), 0.1))["quality"] == 1
    assert score_answer(_CASE, Observation(f"{_FACT} [2]", False, (other, cited), 0.1))["quality"] == 0


def test_a_fact_may_spread_over_two_adjacent_sentences():
    fact = "The burner needs gas and the damper needs air."
    case = _CASE.model_copy(update={"facts": (fact,)})
    split = said("The burner needs gas. [1] And the damper needs air. [1]", chunk("pool", fact))
    assert score_answer(case, split)["facts_covered"] == 1


def test_half_the_facts_are_half_the_score():
    case = _CASE.model_copy(update={"facts": (_FACT, "Moist air makes clouds when it cools.")})
    assert score_answer(case, said(f"{_FACT} [1]", chunk("pool", _FACT)))["quality"] == 0.5


def test_without_facts_citing_an_expected_document_counts():
    case = _CASE.model_copy(update={"facts": ()})
    scores = score_answer(case, said(f"{_FACT} [1]", chunk("pool", _FACT)))
    assert scores["quality"] == 1
    assert "facts_covered" not in scores
    assert score_answer(case, said(f"{_FACT} [1]", chunk("elsewhere", _FACT)))["quality"] == 0


def test_an_assistant_without_retrieval_is_judged_on_facts_alone():
    scores = score_answer(_CASE, Observation(_FACT, False, None, 0.1))
    assert scores == {
        "correct_refusal": 1.0,
        "latency_seconds": 0.1,
        "facts_covered": 1.0,
        "quality": 1.0,
        "good": 1.0,
    }
    without_facts = _CASE.model_copy(update={"facts": ()})
    assert "quality" not in score_answer(without_facts, Observation(_FACT, False, None, 0.1))


def test_every_score_lies_between_0_and_1():
    for scenario in scenarios().values():
        for observation in (*scenario.good.values(), *scenario.bad.values()):
            assert all(0 <= score <= 1 for score in score_answer(scenario.case, observation).values())
