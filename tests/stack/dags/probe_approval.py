"""A DAG for tests of the stack: it asks the reviewer."""

import datetime

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import dag


@dag(schedule=None, catchup=False)
def probe_approval():
    ApprovalOperator(
        task_id="ask",
        subject="May this go on?",
        defaults="Reject",
        response_timeout=datetime.timedelta(minutes=10),
        assigned_users=[{"id": "reviewer", "name": "reviewer"}],
        retries=0,
    )


probe_approval()
