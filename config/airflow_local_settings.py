"""Read by every process of Airflow at its start.

The local executor's workers are forked from the scheduler, and tasks from the workers: what the scheduler
has imported by then, no task has to import again. Only modules that may be forked belong here: none that
starts threads when imported (so not deltalake), none that few tasks need. mlflow brings pyarrow, whose allocator
would start one: the stack turns that off by ``JE_ARROW_MALLOC_CONF``.
"""

from __future__ import annotations

import importlib
import sys

__all__: list[str] = []

_USED_BY_TASKS = (
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.dag_processing.bundles.manager",
    "airflow.providers.standard.operators.hitl",
    "airflow.providers.standard.operators.python",
    "mlflow",
    "mlflow.tracking.client",
)

if sys.argv[1:2] == ["scheduler"]:
    for _name in _USED_BY_TASKS:
        importlib.import_module(_name)
