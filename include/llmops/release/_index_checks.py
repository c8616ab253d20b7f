"""What an index must hold before a release may name it: every source, and documents that everybody can find."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from llmops.chain import Chain, HybridRetrieval
from llmops.evaluation import Check
from llmops.index import indexed_documents
from llmops.lakehouse import LakeTable
from llmops.manifest import Manifest
from llmops.settings import Environment

_COLUMNS = ["document_id", "version", "source", "path", "access"]
_DRAWN = 3
_QUESTION = 300
_NAMED = 3


def check_index(environment: Environment, manifest: Manifest, chain: Chain) -> list[Check]:
    """Return the coverage of every source and which sentinels the release's own retrieval finds.

    Coverage is the share of a source's documents whose present version the index holds. Drawn sentinels are
    three documents of each source that the assistant's callers may see, the same every time, asked for by the
    beginning of one of their own chunks.
    """
    if manifest.index is None:
        return []
    retrieval = HybridRetrieval.model_validate(manifest.retrieval)
    root = environment.table_root(manifest.assistant)
    documents = LakeTable(root, "documents").read(_COLUMNS).to_pylist()
    held = indexed_documents(environment.database_url.get_secret_value(), manifest.index.generation)
    checks = list(_coverage(documents, held, retrieval.minimum_coverage))
    visible = [row for row in documents if _sees(retrieval.access, json.loads(row["access"] or "[]"))]
    drawn = _drawn(visible, held)
    asked = [(s.question, s.document) for s in retrieval.sentinels]
    checks += _sentinels("sentinels", asked, chain)
    checks += _sentinels("drawn sentinels", list(_questions(root, manifest, drawn)), chain)
    return checks


def _coverage(documents: list[dict[str, Any]], held: dict[str, str], minimum: float) -> Iterator[Check]:
    absent: dict[str, list[str]] = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    for row in documents:
        counts[row["source"]] += 1
        if held.get(row["document_id"]) != row["version"]:
            absent[row["source"]].append(row["path"])
    for source, count in sorted(counts.items()):
        missing = sorted(absent[source])
        detail = f"not in the index: {_some(missing)}" if missing else ""
        yield Check(f"coverage of {source}", "coverage", 1 - len(missing) / count, minimum, count, detail)


def _sees(tags: Collection[str], access: Collection[str]) -> bool:
    return not access or bool(set(tags) & set(access))


def _drawn(documents: list[dict[str, Any]], held: dict[str, str]) -> dict[str, str]:
    """Return some documents of every source: id and URI."""
    drawn: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in sorted(documents, key=lambda row: row["document_id"]):
        if row["document_id"] in held and len(drawn[row["source"]]) < _DRAWN:
            drawn[row["source"]].append(row)
    return {row["document_id"]: f"{row['source']}:{row['path']}" for rows in drawn.values() for row in rows}


def _questions(root: str, manifest: Manifest, drawn: dict[str, str]) -> Iterator[tuple[str, str]]:
    assert manifest.index is not None
    chunks = LakeTable(root, "chunks").rows_of("document_id", list(drawn)).to_pylist()
    longest: dict[str, str] = {}
    for row in chunks:
        if row["chunker"] == manifest.index.chunker["digest"]:
            text = row["text"][:_QUESTION]
            key = row["document_id"]
            longest[key] = max(longest.get(key, ""), text, key=lambda text: (len(text), text))
    return ((text, drawn[key]) for key, text in sorted(longest.items()) if text.strip())


def _sentinels(name: str, asked: Iterable[tuple[str, str]], chain: Chain) -> list[Check]:
    asked = list(asked)
    if not asked:
        return []
    lost = [
        document
        for question, document in asked
        if document not in {f"{hit.source}:{hit.path}" for hit in chain.find(question)}
    ]
    detail = f"not found: {_some(lost)}" if lost else ""
    return [Check(name, "sentinels", 1 - len(lost) / len(asked), 1.0, len(asked), detail)]


def _some(paths: list[str]) -> str:
    shown = ", ".join(paths[:_NAMED])
    return shown if len(paths) <= _NAMED else f"{shown} and {len(paths) - _NAMED} more"
