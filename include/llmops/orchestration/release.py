"""The steps of ``release_assistant`` and ``rollback_release``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from llmops.errors import MissingInput
from llmops.orchestration.context import Run, step

__all__ = [
    "assemble_release",
    "build_index",
    "confirm_release",
    "decide_gate",
    "evaluate_candidate",
    "open_request",
    "promote_release",
    "question_of",
    "roll_back_release",
    "stage_release",
]

ASK_TASK = "ask_reviewer"
_CONFIRM_WAIT = timedelta(seconds=90)


@step("llmops.release", "mlflow")
def assemble_release(run: Run) -> dict[str, Any]:
    """Pin everything the assistant would answer with now; skip the rest when that is in production or waiting."""
    from llmops.assistant import load_assistant
    from llmops.release import assemble, standing

    manifest = assemble(
        run.environment,
        load_assistant(run.assistant, run.environment),
        run.params.get("embedder") or None,
        run.authors,
    )
    if (where := standing(run.environment, manifest)) != "new":
        raise AirflowSkipException(f"release {manifest.release_id[:12]} is {where} already")
    return {"release_id": manifest.release_id}


@step("llmops.release")
def build_index(run: Run, release_id: str) -> dict[str, Any]:
    """Build the index generation that the release names, from cached vectors where there are any."""
    from llmops.index import find_generation
    from llmops.release import ensure_generation, sync_generation

    generation = ensure_generation(run.environment, release_id)
    if generation is None:
        return {"generation": None, "chunks": 0}
    counts = sync_generation(run.environment, generation)
    chunks = find_generation(run.database_url, generation.id).chunks
    if not chunks:
        raise MissingInput(
            f"no chunk of {run.assistant!r} was made by the chunker of release {release_id[:12]}: "
            "run ingest_documents, then release_assistant again"
        )
    return {
        "generation": generation.id,
        "chunks": chunks,
        "embedded": counts.embedded,
        "reused": counts.reused,
    }


@step("llmops.release", "mlflow")
def evaluate_candidate(run: Run, release_id: str) -> dict[str, Any]:
    """Ask candidate and baseline every question of the evaluation set."""
    from llmops.release import evaluate_release

    return {"results": str(evaluate_release(run.environment, release_id))}


@step("llmops.release")
def decide_gate(run: Run, results: str) -> dict[str, Any]:
    """Let the gate decide: PASS goes on, FAIL skips the rest, INCOMPLETE fails the run."""
    from llmops.release import decide_release

    report = decide_release(run.environment, Path(results))
    if report.verdict == "INCOMPLETE":
        raise AirflowFailException(f"gate report {report.report_hash[:12]} is INCOMPLETE:\n{report.markdown}")
    return {"verdict": report.verdict, "report_hash": report.report_hash, "release_id": report.release_id}


@step("llmops.release", "mlflow")
def stage_release(run: Run, decided: Mapping[str, Any]) -> dict[str, Any]:
    """Register the release and move ``staging`` to it; skip it and the rest unless the gate said PASS."""
    from llmops.release import Actor, stage

    if decided["verdict"] != "PASS":
        raise AirflowSkipException(
            f"the gate says {decided['verdict']}: report {decided['report_hash'][:12]}"
        )
    return {
        "version": stage(run.environment, decided["release_id"], decided["report_hash"], Actor(*run.actor))
    }


@step("llmops.release")
def open_request(run: Run, decided: Mapping[str, Any]) -> dict[str, Any]:
    """Write down what the approvers will be asked."""
    from llmops.assistant import load_assistant
    from llmops.release import RunReference, open_approval

    rules = load_assistant(run.assistant, run.environment).approval
    request = open_approval(
        run.environment,
        decided["release_id"],
        decided["report_hash"],
        datetime.now(UTC) + rules.deadline,
        RunReference(run.dag_id, run.run_id, ASK_TASK),
    )
    return {"nonce": str(request.nonce), "deadline": request.deadline.isoformat()}


def question_of(run: Run) -> tuple[str, str, list[str]]:
    """Return subject, body and approvers of the request that this run opened."""
    from llmops.assistant import load_assistant
    from llmops.release import RunReference, read_manifest, read_report, request_of_run, request_text

    url = run.database_url
    request = request_of_run(url, RunReference(run.dag_id, run.run_id, ASK_TASK))
    subject, body = request_text(
        request, read_manifest(url, request.release_id), read_report(url, request.report_hash)
    )
    return subject, body, list(load_assistant(run.assistant, run.environment).approval.approvers)


@step("llmops.release", "mlflow")
def promote_release(run: Run) -> dict[str, Any]:
    """Move ``production`` to the approved release."""
    from llmops.release import Actor, RunReference, promote, request_of_run

    request = request_of_run(run.database_url, RunReference(run.dag_id, run.run_id, ASK_TASK))
    replaced = promote(run.environment, request, Actor(*run.actor))
    return {"release_id": request.release_id, "replaced": replaced}


@step("llmops.release")
def confirm_release(run: Run, release_id: str) -> dict[str, Any]:
    """Wait until every replica answers with the release, else take the move back; keep the ledger's signed heads."""
    from llmops.release import confirm, keep_in_delta

    replicas = confirm(run.environment, release_id, _CONFIRM_WAIT)
    return {"release_id": release_id, "replicas": replicas, "heads": keep_in_delta(run.environment)}


@step("llmops.release", "mlflow")
def roll_back_release(run: Run) -> dict[str, Any]:
    """Move ``production`` back to an earlier production release."""
    from llmops.release import Actor, roll_back

    actor = Actor(run.user or "", run.actor[1])
    to = run.params.get("to") or None
    return {"release_id": roll_back(run.environment, run.assistant, to, actor, run.params["reason"])}
