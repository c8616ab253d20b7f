"""The button "Data Docs" of a task: it leads to the pages that its run published."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from airflow.sdk import BaseOperatorLink, XComArg
from airflow.sdk.configuration import conf

from llmops.orchestration.context import run_of
from llmops.quality import docs_folder

__all__ = ["DataDocsLink", "with_data_docs"]


class DataDocsLink(BaseOperatorLink):
    """Leads from a task to the Data Docs of its run, also when the task failed; nowhere where there are none.

    Airflow asks for it in the task's process, when the task has ended, and keeps the answer as an XCom.
    """

    name = "Data Docs"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the path on Airflow's own address, "" when the run published nothing."""
        run = run_of(ti_key.get_template_context())
        folder = docs_folder(run.assistant, run.run_id)
        if not (folder / "index.html").is_file():
            return ""
        prefix = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
        return f"{prefix}/data-docs/{run.assistant}/{folder.name}/index.html"


def with_data_docs(task: XComArg) -> XComArg:
    """Return a TaskFlow task with the button "Data Docs"."""
    task.operator.operator_extra_links = (DataDocsLink(),)
    return task
