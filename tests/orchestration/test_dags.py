"""Every DAG file parses to the DAG it is named after, imports nothing heavy, and keeps its shape."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DAGS = Path(__file__).resolve().parents[2] / "dags"
FILES = sorted(DAGS.rglob("*.py"))
EXPECTED = {
    "compact_tables",
    "fine_tune_embedder",
    "ingest_documents",
    "release_assistant",
    "rollback_release",
    "run_lifecycle",
    "sync_index",
}
HEAVY = ("torch", "transformers", "sentence_transformers", "mlflow", "pandas", "great_expectations")
_PROBE = """
import json, pathlib, runpy, sys
dags = {}
for path in sys.argv[1:]:
    dag = runpy.run_path(path)[pathlib.Path(path).stem]()
    dags[dag.dag_id] = dag
print(json.dumps({
    "dags": {
        name: {
            "doc": bool(dag.doc_md),
            "tasks": {t.task_id: sorted(t.downstream_task_ids) for t in dag.tasks},
            "kinds": {t.task_id: t.task_type for t in dag.tasks},
            "retries": {t.task_id: t.retries for t in dag.tasks},
            "policies": {t.task_id: t.retry_policy is not None for t in dag.tasks},
            "trigger_rules": {t.task_id: t.trigger_rule.value for t in dag.tasks},
            "params": sorted(dag.params),
        }
        for name, dag in dags.items()
    },
    "heavy": [name for name in HEAVY if name in sys.modules],
}))
"""


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> dict:
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": str(DAGS.parent / "include"),
    }
    result = subprocess.run(
        [sys.executable, "-c", f"HEAVY = {HEAVY!r}\n{_PROBE}", *map(str, FILES)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.strip().splitlines()[-1])


def test_the_dags_are_exactly_the_documented_ones(parsed: dict) -> None:
    assert set(parsed["dags"]) == EXPECTED
    assert {path.stem for path in FILES} == EXPECTED


def test_no_dag_file_imports_a_heavy_library(parsed: dict) -> None:
    assert parsed["heavy"] == []


def test_every_dag_explains_itself_and_fits_on_a_page(parsed: dict) -> None:
    assert all(dag["doc"] for dag in parsed["dags"].values())
    assert {path.stem: n for path in FILES if (n := len(path.read_text().splitlines())) > 80} == {}


def test_the_assistant_is_a_parameter_of_every_dag(parsed: dict) -> None:
    assert {name for name, dag in parsed["dags"].items() if "assistant" not in dag["params"]} == set()


def test_the_release_waits_for_a_person_and_for_the_notary_before_it_promotes(parsed: dict) -> None:
    assert parsed["dags"]["release_assistant"]["tasks"] == {
        "assemble": ["build_index", "evaluate"],
        "build_index": ["evaluate"],
        "evaluate": ["gate"],
        "gate": ["open_approval", "stage"],
        "stage": ["open_approval"],
        "open_approval": ["ask_reviewer", "await_approval"],
        "ask_reviewer": ["promote"],
        "await_approval": ["promote"],
        "promote": ["confirm"],
        "confirm": [],
    }


def test_nothing_behind_an_approval_has_a_permissive_trigger_rule(parsed: dict) -> None:
    rules = parsed["dags"]["release_assistant"]["trigger_rules"]
    assert set(rules.values()) == {"all_success"}


def test_what_a_person_decided_is_done_once_and_everything_else_is_retried(parsed: dict) -> None:
    once = {"release_assistant.ask_reviewer", "rollback_release.roll_back"}
    for name, dag in parsed["dags"].items():
        for task, retries in dag["retries"].items():
            decided = f"{name}.{task}" in once
            assert (retries == 0) if decided else (retries >= 2), f"{name}.{task} has {retries} retries"
            assert not (decided and dag["policies"][task]), f"{name}.{task} has a retry policy"
