"""How long each DAG file takes to parse beyond Airflow's own import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.figure import Figure

_LIMIT_SECONDS = 0.3
_DAGS = Path(__file__).resolve().parent.parent / "dags"
_PROBE = """
import json, runpy, sys, time
import airflow.sdk, airflow.providers.standard.operators.hitl, airflow.providers.standard.operators.trigger_dagrun
import airflow.triggers.base
start = time.perf_counter()
runpy.run_path(sys.argv[1])
print(json.dumps(time.perf_counter() - start))
"""


def measure() -> list[Figure]:
    """Parse every DAG file in a process of its own, three times, and return the best of each."""
    figures = []
    for path in sorted(_DAGS.rglob("*.py")):
        seconds = min(_parse(path) for _ in range(3))
        figures.append(Figure(f"parse {path.relative_to(_DAGS)}", seconds, "s", _LIMIT_SECONDS, at_most=True))
    return figures


def _parse(path: Path) -> float:
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "AIRFLOW_HOME": folder, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        output = subprocess.run(
            [sys.executable, "-c", _PROBE, str(path)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    return float(json.loads(output.strip().splitlines()[-1]))
