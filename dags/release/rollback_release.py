"""Put an earlier production release back, whole: code, prompt, generator, embedder and index together.

Only a release that was in production before can come back, and the ledger records who asked and why. It is not
retried: a person looks at what happened and starts it again.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param, dag, task

from llmops.orchestration import release
from llmops.orchestration.assets import PRODUCTION
from llmops.orchestration.context import run_of
from llmops.orchestration.defaults import TASK_DEFAULTS, assistant_param


@dag(
    schedule=None,
    params={
        "assistant": assistant_param(),
        "to": Param(
            None,
            type=["null", "string"],
            title="Release",
            description="Release id or its beginning; empty takes the release that the present one replaced.",
        ),
        "reason": Param(
            type="string", minLength=3, title="Reason", description="Why; it goes into the ledger."
        ),
    },
    default_args=TASK_DEFAULTS,
    is_paused_upon_creation=False,
    doc_md=__doc__,
    tags=["release"],
)
def rollback_release() -> None:
    @task(outlets=[PRODUCTION], retries=0, retry_policy=None)
    def roll_back(**context: Any) -> dict[str, Any]:
        return release.roll_back_release(run_of(context))

    @task
    def confirm(rolled_back: dict[str, Any], **context: Any) -> dict[str, Any]:
        return release.confirm_release(run_of(context), rolled_back["release_id"])

    confirm(roll_back())


rollback_release()
