"""Evaluate a candidate beside what it would replace, and let the gate decide."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llmops.assistant import load_assistant
from llmops.chain import Answer, Chain
from llmops.database import connect
from llmops.errors import IntegrityError
from llmops.evaluation import (
    KEYWORD_BASELINE,
    Case,
    Check,
    Evaluation,
    GateReport,
    GateRules,
    Observation,
    RetrievedChunk,
    RulePower,
    decide,
    evaluate,
    power_of,
    require_power,
)
from llmops.index import dump, find_generation
from llmops.manifest import Manifest, canonical_json, content_hash
from llmops.prices import Prices, load_prices
from llmops.release._assemble import registry_of, release_cases
from llmops.release._code import code_digest
from llmops.release._gate_texts import production_report, save_gate_texts, with_texts
from llmops.release._index_checks import check_index
from llmops.release._ledger import current_release
from llmops.release._loading import build_chain
from llmops.release._store import StoredReport, read_manifest, save_report
from llmops.settings import Environment

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
Pricing = Callable[[Answer], tuple[float | None, str | None]]


def observe(
    chain: Chain, *, retrieves: bool = True, pricing: Pricing | None = None
) -> Callable[[str], Observation]:
    """Return the callable through which an evaluation asks a chain.

    ``pricing`` returns what an answer cost, or why that is not known; without it nothing has a cost.
    """

    def answer(question: str) -> Observation:
        return _observation(chain.answer(question), retrieves, pricing)

    return answer


def evaluate_release(environment: Environment, release_id: str, progress: Progress | None = None) -> Path:
    """Ask the release and its baseline every case of the release's evaluation set; return the file of results.

    The baseline is the production release, or, before the first one, the same index searched by keywords only.
    The file holds scores and digests; questions and answers go to the database, where they can be erased.
    Raises IntegrityError when the gate's rules or the price table changed since the release was assembled, and
    ConfigurationError, before anything is asked, when a rule tolerates less than the questions can exclude.
    """
    url = environment.database_url.get_secret_value()
    manifest = read_manifest(url, release_id)
    rules, prices = _rules(environment, manifest), _prices(manifest)
    cases = release_cases(environment, manifest)
    for judge in rules.judges:
        judge.ready()
    _check_power(url, manifest, rules, cases)
    with connect(url) as connection:
        production = current_release(connection, manifest.assistant, "production")
    results: dict[str, Any] = {
        "release_id": release_id,
        "production": production,
        "baseline": None,
        "index": _index_state(url, manifest),
        "prices": {"digest": prices.digest, "currency": prices.currency, "as_of": str(prices.as_of)},
    }
    for role, chosen, retrieval in _contenders(url, manifest, production):
        loaded = build_chain(environment, chosen, retrieval)
        try:
            if role[0] == "candidate":
                checks = check_index(environment, manifest, loaded.chain)
                results["checks"] = [check.to_json() for check in checks]
            evaluation = evaluate(
                cases,
                observe(loaded.chain, retrieves=chosen.index is not None, pricing=pricing_of(chosen, prices)),
                label=role[1],
                judges={judge.metric: judge.judge for judge in rules.judges},
                progress=progress,
            )
        finally:
            loaded.chain.close()
            loaded.close()
        save_gate_texts(url, evaluation.texts)
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
    baseline = Evaluation.from_json(stored["baseline"]) if stored["baseline"] else None
    decided = decide(
        _rules(environment, manifest),
        Evaluation.from_json(stored["candidate"]),
        baseline,
        context={
            "release_id": manifest.release_id,
            "code_digest": code_digest(),
            "index": stored["index"],
            "prices": stored["prices"],
        },
        checks=[Check.of(values) for values in stored["checks"]],
    )
    report = StoredReport(
        report_hash=decided.report_hash,
        release_id=manifest.release_id,
        baseline=stored["production"],
        verdict=decided.verdict,
        report=decided.json(),
        markdown=with_texts(url, decided).markdown(),
    )
    save_report(url, report)
    log.info("Gate: %s for release %s", report.verdict, manifest.release_id[:12])
    return report


def power_in_production(
    url: str, assistant: str, rules: GateRules, cases: Sequence[Case] | None = None
) -> tuple[RulePower, ...] | None:
    """Return what ``cases`` can tell beside the release in production, or None when it has no report to say so.

    It goes by the spread of production's own scores; ``cases`` are by default those it was evaluated on.
    """
    stored = production_report(url, assistant)
    if stored is None:
        return None
    report = GateReport.parse(stored.report, stored.report_hash)
    return power_of(rules, report.sides()[0], cases) if report.replayable else None


def pricing_of(manifest: Manifest, prices: Prices) -> Pricing:
    """Return what prices the answers of a release: the tokens of a language model, or nothing without one."""
    generator, retrieves = manifest.generator, manifest.index is not None

    def price(answer: Answer) -> tuple[float | None, str | None]:
        asked_nobody = retrieves and not answer.hits
        if generator["kind"] != "chat" or asked_nobody:
            return 0.0, None
        if answer.usage is None:
            return None, "the endpoint did not say how many tokens it used"
        cost = prices.cost(generator["model"], answer.usage.prompt_tokens, answer.usage.completion_tokens)
        return cost, None if cost is not None else f"prices.yaml has no model {generator['model']!r}"

    return price


def _rules(environment: Environment, manifest: Manifest) -> GateRules:
    """Return the gate's rules as they were when the release was assembled."""
    rules = load_assistant(manifest.assistant, environment).gate
    if content_hash(rules.model_dump(mode="json")) != manifest.gate_digest:
        raise IntegrityError(
            f"the gate's rules of {manifest.assistant!r} changed since release {manifest.release_id[:12]} was "
            "assembled: run release_assistant again"
        )
    return rules


def _prices(manifest: Manifest) -> Prices:
    """Return the price table as it was when the release was assembled."""
    prices = load_prices()
    if prices.digest != manifest.prices_digest:
        raise IntegrityError(
            f"the price table changed since release {manifest.release_id[:12]} of {manifest.assistant!r} was "
            "assembled: run release_assistant again"
        )
    return prices


def _check_power(url: str, manifest: Manifest, rules: GateRules, cases: Sequence[Case]) -> None:
    """Say what each rule can tell, and refuse one that asks for more, before the questions cost anything."""
    powers = power_in_production(url, manifest.assistant, rules, cases)
    if powers is None:
        log.info("Gate: no report of a release in production yet, so the power of its rules is not known")
    else:
        require_power(powers)


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


def _observation(answer: Answer, retrieves: bool, pricing: Pricing | None) -> Observation:
    cost, unpriced = pricing(answer) if pricing else (None, None)
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
        usage=answer.usage,
        cost=cost,
        unpriced=unpriced,
    )


def _metrics(evaluation: dict[str, Any]) -> dict[str, float]:
    return {
        name: value for name, value in Evaluation.from_json(evaluation).means().items() if value is not None
    }
