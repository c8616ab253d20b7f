"""Fine-tune the embedder on pairs from the corpus itself: heading and summary line against section body.

Documents that the evaluation set uses are left out, so that the gate judges what was learned, not what was
remembered. The result is registered with its lineage and announced, which starts a release of it.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Metadata, Param, dag, task
from airflow.sdk.exceptions import AirflowSkipException

from llmops.orchestration import train
from llmops.orchestration.assets import EMBEDDER
from llmops.orchestration.context import run_of
from llmops.orchestration.defaults import TASK_DEFAULTS, assistant_param


@dag(
    schedule=None,
    params={
        "assistant": assistant_param(),
        "base": Param(
            None,
            type=["null", "string"],
            title="Base",
            description="Registered embedder to start from, like models:/dev.library_guide.embedder/1; "
            "empty takes the assistant's base embedder.",
        ),
        "announce": Param(
            True, type="boolean", title="Announce", description="Start a release of it when done."
        ),
    },
    default_args=TASK_DEFAULTS,
    is_paused_upon_creation=False,
    max_active_runs=1,
    doc_md=__doc__,
    tags=["train"],
)
def fine_tune_embedder() -> None:
    @task
    def build_training_set(**context: Any) -> dict[str, Any]:
        return train.build_training_set(run_of(context))

    @task
    def train_embedder(training_set: dict[str, Any], **context: Any) -> dict[str, Any]:
        return train.train_embedder(run_of(context), training_set)

    @task
    def register_embedder(
        training_set: dict[str, Any], trained: dict[str, Any], **context: Any
    ) -> dict[str, Any]:
        return train.register_embedder(run_of(context), training_set, trained)

    @task(outlets=[EMBEDDER])
    def announce(registered: dict[str, Any], **context: Any) -> Any:
        if not context["params"]["announce"]:
            raise AirflowSkipException("not announced, as asked")
        run = run_of(context)
        yield Metadata(EMBEDDER, extra={"assistant": run.assistant, "author": run.actor, **registered})

    pairs = build_training_set()
    announce(register_embedder(pairs, train_embedder(pairs)))


fine_tune_embedder()
