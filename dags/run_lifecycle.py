"""Run the whole life of an assistant in order: ingest, sync, release, fine-tune, release what was learned.

Each step is a DAG of its own, triggered here and waited for without a worker; whoever started this run is the author
of each. Steps whose asset has already started them find nothing left to do.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import chain, dag

from llmops.orchestration.defaults import TASK_DEFAULTS, assistant_param

_ASSISTANT = "{{ params.assistant }}"


def _run(task_id: str, dag_id: str, **conf: Any) -> TriggerDagRunOperator:
    return TriggerDagRunOperator(
        task_id=task_id,
        trigger_dag_id=dag_id,
        conf={"assistant": _ASSISTANT, **conf},
        wait_for_completion=True,
        deferrable=True,
        poke_interval=5,
        fail_when_dag_is_paused=True,
    )


@dag(
    schedule=None,
    params={"assistant": assistant_param()},
    default_args=TASK_DEFAULTS,
    is_paused_upon_creation=False,
    doc_md=__doc__,
    tags=["lifecycle"],
)
def run_lifecycle() -> None:
    chain(
        _run("ingest", "ingest_documents"),
        _run("sync", "sync_index"),
        _run("release_base", "release_assistant"),
        _run("fine_tune", "fine_tune_embedder", announce=False),
        _run("release_fine_tuned", "release_assistant"),
    )


run_lifecycle()
