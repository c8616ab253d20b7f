import json
import math

import numpy as np
import pytest

from llmops.errors import ConfigurationError, MissingInput
from llmops.evaluation import evaluate_exact, evaluate_search, load_beir

_CORPUS = {"d1": ("Red", "apple"), "d2": ("", "green pear"), "d3": ("Blue", "plum"), "d4": ("", "grey stone")}
_VECTORS = {
    "Red apple": [1.0, 0.0],
    "green pear": [0.8, 0.6],
    "Blue plum": [0.6, 0.8],
    "grey stone": [0.0, 1.0],
    "something red": [1.0, 0.0],
    "a stone": [0.0, 1.0],
}
_QUESTIONS = {"something red", "a stone"}


class _Embedder:
    """Tells documents and questions apart: either given as the other is an error."""

    def embed(self, texts):
        return np.array([_VECTORS[text] for text in texts if text not in _QUESTIONS], np.float32)

    def embed_queries(self, texts):
        return np.array([_VECTORS[text] for text in texts if text in _QUESTIONS], np.float32)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "fruit"
    (root / "qrels").mkdir(parents=True)
    corpus = [json.dumps({"_id": i, "title": t, "text": x}) for i, (t, x) in _CORPUS.items()]
    (root / "corpus.jsonl").write_text("\n".join(corpus) + "\n")
    queries = [
        {"_id": "q1", "text": "something red"},
        {"_id": "q2", "text": "a stone"},
        {"_id": "q3", "text": "?"},
    ]
    (root / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (root / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td3\t2\nq2\td2\t1\nq3\td1\t0\n"
    )
    return root


def test_exact_dense_figures_agree_with_a_hand_computed_example(folder):
    row = evaluate_exact(load_beir(folder, "test"), _Embedder())
    first = (1 / math.log2(2) + 2 / math.log2(4)) / (2 / math.log2(2) + 1 / math.log2(3))
    second = 1 / math.log2(4)
    assert row.ndcg_at_10 == pytest.approx((first + second) / 2)
    assert row.recall_at_10 == 1
    assert row.mrr_at_10 == pytest.approx((1 + 1 / 3) / 2)
    assert (row.documents, row.questions) == (4, 2)
    assert row.documents_per_second > 0


def test_a_search_is_scored_on_distinct_documents(folder):
    found = {"something red": ["d2", "d2", "d2", "d1"], "a stone": []}
    row = evaluate_search("mine", load_beir(folder, "test"), found.__getitem__, seconds=2)
    assert row.mrr_at_10 == pytest.approx((1 / 2 + 0) / 2)
    assert row.recall_at_10 == pytest.approx((1 / 2 + 0) / 2)
    assert row.documents_per_second == 2


def test_a_question_that_is_itself_a_document_does_not_find_itself(folder):
    dataset = load_beir(folder, "test")
    renamed = type(dataset)("x", "test", dataset.documents, {"d4": "a stone"}, {"d4": {"d3": 1.0}})
    assert evaluate_exact(renamed, _Embedder()).mrr_at_10 == 1


@pytest.mark.parametrize(
    ("remove", "split", "says"),
    [
        (None, "validation", "there is test"),
        (None, "../test", "no split"),
        ("corpus.jsonl", "test", "corpus.jsonl does not exist"),
        ("queries.jsonl", "test", "queries.jsonl does not exist"),
    ],
)
def test_what_is_not_there_is_named(folder, remove, split, says):
    if remove:
        (folder / remove).unlink()
    with pytest.raises(MissingInput, match=says):
        load_beir(folder, split)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MissingInput, match="absent does not exist"):
        load_beir(tmp_path / "absent", "test")


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("corpus.jsonl", '{"_id": "d1"}\n{oops', r"corpus\.jsonl:2"),
        ("corpus.jsonl", '{"id": "d1"}', "_id"),
        ("qrels/test.tsv", "h\nq1 d1 1\n", r"test\.tsv:2"),
        ("qrels/test.tsv", "h\nq9\td1\t1\n", "no query 'q9'"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(folder, file, text, says):
    (folder / file).write_text(text)
    with pytest.raises(ConfigurationError, match=says):
        load_beir(folder, "test")


def test_a_split_without_relevant_documents_is_refused(folder):
    (folder / "qrels" / "test.tsv").write_text("h\nq1\td1\t0\n")
    with pytest.raises(MissingInput, match="judges no document"):
        load_beir(folder, "test")
