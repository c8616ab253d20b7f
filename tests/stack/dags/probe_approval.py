"""Two DAGs for tests of the stack that ask the reviewer; the process of the second is slow to end."""

import atexit
import datetime
import time

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import dag

ASKING = {
    "task_id": "ask",
    "subject": "May this go on?",
    "defaults": "Reject",
    "response_timeout": datetime.timedelta(minutes=10),
    "assigned_users": [{"id": "reviewer", "name": "reviewer"}],
    "retries": 0,
}


class SlowToEnd(ApprovalOperator):
    """Asks, and ends its process seconds later, as on a busy machine; what follows takes longer still."""

    def execute(self, context):
        """Ask."""
        atexit.register(time.sleep, 4)
        return super().execute(context)

    def execute_complete(self, context, event):
        """Go on with the answer."""
        time.sleep(6)
        return super().execute_complete(context, event)


@dag(schedule=None, catchup=False)
def probe_approval():
    ApprovalOperator(**ASKING)


@dag(schedule=None, catchup=False)
def probe_slow_end():
    SlowToEnd(**ASKING)


probe_approval()
probe_slow_end()
