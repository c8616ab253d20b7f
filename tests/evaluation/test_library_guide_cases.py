"""The evaluation set of the default assistant, checked against the documents it is about."""

import re
from collections import Counter
from datetime import UTC, datetime
from itertools import combinations, pairwise

import psycopg
import pytest

from llmops.corpus import PackagesSource
from llmops.evaluation import SLICES, Observation, RetrievedChunk, load_cases, score_answer
from llmops.settings import include_root, read_yaml

_FOLDER = include_root() / "assistants"
_CASES = load_cases(_FOLDER / "library_guide.cases.jsonl")
_ANSWERABLE = [case for case in _CASES if not case.unanswerable]
_EXPECTED = {document for case in _ANSWERABLE for document in case.expected_documents}

_LEAST = {"how-to": 55, "concept": 55, "limits": 55, "unanswerable": 50}
_ABOUT = (
    "psycopg.",
    "psycopg_pool.",
    "pgvector/",
    "deltalake.",
    "airflow.sdk.",
    "airflow.providers.standard.",
    "airflow.providers.databricks.",
)
_FUNCTION_TEXT = """
    a an the of to in on for and or is are be it its this that with as by from at if i my do does how what can
"""
_FUNCTION_WORDS = frozenset(_FUNCTION_TEXT.split())


@pytest.fixture(scope="module")
def documents() -> dict[str, str]:
    """The default corpus as it is configured: the text of every document by ``source:path``."""
    sources = read_yaml(_FOLDER / "library_guide.yaml")["sources"]
    packages = [PackagesSource.model_validate(source) for source in sources if source["kind"] == "packages"]
    return {
        f"{source.name}:{file.path}": file.read().decode()
        for source in packages
        for file in source.discover(datetime(2026, 1, 1, tzinfo=UTC))
    }


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.casefold())


def _content(text: str) -> frozenset[str]:
    return frozenset(_words(text)) - _FUNCTION_WORDS


def _sentences(text: str) -> list[frozenset[str]]:
    blocks = re.split(r"\n\s*\n|\n(?=\s*[-*|] )", text)
    found = [s for block in blocks for s in re.split(r"(?<=[.!?:;])\s+", " ".join(block.split()))]
    return [_content(sentence) for sentence in found if sentence]


def _held(fact: str, sentences: list[frozenset[str]]) -> float:
    """Return the largest share of a fact's content words in one sentence or in two adjacent ones."""
    wanted = _content(fact)
    windows = [*sentences, *(first | second for first, second in pairwise(sentences))]
    return max(len(wanted & window) for window in windows) / len(wanted)


def test_every_slice_has_enough_questions_and_none_is_derived():
    counts = Counter(case.slice for case in _CASES)
    assert all(counts[name] >= _LEAST[name] for name in SLICES)
    assert len(_CASES) >= 220
    assert not any(case.synthetic for case in _CASES)


def test_ids_count_up_within_their_slice():
    numbers = Counter[str]()
    for case in _CASES:
        numbers[case.slice] += 1
        assert case.id == f"{case.slice}-{numbers[case.slice]:03d}"


def test_no_two_questions_ask_nearly_the_same():
    asked = [(case.id, _content(case.question)) for case in _CASES]
    close = [
        (first, second) for (first, a), (second, b) in combinations(asked, 2) if len(a & b) / len(a | b) > 0.5
    ]
    assert close == []


def test_answerable_questions_have_one_to_three_facts():
    assert all(1 <= len(case.facts) <= 3 for case in _ANSWERABLE)


def test_questions_spread_over_all_packages_and_many_documents():
    paths = [document.removeprefix("libraries:") for document in _EXPECTED]
    assert len(paths) >= 90
    assert [name for name in _ABOUT if not any(path.startswith(name) for path in paths)] == []


def test_every_expected_document_exists(documents):
    assert sorted(_EXPECTED - documents.keys()) == []


def test_every_fact_is_close_to_a_sentence_of_an_expected_document(documents):
    sentences = {document: _sentences(documents[document]) for document in _EXPECTED}
    missing = [
        (case.id, fact)
        for case in _ANSWERABLE
        for fact in case.facts
        if max(_held(fact, sentences[document]) for document in case.expected_documents) < 0.8
    ]
    assert missing == []


def test_quoting_the_expected_documents_covers_every_fact(documents):
    short = []
    for case in _ANSWERABLE:
        chunks = tuple(
            RetrievedChunk(document, *document.split(":", 1), documents[document], cited=True)
            for document in case.expected_documents
        )
        answer = Observation("\n\n".join(c.text for c in chunks), False, chunks, 0.0)
        if score_answer(case, answer)["facts_covered"] < 1:
            short.append(case.id)
    assert short == []


def test_no_question_repeats_a_heading_of_the_documents(documents):
    headings = {
        heading
        for document in _EXPECTED
        for line in re.findall(r"(?m)^#{1,6} (.+)$", re.sub(r"(?s)```.*?```", "", documents[document]))
        if len(heading := " ".join(_words(line))) > 0 and " " in heading
    }
    asked = {case.id: f" {' '.join(_words(case.question))} " for case in _CASES}
    assert [(id, h) for id, text in asked.items() for h in headings if f" {h} " in text] == []


def test_few_questions_name_a_class_or_a_function():
    name = re.compile(r"\b[A-Z]?[a-z]+[A-Z][A-Za-z]*(?<!COPY)\b|\b\w+_\w+\b|\w\(\)")
    ordinary = ("BigQuery", "SQLAlchemy", "NameError")
    naming = [c for c in _ANSWERABLE if set(name.findall(c.question)) - set(ordinary)]
    assert len(naming) <= 0.3 * len(_ANSWERABLE)


def test_plain_keyword_search_finds_some_expected_documents_but_not_all(documents, postgres):
    sections = [
        (document, section)
        for document, text in documents.items()
        for section in re.split(r"\n(?=#{1,6} )", text)
    ]
    with psycopg.connect(postgres.admin_url) as connection:
        connection.execute(
            "CREATE TEMP TABLE section (document text, body text, "
            "words tsvector GENERATED ALWAYS AS (to_tsvector('english', body)) STORED)"
        )
        with connection.cursor().copy("COPY section (document, body) FROM STDIN") as copy:
            for row in sections:
                copy.write_row(row)
        recalls = [_keyword_recall(connection, case) for case in _ANSWERABLE]
    recall = sum(recalls) / len(recalls)
    print(f"keyword recall@10 over sections: {recall:.3f}")
    assert 0.5 <= recall < 0.75


def _keyword_recall(connection, case) -> float:
    rows = connection.execute(
        "SELECT document FROM section, "
        "CAST(replace(CAST(plainto_tsquery('english', %s) AS text), '&', '|') AS tsquery) AS query "
        "WHERE words @@ query ORDER BY ts_rank_cd(words, query) DESC, document LIMIT 10",
        (case.question,),
    ).fetchall()
    return len({row[0] for row in rows} & set(case.expected_documents)) / len(case.expected_documents)
