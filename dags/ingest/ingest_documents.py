"""Bring the documents of an assistant's sources into its tables, as they were at the run's date.

Every source is read and its new files are parsed, in a few shards of bounded size; a quality gate judges each
source before anything of it changes (its task has a button, "Data Docs", that leads to what it found), and then
documents and chunks are merged. A source that cannot be read, or that the gate holds back, keeps the documents it
has and fails the last task; the others go on. Running it again, in any order of dates, ends in the same tables: a
snapshot that is older than what a source already delivered changes nothing.
"""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.sdk import CronDataIntervalTimetable, Metadata, dag, task

from llmops.orchestration import ingest
from llmops.orchestration.assets import CHUNKS, DOCUMENTS
from llmops.orchestration.context import run_of
from llmops.orchestration.data_docs import with_data_docs
from llmops.orchestration.defaults import DELTA_WRITER, TASK_DEFAULTS, assistant_param


@dag(
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    catchup=False,
    params={"assistant": assistant_param()},
    default_args=TASK_DEFAULTS,
    doc_md=__doc__,
    tags=["ingest"],
)
def ingest_documents() -> None:
    @task
    def prepare_embedder(**context: Any) -> dict[str, Any]:
        return ingest.prepare_embedder(run_of(context))

    @task
    def plan_shards(**context: Any) -> list[int]:
        return ingest.plan_shards(run_of(context))

    @task
    def parse_documents(shard: int, **context: Any) -> dict[str, Any]:
        return ingest.parse_documents(run_of(context), shard)

    @task
    def check_quality(**context: Any) -> dict[str, Any]:
        return ingest.check_quality(run_of(context))

    @task(pool=DELTA_WRITER, outlets=[DOCUMENTS])
    def merge_documents(**context: Any) -> dict[str, Any]:
        return ingest.merge_documents(run_of(context))

    @task(pool=DELTA_WRITER, outlets=[CHUNKS])
    def merge_chunks(**context: Any) -> Any:
        run = run_of(context)
        counts = ingest.merge_chunks(run)
        yield Metadata(CHUNKS, extra={"assistant": run.assistant})
        return counts

    @task
    def report_sources(**context: Any) -> dict[str, Any]:
        return ingest.report_sources(run_of(context))

    parsed = parse_documents.expand(shard=plan_shards())
    chunked = merge_chunks()
    parsed >> with_data_docs(check_quality()) >> merge_documents() >> chunked >> report_sources()
    prepare_embedder() >> chunked


ingest_documents()
