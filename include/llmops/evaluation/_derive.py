"""Cases for a folder of documents that nobody has written questions for yet."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice, zip_longest
from typing import TYPE_CHECKING, Any

from llmops.errors import MissingInput
from llmops.evaluation._cases import Case, Slice
from llmops.evaluation._text import first_sentence, words_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["derive_cases"]

_TEMPLATES: Mapping[Slice, tuple[str, ...]] = {
    "how-to": (
        "I need help with {topic}{place}: what do I have to do?",
        "How should I go about {topic}{place}?",
        "Can you walk me through {topic}{place}?",
    ),
    "concept": (
        "What should I know about {topic}{place}?",
        "Can you explain {topic}{place} to me?",
        "What does “{topic}” mean{place}?",
    ),
    "limits": (
        "What are the limits or pitfalls of {topic}{place}?",
        "What can go wrong with {topic}{place}?",
    ),
}
_HOW_TO = re.compile(
    r"^(how|using|use|install|set(ting)? ?up|creat|configur|add|writ|runn?|build|mak|get(ting)? started|"
    r"tutorial|quick ?start|example|usage|guide|step|\w{3,}ing\b)",
    re.IGNORECASE,
)
_LIMITS = re.compile(
    r"limit|restrict|caveat|warning|known issue|error|exception|troubleshoot|not supported|deprecat|pitfall",
    re.IGNORECASE,
)
_OFF_TOPIC = (
    "How long should I let sourdough bread rise before baking?",
    "Which chess opening suits a beginner who plays black?",
    "What is the best season to prune an apple orchard?",
    "How do I remove red wine stains from a wool carpet?",
    "Who won the marathon at the 1960 Olympics?",
    "How many strings does a baroque lute have?",
    "Which vaccine does a puppy need first?",
    "How do I tune the carburettor of an old motorcycle?",
    "What is the boiling temperature of ethanol on a mountain?",
    "Which paint is suitable for a wooden sailing boat?",
    "How do glaciers carve valleys?",
    "What should I plant next to tomatoes?",
    "Which knitting stitch makes an elastic cuff?",
    "How is parmesan cheese aged?",
    "Which telescope shows the rings of Saturn?",
    "How does a violinist play vibrato?",
    "What is a fair rent for a flat in Lisbon?",
    "Which muscles does rowing train?",
    "How deep do penguins dive?",
    "What did medieval monks eat at breakfast?",
)
_UNANSWERABLE_SHARE = 0.1


def derive_cases(chunks: pa.Table, *, limit: int = 100, seed: int = 0) -> list[Case]:
    """Return up to ``limit`` synthetic cases from the headings and sections of a chunks table.

    The question is a person's phrase around a section's heading, the expected document is the section's, the
    expected fact its first sentence. Sections are taken from as many documents as possible; about one case
    in ten asks what no document speaks about, and must be refused. The same table and seed give the same
    cases. Raises MissingInput when no section has a heading and a sentence.
    """
    chooser = random.Random(seed)
    sections = list(_sections(chunks))
    chooser.shuffle(sections)
    refusals = _unanswerable(chunks, max(1, round(limit * _UNANSWERABLE_SHARE)), chooser)
    derived = (_case(section, chooser) for section in sections)
    distinct = {case.question.casefold(): case for case in derived if case is not None}
    cases = list(islice(_spread(distinct.values()), max(1, limit - len(refusals))))
    if not cases:
        raise MissingInput(
            "no evaluation case can be derived: no section of the documents has a heading and a full "
            "sentence; write cases by hand, one JSON object per line"
        )
    return sorted([*cases, *refusals], key=lambda case: case.id)


def _sections(chunks: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield the first chunk of every section, in a fixed order."""
    columns = ["source", "path", "title", "heading_path", "position", "text"]
    rows = chunks.select(columns).to_pylist()
    seen = set()
    for row in sorted(rows, key=lambda row: (row["source"], row["path"], row["position"])):
        key = (row["source"], row["path"], row["heading_path"])
        if key not in seen:
            seen.add(key)
            yield row


def _spread(cases: Iterable[Case]) -> Iterator[Case]:
    """Yield one case of each document, then a second of each, and so on."""
    by_document: dict[str, list[Case]] = {}
    for case in cases:
        by_document.setdefault(case.expected_documents[0], []).append(case)
    for turn in zip_longest(*by_document.values()):
        yield from (case for case in turn if case is not None)


def _case(section: Mapping[str, Any], chooser: random.Random) -> Case | None:
    headings = [_plain(heading) for heading in json.loads(section["heading_path"] or "[]")]
    headings = [heading for heading in headings if heading] or [_plain(section["title"] or "")]
    fact = first_sentence(section["text"])
    topic = headings[-1]
    if not topic or fact is None or len(fact) > 400 or not words_of(topic).polarity:
        return None
    above = headings[-2] if len(headings) > 1 else _plain(section["title"] or "")
    place = f" in {above}" if above and above.casefold() != topic.casefold() else ""
    name: Slice = "limits" if _LIMITS.search(topic) else "how-to" if _HOW_TO.search(topic) else "concept"
    question = chooser.choice(_TEMPLATES[name]).format(topic=topic, place=place)
    document = f"{section['source']}:{section['path']}"
    return Case(
        id=_id(document, question),
        question=question,
        expected_documents=(document,),
        facts=(fact,),
        slice=name,
        synthetic=True,
    )


def _unanswerable(chunks: pa.Table, count: int, chooser: random.Random) -> list[Case]:
    """Return questions of which more than half of the content words occur nowhere in the documents."""
    known: set[str] = set()
    for text in chunks.column("text").to_pylist():
        known.update(words_of(text).polarity)
    words = {question: words_of(question).polarity.keys() for question in _OFF_TOPIC}
    strange = [question for question, said in words.items() if len(said - known) * 2 > len(said)]
    chosen = chooser.sample(strange, min(count, len(strange)))
    return [Case(id=_id("", q), question=q, slice="unanswerable", synthetic=True) for q in chosen]


def _plain(heading: str) -> str:
    """Return a heading as words in a question: no Markdown, no question mark, at most 100 characters."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return " ".join(re.sub(r"[`*#¶]", "", plain).split()).rstrip("?!.: ")[:100]


def _id(document: str, question: str) -> str:
    return "derived-" + hashlib.sha256(f"{document}\0{question}".encode()).hexdigest()[:12]
