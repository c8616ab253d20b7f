"""docker-compose.yaml without Docker: each service's own command, environment and health check, on loopback."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from llmops.stack import AirflowClient
from support.compose import ROOT, Compose

pytestmark = [pytest.mark.stack, pytest.mark.long, pytest.mark.timeout(900)]

ASSISTANT = "library_guide"
HANDBOOK = """# Harbour handbook

## Mooring

A visiting boat ties up at the north quay. The north quay has room for twelve boats.

## Fees

The harbour master collects twenty crowns for each night.
"""
WEATHER = """# Weather

## Storm warnings

A red flag on the mast means that a storm is expected. Boats stay in the harbour while it flies.

## Fog

The horn sounds every minute while there is fog.
"""


@pytest.fixture(scope="module")
def secrets() -> dict[str, str]:
    """What ``make .env`` would write."""
    command = [sys.executable, str(ROOT / "tools" / "compose_env.py")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(line.split("=", 1) for line in printed.splitlines())


@pytest.fixture(scope="module")
def compose(secrets: dict[str, str]) -> Iterator[Compose]:
    """Every service up and healthy; the default assistant has two small documents instead of its own."""
    if shutil.which("redis-server") is None:
        pytest.skip(
            "there is no redis-server, which hands tasks to the workers: apt-get install redis-server"
        )
    with tempfile.TemporaryDirectory(prefix="llmops-compose-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        (folder / "documents").mkdir()
        (folder / "documents" / "handbook.md").write_text(HANDBOOK)
        (folder / "documents" / "weather.md").write_text(WEATHER)
        started = Compose(folder, ROOT / "docker-compose.yaml", secrets)
        for service in started.services:
            write_assistant(started.home(service), folder / "documents")
        try:
            started.up()
            yield started
        finally:
            started.down()
        assert started.leftovers() == []


def write_assistant(home: Path, documents: Path) -> None:
    """Lay few documents, cases derived from them and a lenient gate over the assistant of the image."""
    (home / "assistants").mkdir(parents=True)
    values = {
        "sources": [{"kind": "directory", "name": "harbour", "path": str(documents)}],
        "evaluation_cases": None,
        "gate": {"underpowered": "allow", "rules": [{"metric": "recall_at_10", "minimum": 0.5, "largest_loss": 0.1}]},
    }  # fmt: skip
    (home / "assistants" / f"{ASSISTANT}.yaml").write_text(yaml.safe_dump(values))


def client(compose: Compose, secrets: dict[str, str], user: str) -> AirflowClient:
    return AirflowClient(compose.address(8080), user, secrets[f"AIRFLOW_PASSWORD_{user.upper()}"])


def finish(
    compose: Compose, airflow: AirflowClient, reviewer: AirflowClient, dag_id: str, run_id: str
) -> None:
    """Wait until a run succeeded; the reviewer approves when asked."""
    asked: list[str] = []

    def look(tasks: list[dict[str, Any]]) -> None:
        compose.check()
        waiting = [
            t["task_id"] for t in tasks if t["state"] == "awaiting_input" and t["task_id"] not in asked
        ]
        for task_id in waiting:
            asked.append(task_id)
            reviewer.answer(dag_id, run_id, task_id, "Approve")

    state = airflow.wait_for_run(dag_id, run_id, timeout_seconds=400, progress=look)
    failed = [t["task_id"] for t in airflow.tasks(dag_id, run_id) if t["state"] == "failed"]
    assert state == "success", "\n".join(airflow.log(dag_id, run_id, task_id)[-3000:] for task_id in failed)


def test_every_service_becomes_healthy_and_every_step_ends(compose: Compose) -> None:
    assert compose.healthy == set(compose.services)
    compose.check()


def test_what_others_call_listens_outside_its_container(compose: Compose) -> None:
    """Here everything is on loopback, so that only the command itself can tell."""
    addresses = " ".join(str(service["environment"]) for service in compose.services.values())
    called = {name for name in compose.services if re.search(rf"(?:@|//){name}:\d", addresses)} - {
        "postgres",
        "redis",
    }
    assert called == {"mlflow", "airflow-apiserver", "serving", "notary"}
    assert [name for name in called if "0.0.0.0" not in compose.services[name]["command"]] == []


def test_the_services_give_a_cited_answer(compose: Compose, secrets: dict[str, str]) -> None:
    admin, author, reviewer = (client(compose, secrets, user) for user in ("admin", "author", "reviewer"))
    for dag_id in ("ingest_documents", "release_assistant"):
        admin.wait_for_dag(dag_id)
        admin.unpause(dag_id)
    run_id = author.trigger("ingest_documents", {"assistant": ASSISTANT})
    finish(compose, author, reviewer, "ingest_documents", run_id)
    assert "merge_chunks" in author.log("ingest_documents", run_id, "merge_chunks")
    run_id = author.trigger("release_assistant", {"assistant": ASSISTANT})
    finish(compose, author, reviewer, "release_assistant", run_id)

    serving = compose.address(8000)
    question = {"role": "user", "content": "What does a red flag on the mast mean?"}
    body = {"model": ASSISTANT, "messages": [question]}
    response = httpx.post(f"{serving}/v1/chat/completions", json=body, timeout=120, trust_env=False)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert "storm" in answer["choices"][0]["message"]["content"]
    assert "weather.md" in [citation["path"] for citation in answer["citations"]]
    assert answer["release"] == httpx.get(f"{serving}/release", timeout=60, trust_env=False).json()["release"]
    compose.check()
    assert [name for name in compose.services if not compose.log(name)] == [], (
        "nothing for `docker compose logs`"
    )
    assert "Executing workload in Celery" in compose.log("airflow-worker", 1000)


def test_what_each_container_can_see_is_what_it_needs(compose: Compose, secrets: dict[str, str]) -> None:
    """Behind the answer above, so that tasks have run: in no environment, log or file is a key too many.

    With Airflow's JWT secret, its Fernet key, the password of its database or one of a user's, a task could answer
    for a reviewer.
    """
    declared = {
        name: set(re.findall(r"\$\{([A-Z_]+)", str(service["environment"])))
        for name, service in compose.services.items()
    }
    users = {name for name in secrets if name.startswith("AIRFLOW_PASSWORD_")}
    for name in ("airflow-init", "airflow-apiserver"):
        declared[name] |= users  # the file that Airflow's login reads
    seen = {name: compose.secrets_seen_by(name) for name in compose.services if name != "postgres"}
    assert seen["airflow-worker"] == {"LLMOPS_PASSWORD_WORKER"}
    assert seen == {name: declared[name] for name in seen}
