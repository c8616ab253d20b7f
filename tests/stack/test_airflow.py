"""Airflow under the supervisor, with DAGs of its own."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from llmops.stack import AirflowClient, AirflowError, Stack
from support.stacks import DAGS, leftovers, process_of, wait_until

pytestmark = pytest.mark.stack

COMPONENTS = ("airflow-scheduler", "airflow-dag-processor", "airflow-triggerer")


@pytest.fixture(scope="module")
def airflow(make_stack: Callable[..., Stack], scratch: Path) -> Iterator[Stack]:
    """A running stack without the services of ours, in a deep folder."""
    stack = make_stack(*COMPONENTS, home=scratch.joinpath(*["a_rather_long_name"] * 8))
    stack.up()
    yield stack
    supervisor = json.loads((stack.home / "run" / "processes.json").read_text())["supervisor"]["pid"]
    psutil.Process(supervisor).kill()
    stack.down()
    assert not leftovers(stack)


@pytest.fixture
def client(airflow: Stack) -> Iterator[AirflowClient]:
    """A client with the administrator's account."""
    with airflow.client() as client:
        yield client


def _works(stack: Stack) -> bool:
    return all(state.state.works for state in stack.status())


def _run_probe(client: AirflowClient) -> str:
    client.wait_for_dag("probe_stack")
    client.unpause("probe_stack")
    run_id = client.trigger("probe_stack")
    assert client.wait_for_run("probe_stack", run_id, timeout_seconds=120) == "success"
    return run_id


def test_a_dag_runs_as_the_worker_role_with_the_loaded_connection(client: AirflowClient) -> None:
    result = client.result("probe_stack", _run_probe(client), "finish")
    assert result == {"role": "llmops_worker", "login": "llmops_worker"}


def test_connections_and_pools_come_from_the_settings_file(airflow: Stack, client: AirflowClient) -> None:
    assert client.request("GET", "/pools/delta_writer")["slots"] == 1
    mlflow = client.request("GET", "/connections/mlflow")
    assert f"{mlflow['host']}:{mlflow['port']}" == airflow.addresses["mlflow"]


def test_users_have_passwords_of_their_own_in_a_private_file(airflow: Stack) -> None:
    file = airflow.home / "airflow" / "passwords.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert set(json.loads(file.read_text())) == {"admin", "author", "reviewer", "service"}
    for user in ("admin", "author", "reviewer", "service"):
        with airflow.client(user) as client:
            client.request("GET", "/dags")
    with pytest.raises(AirflowError, match="refused the sign-in"):
        AirflowClient(airflow.addresses["airflow"], "admin", "admin").request("GET", "/dags")
    assert httpx.get(f"{airflow.addresses['airflow']}/api/v2/dags").status_code == 401


def test_passwords_are_in_no_log(airflow: Stack) -> None:
    secrets = [*json.loads((airflow.home / "secrets.json").read_text()).values()]
    secrets += json.loads((airflow.home / "postgres" / "passwords.json").read_text()).values()
    for file in (airflow.home / "logs").rglob("*.log"):
        text = file.read_text(errors="replace")
        assert not [secret for secret in secrets if secret in text], file


def test_only_the_assigned_person_answers(airflow: Stack, client: AirflowClient) -> None:
    client.wait_for_dag("probe_approval")
    client.unpause("probe_approval")
    run_id = client.trigger("probe_approval")
    wait_until(lambda: client.question("probe_approval", run_id, "ask") is not None)
    with airflow.client("author") as author, pytest.raises(AirflowError, match="403"):
        author.answer("probe_approval", run_id, "ask", "Approve")
    with airflow.client("reviewer") as reviewer:
        reviewer.answer("probe_approval", run_id, "ask", "Approve")
    assert client.wait_for_run("probe_approval", run_id) == "success"
    with airflow.client("service") as service:
        answered = service.question("probe_approval", run_id, "ask")
    assert answered is not None
    assert (answered["responded_by_user"]["name"], answered["chosen_options"]) == ("reviewer", ["Approve"])


def test_an_answer_given_before_the_process_that_asked_has_ended_is_not_lost(
    airflow: Stack, client: AirflowClient
) -> None:
    client.wait_for_dag("probe_slow_end")
    client.unpause("probe_slow_end")
    run_id = client.trigger("probe_slow_end")
    wait_until(lambda: client.question("probe_slow_end", run_id, "ask") is not None)
    with airflow.client("reviewer") as reviewer:
        reviewer.answer("probe_slow_end", run_id, "ask", "Approve")
    assert client.wait_for_run("probe_slow_end", run_id) == "success"


def test_the_process_that_tasks_are_forked_from_has_no_thread_that_could_hold_a_lock(airflow: Stack) -> None:
    scheduler = process_of(airflow, "airflow-scheduler")
    assert {process.num_threads() for process in (scheduler, *scheduler.children())} == {1}


def test_nothing_listens_beyond_loopback(airflow: Stack) -> None:
    ours = {state.leader.pid for state in airflow.status() if state.leader}
    ours |= {child.pid for pid in ours for child in psutil.Process(pid).children(recursive=True)}
    listening = [
        c for c in psutil.net_connections("inet") if c.pid in ours and c.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}


def _airflow(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llmops", "stack", "airflow", *arguments],
        env={**os.environ, "LLMOPS_HOME": str(home)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_command_line_of_airflow_works_on_the_stack(airflow: Stack) -> None:
    done = _airflow(airflow.home, "config", "get-value", "core", "dags_folder")
    assert (done.returncode, done.stdout.strip()) == (0, str(DAGS))
    listed = _airflow(airflow.home, "dags", "list", "--output", "plain")
    assert "probe_stack" in listed.stdout
    assert _airflow(airflow.home, "no-such-command").returncode == 2


def test_a_run_without_an_author_cannot_be_triggered_by_the_command_line(airflow: Stack) -> None:
    done = _airflow(airflow.home, "dags", "trigger", "probe_stack")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "author" in done.stderr


def test_the_command_line_of_airflow_needs_a_running_stack(tmp_path: Path) -> None:
    done = _airflow(tmp_path, "dags", "list")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "llmops stack up" in done.stderr


def test_a_killed_scheduler_is_started_again_and_runs_go_on(airflow: Stack, client: AirflowClient) -> None:
    victim = process_of(airflow, "airflow-scheduler")
    workers = victim.children(recursive=True)
    victim.kill()
    _run_probe(client)
    assert not [worker for worker in workers if worker.is_running()]
    assert _works(airflow)


def test_an_outage_of_postgres_heals_by_itself(airflow: Stack, client: AirflowClient) -> None:
    marker = next(airflow.home.glob("postgres/server/data/PG_VERSION"))
    hidden = marker.rename(marker.with_name("hidden"))
    process_of(airflow, "postgres").kill()
    wait_until(lambda: not _works(airflow))
    time.sleep(6)
    hidden.rename(marker)
    wait_until(lambda: _works(airflow), 120)
    _run_probe(client)
