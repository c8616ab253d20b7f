"""Take what an assistant would answer with now to production: assemble, index, evaluate, gate, ask, promote.

One manifest pins code, prompt, generator, embedder and index together. The gate compares it with production on
the evaluation set; on a PASS its approvers are asked, and the notary records their answer. `promote` moves the
alias only on that record, of exactly this manifest. A verdict of FAIL ends the run without harm; INCOMPLETE
fails it, because something could not be measured.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import dag, task

from llmops.orchestration import release
from llmops.orchestration.approval import ApprovalSensor, ReleaseApproval
from llmops.orchestration.assets import EMBEDDER, PRODUCTION
from llmops.orchestration.context import run_of
from llmops.orchestration.defaults import TASK_DEFAULTS, assistant_param, embedder_param


@dag(
    schedule=[EMBEDDER],
    params={
        "assistant": assistant_param(),
        "embedder": embedder_param(),
    },
    default_args=TASK_DEFAULTS,
    is_paused_upon_creation=False,
    max_active_runs=8,
    doc_md=__doc__,
    tags=["release"],
)
def release_assistant() -> None:
    @task(multiple_outputs=True)
    def assemble(**context: Any) -> dict[str, Any]:
        return release.assemble_release(run_of(context))

    @task
    def build_index(release_id: str, **context: Any) -> dict[str, Any]:
        return release.build_index(run_of(context), release_id)

    @task(multiple_outputs=True)
    def evaluate(release_id: str, **context: Any) -> dict[str, Any]:
        return release.evaluate_candidate(run_of(context), release_id)

    @task
    def gate(results: str, **context: Any) -> dict[str, Any]:
        return release.decide_gate(run_of(context), results)

    @task
    def stage(decided: dict[str, Any], **context: Any) -> dict[str, Any]:
        return release.stage_release(run_of(context), decided)

    @task(multiple_outputs=True)
    def open_approval(decided: dict[str, Any], **context: Any) -> dict[str, Any]:
        return release.open_request(run_of(context), decided)

    @task(outlets=[PRODUCTION])
    def promote(**context: Any) -> dict[str, Any]:
        return release.promote_release(run_of(context))

    @task
    def confirm(promoted: dict[str, Any], **context: Any) -> dict[str, Any]:
        return release.confirm_release(run_of(context), promoted["release_id"])

    release_id = assemble()["release_id"]
    evaluated = evaluate(release_id)
    decided = gate(evaluated["results"])
    request = open_approval(decided)
    asked = ReleaseApproval(task_id=release.ASK_TASK, deadline=request["deadline"])
    signed = ApprovalSensor(task_id="await_approval", nonce=request["nonce"], deadline=request["deadline"])
    build_index(release_id) >> evaluated
    stage(decided) >> request >> [asked, signed] >> (promoted := promote())
    confirm(promoted)


release_assistant()
