"""Keep tables and index small: once a week, without anybody noticing.

Index generations that no release can come back to are retired, and dropped a run later. Chunks that no generation is
made of are deleted, small files are merged into large ones, and files that nobody reads any more go: never one that
an index has yet to read.
"""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.sdk import CronTriggerTimetable, Param, dag, task

from llmops.orchestration import maintain
from llmops.orchestration.context import run_of
from llmops.orchestration.defaults import DELTA_WRITER, TASK_DEFAULTS, assistant_param


@dag(
    schedule=CronTriggerTimetable("@weekly", timezone="UTC"),
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    catchup=False,
    params={
        "assistant": assistant_param(),
        "all_assistants": Param(
            True,
            type="boolean",
            title="All assistants",
            description="Look after every assistant, not only the one above.",
        ),
    },
    default_args=TASK_DEFAULTS,
    doc_md=__doc__,
    tags=["maintain"],
)
def compact_tables() -> None:
    @task
    def retire_generations(**context: Any) -> dict[str, Any]:
        return maintain.retire_generations(run_of(context))

    @task(task_id="compact_tables", pool=DELTA_WRITER)
    def compact(**context: Any) -> dict[str, Any]:
        return maintain.compact_tables(run_of(context))

    retire_generations() >> compact()


compact_tables()
