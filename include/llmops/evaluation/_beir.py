"""Evaluation on any folder in the layout of BEIR: corpus.jsonl, queries.jsonl, qrels/<split>.tsv.

Layout and conventions: Thakur et al., 2021, https://arxiv.org/abs/2104.08663.
"""

from __future__ import annotations

import csv
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from llmops.errors import ConfigurationError, MissingInput
from llmops.evaluation._scorers import DEPTH, mrr, ndcg, recall

__all__ = ["BeirDataset", "BeirDocument", "BeirRow", "evaluate_exact", "evaluate_search", "load_beir"]

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]


class TextEmbedder(Protocol):
    """What the exact search needs of an embedder: unit vectors, shape (texts, dimension)."""

    def embed(self, texts: Sequence[str]) -> Floats:
        """Return one vector of length 1 per text of a document."""
        ...

    def embed_queries(self, texts: Sequence[str]) -> Floats:
        """Return one vector of length 1 per question."""
        ...


@dataclass(frozen=True)
class BeirDocument:
    """One document of the corpus."""

    id: str
    title: str
    text: str


@dataclass(frozen=True)
class BeirDataset:
    """A corpus, and the questions of one split with the gain of every judged document."""

    name: str
    split: str
    documents: tuple[BeirDocument, ...]
    questions: Mapping[str, str]
    judged: Mapping[str, Mapping[str, float]]

    def score(self, rankings: Mapping[str, Sequence[str]]) -> dict[str, float]:
        """Return nDCG@10, recall@10 and MRR@10 over all questions, given document ids per question id.

        As BEIR does it, a document that has the question's own id and was not judged is left out: in
        some datasets a question is itself a document.
        """
        rows = []
        for key, relevant in self.judged.items():
            ranked = [found for found in rankings[key] if found != key or key in relevant]
            rows.append([metric(ranked, relevant, DEPTH) for metric in (ndcg, recall, mrr)])
        means = np.mean(rows, axis=0)
        return dict(zip(("ndcg_at_10", "recall_at_10", "mrr_at_10"), map(float, means), strict=True))


@dataclass(frozen=True)
class BeirRow:
    """The figures of one way to search; documents per second is for preparing the corpus."""

    name: str
    ndcg_at_10: float
    recall_at_10: float
    mrr_at_10: float
    documents_per_second: float
    documents: int
    questions: int

    def as_dict(self) -> dict[str, Any]:
        """Return the row as plain values."""
        return asdict(self)


def load_beir(folder: Path, split: str) -> BeirDataset:
    """Return one split of a folder; questions without a relevant document are left out.

    Raises MissingInput when the folder, a file or the split is not there, and ConfigurationError with file
    and line for what cannot be read.
    """
    qrels = folder / "qrels" / f"{split}.tsv"
    for path in (folder, folder / "corpus.jsonl", folder / "queries.jsonl", folder / "qrels"):
        if not path.exists():
            raise MissingInput(
                f"{path} does not exist: a BEIR folder holds corpus.jsonl, queries.jsonl, qrels/<split>.tsv"
            )
    splits = sorted(path.stem for path in (folder / "qrels").glob("*.tsv"))
    if split not in splits:
        known = ", ".join(splits) or "none"
        raise MissingInput(f"no split {split!r} in {folder / 'qrels'}: there is {known}")
    documents = tuple(
        BeirDocument(str(row["_id"]), str(row.get("title") or ""), str(row.get("text") or ""))
        for row in _rows(folder / "corpus.jsonl")
    )
    questions = {str(row["_id"]): str(row.get("text") or "") for row in _rows(folder / "queries.jsonl")}
    judged = _judgements(qrels, questions, {document.id for document in documents})
    return BeirDataset(folder.name, split, documents, {key: questions[key] for key in judged}, judged)


def evaluate_exact(dataset: BeirDataset, embedder: TextEmbedder, *, top_k: int = 100) -> BeirRow:
    """Return *exact dense, unchunked*: title + " " + text as one vector, cosine against every document.

    The embedder cuts at its own bound (256 tokens for all-MiniLM-L6-v2), as published figures have it.
    """
    started = time.perf_counter()
    vectors = embedder.embed([f"{d.title} {d.text}".strip() for d in dataset.documents])
    seconds = time.perf_counter() - started
    keys = list(dataset.questions)
    ids = [document.id for document in dataset.documents]
    rankings: dict[str, list[str]] = {}
    for start in range(0, len(keys), 256):
        batch = keys[start : start + 256]
        similarity = embedder.embed_queries([dataset.questions[key] for key in batch]) @ vectors.T
        for key, row in zip(batch, similarity, strict=True):
            best = np.argsort(-row, kind="stable")[:top_k]
            rankings[key] = [ids[i] for i in best]
    return _row("exact dense, unchunked", dataset, rankings, seconds)


def evaluate_search(
    name: str, dataset: BeirDataset, search: Callable[[str], Sequence[str]], seconds: float
) -> BeirRow:
    """Return the figures of a search that gives document ids, best first.

    ``seconds`` is how long it took to prepare the corpus for it. An id that comes again (another chunk
    of the same document) does not count twice.
    """
    rankings = {key: list(dict.fromkeys(search(text))) for key, text in dataset.questions.items()}
    return _row(name, dataset, rankings, seconds)


def _row(name: str, dataset: BeirDataset, rankings: Mapping[str, Sequence[str]], seconds: float) -> BeirRow:
    count = len(dataset.documents)
    speed = count / max(seconds, 1e-9)
    scores = dataset.score(rankings)
    row = BeirRow(name, **scores, documents_per_second=speed, documents=count, questions=len(dataset.judged))
    log.info("%s on %s/%s: nDCG@10 %.4f", name, dataset.name, dataset.split, row.ndcg_at_10)
    return row


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ConfigurationError(f"{path}:{number}: not JSON: {error}") from error
            if not isinstance(row, dict) or "_id" not in row:
                raise ConfigurationError(f"{path}:{number}: a row is a JSON object with the key '_id'")
            yield row


def _judgements(path: Path, questions: Mapping[str, str], documents: set[str]) -> dict[str, dict[str, float]]:
    judged: dict[str, dict[str, float]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        next(rows, None)
        for number, row in enumerate(rows, 2):
            try:
                question, document, gain = row[0], row[1], float(row[2])
            except (IndexError, ValueError) as error:
                raise ConfigurationError(
                    f"{path}:{number}: expected query-id, corpus-id, score with tabs between, found {row!r}"
                ) from error
            if question not in questions:
                raise ConfigurationError(f"{path}:{number}: no query {question!r} in queries.jsonl")
            if document not in documents:
                log.warning("%s:%d: no document %r in corpus.jsonl", path, number, document)
            judged.setdefault(question, {})[document] = gain
    kept = {key: gains for key, gains in judged.items() if any(gain > 0 for gain in gains.values())}
    if not kept:
        raise MissingInput(f"{path} judges no document relevant to any question")
    return kept
