from __future__ import annotations

import pytest

from llmops.chain import (
    MAX_QUESTION,
    REFUSAL,
    Answer,
    Chain,
    ExtractiveGenerator,
    HybridRetrieval,
    NoRetrieval,
)
from llmops.errors import ConfigurationError, InvalidRequest
from support.hash_embedder import HashEmbedder
from support.passages import CLAY, GLAZE, KILN, PROMPT, Shelf, extractive_chain, hit

QUESTION = "How do I open the damper before I light the burner of the kiln?"


def test_an_answer_quotes_sentences_and_cites_each() -> None:
    answer = extractive_chain(threshold=0.4).answer(QUESTION)
    assert not answer.refused
    assert "Open the lower damper before you light the burner. [1]" in answer.text
    (citation,) = answer.citations
    assert (citation.number, citation.chunk_id) == (1, KILN.chunk_id)
    assert citation.document_version == KILN.document_version
    assert citation.heading_path == ("Kiln", "Starting the kiln")
    assert answer.hits[0].chunk_id == KILN.chunk_id
    assert 0.4 <= (answer.confidence or 0) <= 1
    assert answer.latency_seconds >= answer.retrieval_seconds > 0


def test_every_sentence_is_word_for_word_in_the_chunk_it_cites() -> None:
    chain = extractive_chain(threshold=0.0, max_sentences=4)
    for question in (QUESTION, "How much does clay shrink when fired?", "What is a glaze made of?"):
        answer = chain.answer(question)
        texts = {number: hit.text for number, hit in enumerate(answer.hits, 1)}
        for citation in answer.citations:
            quotes = [part for part in answer.text.split(f"[{citation.number}]")[:-1]]
            for quote in quotes:
                sentence = quote.rsplit("] ", 1)[-1].strip().strip("`").removeprefix("python").strip()
                assert sentence.rstrip(".") in texts[citation.number]


def test_code_is_quoted_whole_for_a_question_that_asks_how() -> None:
    answer = extractive_chain(threshold=0.3, max_sentences=4).answer(
        "How do I warm the chamber for 45 minutes?"
    )
    assert "```python\nkiln = Kiln()\nkiln.warm(80, minutes=45)\n```\n[1]" in answer.text


def test_a_signature_above_the_quoted_sentence_says_what_to_call() -> None:
    drain = hit(
        "pool", "```python\ndrain() -> None\n```\n\nRemove all the connections from the pool.", "Pool.drain"
    )
    asked = "How do I remove all connections from the pool?"
    answer = extractive_chain(Shelf([drain, CLAY]), threshold=0.3).answer(asked)
    assert answer.text.startswith(
        "Remove all the connections from the pool. [1]\n\n```python\ndrain() -> None\n```\n[1]"
    )


def test_a_sentence_that_only_leads_to_something_is_not_quoted() -> None:
    lists = hit(
        "kiln", "You open the damper before you light the burner of the kiln in these ways:\n\n- By hand."
    )
    assert "ways" not in extractive_chain(Shelf([lists]), threshold=0.0).answer(QUESTION).text


def test_a_chunk_of_code_only_can_answer() -> None:
    only = hit("kiln", "```python\nkiln.open_damper()\nkiln.light_burner()\n```")
    answer = extractive_chain(Shelf([only]), threshold=0.0).answer(QUESTION)
    assert answer.text == "```python\nkiln.open_damper()\nkiln.light_burner()\n```\n[1]"


@pytest.mark.parametrize(
    "code", ["    minutes: int = 45,\n) -> None", "def warm(\n    degrees: int,", "kiln.log(['lit')]"]
)
def test_code_that_was_cut_is_not_quoted(code: str) -> None:
    cut = hit("kiln", f"```python\n{code}\n```\n\nOpen the damper of the kiln before you light the burner.")
    answer = extractive_chain(Shelf([cut, CLAY]), threshold=0.3).answer(QUESTION)
    assert answer.text.startswith("Open the damper of the kiln before you light the burner. [1]")
    assert "```" not in answer.text
    only = hit("kiln", f"```python\n{code}\n```")
    assert extractive_chain(Shelf([only]), threshold=0.0).answer(QUESTION).refused


def test_nothing_quotable_in_the_chunks_is_refused() -> None:
    assert (
        extractive_chain(Shelf([hit("kiln", "# Kiln\n\n| a |\n|---|")]), threshold=0.0)
        .answer(QUESTION)
        .refused
    )


def test_code_is_not_quoted_for_a_question_about_a_fact() -> None:
    answer = extractive_chain(threshold=0.3).answer("At which temperature is the chamber warmed?")
    assert "```" not in answer.text


def test_what_the_documents_do_not_say_is_refused() -> None:
    answer = extractive_chain().answer("Who won the football world cup in Brazil?")
    assert (answer.text, answer.refused, answer.citations) == (REFUSAL, True, ())
    assert answer.confidence is not None
    assert answer.confidence < 0.5
    assert answer.hits


def test_nothing_found_is_refused() -> None:
    answer = extractive_chain(Shelf([])).answer(QUESTION)
    assert (answer.text, answer.refused, answer.hits) == (REFUSAL, True, ())


def test_the_threshold_decides() -> None:
    confidence = extractive_chain(threshold=0.0).answer(QUESTION).confidence
    assert confidence is not None
    assert not extractive_chain(threshold=confidence).answer(QUESTION).refused
    assert extractive_chain(threshold=min(1.0, confidence + 0.001)).answer(QUESTION).refused


def test_a_sentence_that_two_chunks_share_is_quoted_once() -> None:
    copy = hit("copy", KILN.text, "Kiln", "Starting the kiln")
    answer = extractive_chain(Shelf([KILN, copy]), threshold=0.3, max_sentences=4).answer(QUESTION)
    assert answer.text.count("Open the lower damper") == 1


def test_a_sentence_in_nearly_the_same_words_is_quoted_once() -> None:
    near = hit("near", "Open the lower damper, before you light the burner!", "Kiln", "Starting the kiln")
    answer = extractive_chain(Shelf([KILN, near]), threshold=0.3, max_sentences=4).answer(QUESTION)
    assert answer.text.count("Open the lower damper") == 1


def test_the_most_sentences_is_a_limit() -> None:
    assert len(extractive_chain(threshold=0.0, max_sentences=1).answer(QUESTION).citations) == 1


def test_streaming_gives_the_same_answer_sentence_by_sentence() -> None:
    chain = extractive_chain(threshold=0.0, max_sentences=4)
    question = "How do I warm the chamber for 45 minutes?"
    *pieces, last = chain.stream(question)
    assert isinstance(last, Answer)
    assert "".join(p for p in pieces if isinstance(p, str)) == last.text == chain.answer(question).text
    assert len(pieces) > 1


def test_few_sentences_are_embedded_in_few_calls() -> None:
    calls: list[int] = []
    embedder = HashEmbedder(64, before=lambda texts: calls.append(len(texts)))
    long = hit("long", " ".join(f"Sentence number {n} says something about kilns." for n in range(200)))
    shelf = Shelf([long, KILN, GLAZE, CLAY], HashEmbedder(64))
    chain = Chain(
        ExtractiveGenerator(),
        HybridRetrieval(),
        PROMPT,
        embedder=embedder,
        searcher=shelf,  # type: ignore[arg-type]
    )
    chain.answer(QUESTION)
    assert calls[0] == 1
    assert len(calls) == 3
    assert sum(calls[1:]) <= 40


def test_at_most_top_k_chunks_are_used() -> None:
    shelf = Shelf()
    chain = Chain(
        ExtractiveGenerator(),
        HybridRetrieval(top_k=2),
        PROMPT,
        embedder=shelf.embedder,
        searcher=shelf,  # type: ignore[arg-type]
    )
    assert len(chain.answer(QUESTION).hits) == 2


@pytest.mark.parametrize("question", ["", " \n", "x" * (MAX_QUESTION + 1)], ids=["empty", "blank", "long"])
def test_a_question_out_of_bounds_is_refused_before_anything_is_searched(question: str) -> None:
    shelf = Shelf()
    with pytest.raises(InvalidRequest):
        extractive_chain(shelf).answer(question)
    with pytest.raises(InvalidRequest):
        list(extractive_chain(shelf).stream(question))
    assert shelf.questions == []


def test_quoting_without_retrieval_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="retrieval"):
        Chain(ExtractiveGenerator(), NoRetrieval(), PROMPT, embedder=None, searcher=None)


def test_retrieval_without_an_index_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="index"):
        Chain(ExtractiveGenerator(), HybridRetrieval(), PROMPT, embedder=None, searcher=None)
