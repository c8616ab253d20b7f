"""Exit with 0 when the Celery worker of this container answers: ``python docker/worker_health.py``."""

from __future__ import annotations

import os
import socket
import sys

from celery import Celery
from kombu.exceptions import KombuError

SECONDS = 5.0


def main() -> int:
    """Ask this host's worker once, through the broker; return 0 when it answers, 1 otherwise, and say why."""
    name = f"celery@{socket.gethostname()}"
    app = Celery(broker=os.environ["AIRFLOW__CELERY__BROKER_URL"])
    try:
        answers = app.control.ping(destination=[name], timeout=SECONDS)
    except (OSError, KombuError) as error:
        print(f"the broker cannot be reached: {error}", file=sys.stderr)
        return 1
    if not answers:
        print(f"{name} did not answer within {SECONDS:g} s", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
