"""Evaluate a candidate beside what it would replace, and let the gate decide."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmops.assistant import load_assistant
from llmops.chain import Answer, Chain
from llmops.database import connect
from llmops.errors import IntegrityError
from llmops.evaluation import (
    KEYWORD_BASELINE,
    Evaluation,
    GateReport,
    Observation,
    RetrievedChunk,
    decide,
    evaluate,
)
from llmops.index import dump, find_generation
from llmops.manifest import Manifest, canonical_json, content_hash
from llmops.release._assemble import registry_of, release_cases
from llmops.release._ledger import current_release
from llmops.release._loading import build_chain
from llmops.release._store import StoredReport, read_manifest, save_report
from llmops.settings import Environment

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


def observe(chain: Chain, *, retrieves: bool = True) -> Callable[[str], Observation]:
    """Return the callable through which an evaluation asks a chain."""

    def answer(question: str) -> Observation:
        return _observation(chain.answer(question), retrieves)

    return answer


def evaluate_release(environment: Environment, release_id: str, progress: Progress | None = None) -> Path:
    """Ask the release and its baseline every case of the release's evaluation set; return the file of results.

    The baseline is the production release, or, before the first one, the same index searched by keywords only.
    """
    url = environment.database_url.get_secret_value()
    manifest = read_manifest(url, release_id)
    with connect(url) as connection:
        production = current_release(connection, manifest.assistant, "production")
    cases = release_cases(environment, manifest)
    results: dict[str, Any] = {
        "release_id": release_id,
        "production": production,
        "baseline": None,
        "index": _index_state(url, manifest),
    }
    for role, chosen, retrieval in _contenders(url, manifest, production):
        loaded = build_chain(environment, chosen, retrieval)
        try:
            evaluation = evaluate(
                cases,
                observe(loaded.chain, retrieves=chosen.index is not None),
                label=role[1],
                progress=progress,
            )
        finally:
            loaded.chain.close()
            loaded.close()
        results[role[0]] = evaluation.to_json()
    path = Path(environment.table_root(manifest.assistant)) / "_evaluations" / f"{content_hash(results)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(canonical_json(results), encoding="utf-8")
    registry_of(environment, manifest.assistant).log_run(
        "evaluation", {"release_id": release_id, "cases": len(cases)}, _metrics(results["candidate"]), [path]
    )
    return path


def decide_release(environment: Environment, results: Path) -> StoredReport:
    """Let the gate decide on stored results, store the report and return it."""
    stored = json.loads(results.read_text(encoding="utf-8"))
    url = environment.database_url.get_secret_value()
    manifest = read_manifest(url, stored["release_id"])
    rules = load_assistant(manifest.assistant, environment).gate
    if content_hash(rules.model_dump(mode="json")) != manifest.gate_digest:
        raise IntegrityError(
            f"the gate's rules of {manifest.assistant!r} changed since release {manifest.release_id[:12]} was "
            "assembled: run release_assistant again"
        )
    baseline = Evaluation.from_json(stored["baseline"]) if stored["baseline"] else None
    decided: GateReport = decide(
        rules,
        Evaluation.from_json(stored["candidate"]),
        baseline,
        context={"release_id": manifest.release_id, "index": stored["index"]},
    )
    report = StoredReport(
        report_hash=decided.report_hash,
        release_id=manifest.release_id,
        baseline=stored["production"],
        verdict=decided.verdict,
        report=decided.json(),
        markdown=decided.markdown(),
    )
    save_report(url, report)
    log.info("Gate: %s for release %s", report.verdict, manifest.release_id[:12])
    return report


def _index_state(url: str, manifest: Manifest) -> dict[str, Any] | None:
    """Return what the index held when it was judged: table version, number of chunks and a digest of all rows."""
    if manifest.index is None:
        return None
    generation = find_generation(url, manifest.index.generation)
    rows = hashlib.sha256()
    for line in dump(url, generation.id):
        rows.update(line.encode() + b"\n")
    return {
        "generation": generation.id,
        "chunks_version": generation.watermark,
        "chunks": generation.chunks,
        "rows_digest": rows.hexdigest(),
    }


def _contenders(
    url: str, manifest: Manifest, production: str | None
) -> list[tuple[tuple[str, str], Manifest, dict[str, Any] | None]]:
    contenders: list[tuple[tuple[str, str], Manifest, dict[str, Any] | None]] = [
        (("candidate", "candidate"), manifest, None)
    ]
    if production is not None:
        contenders.append((("baseline", production), read_manifest(url, production), None))
    elif manifest.index is not None:
        keywords = {**manifest.retrieval, "mode": "keyword"}
        contenders.append((("baseline", KEYWORD_BASELINE), manifest, keywords))
    return contenders


def _observation(answer: Answer, retrieves: bool) -> Observation:
    cited = {citation.chunk_id for citation in answer.citations}
    return Observation(
        text=answer.text,
        refused=answer.refused,
        retrieved=tuple(
            RetrievedChunk(hit.chunk_id, hit.source, hit.path, hit.text, hit.chunk_id in cited)
            for hit in answer.hits
        )
        if retrieves
        else None,
        latency_seconds=answer.latency_seconds,
    )


def _metrics(evaluation: dict[str, Any]) -> dict[str, float]:
    return {
        name: value for name, value in Evaluation.from_json(evaluation).means().items() if value is not None
    }
