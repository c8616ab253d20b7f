"""Bring every live or building index generation to the newest chunks: the safety net of the index follower.

The follower does this within seconds while it runs. This DAG does whatever the follower has not done yet, when
chunks change and once an hour; where there is nothing to do it embeds nothing and writes nothing.
"""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, Param, dag, task

from llmops.orchestration import ingest
from llmops.orchestration.assets import CHUNKS, INDEX
from llmops.orchestration.context import run_of
from llmops.orchestration.defaults import TASK_DEFAULTS, assistant_param


@dag(
    schedule=AssetOrTimeSchedule(timetable=CronTriggerTimetable("@hourly", timezone="UTC"), assets=[CHUNKS]),
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    catchup=False,
    params={
        "assistant": assistant_param(),
        "all_assistants": Param(
            True,
            type="boolean",
            title="All assistants",
            description="Sync the generations of every assistant, not only of the one above.",
        ),
    },
    default_args=TASK_DEFAULTS,
    is_paused_upon_creation=False,
    doc_md=__doc__,
    tags=["ingest"],
)
def sync_index() -> None:
    @task(outlets=[INDEX])
    def sync_generations(**context: Any) -> dict[str, Any]:
        return ingest.sync_generations(run_of(context))

    sync_generations()


sync_index()
