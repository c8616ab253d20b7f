"""In every DAG, nothing reaches production past a person's answer and the notary's record of it."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from llmops.errors import NotApproved
from llmops.orchestration.context import Run
from llmops.release import ApprovalRequest, production_release
from llmops.settings import Environment
from support.configured import configured

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "dags").rglob("*.py"))
ASKING = ("HITLOperator", "HITLBranchOperator", "HITLEntryOperator", "ApprovalOperator")
_PROBE = """
import json, pathlib, runpy, sys
def told(task):
    return {
        "kinds": [kind.__name__ for kind in type(task).__mro__],
        "upstream": sorted(task.get_flat_relative_ids(upstream=True)),
        "direct": sorted(task.upstream_task_ids),
        "rule": task.trigger_rule.value,
        "params": sorted(task.params),
        "retries": task.retries,
        "policy": task.retry_policy is not None,
        "asks": {name: getattr(task, name, None) for name in (
            "options", "defaults", "assigned_users", "multiple", "fail_on_reject",
            "ignore_downstream_trigger_rules",
        )},
        "limit": str(task.execution_timeout),
    }
bag = {}
for path in sys.argv[1:]:
    dag = runpy.run_path(path)[pathlib.Path(path).stem]()
    bag[dag.dag_id] = {"params": sorted(dag.params), "tasks": {t.task_id: told(t) for t in dag.tasks}}
print(json.dumps(bag))
"""

Told = dict[str, Any]


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Told]:
    """Every DAG, parsed by a process of its own, as plain values."""
    variables = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")),
        "PYTHONPATH": str(ROOT / "include"),
    }
    command = [sys.executable, "-c", _PROBE, *map(str, FILES)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Told] = json.loads(done.stdout.strip().splitlines()[-1])
    assert set(found) == {file.stem for file in FILES}
    return found


def asking(bag: dict[str, Told]) -> dict[str, Told]:
    """Return every task that asks a person, by DAG and task."""
    return {
        f"{dag_id}.{task_id}": task
        for dag_id, dag in bag.items()
        for task_id, task in dag["tasks"].items()
        if set(ASKING) & set(task["kinds"])
    }


def test_releases_are_approved_by_one_operator_and_nothing_else_asks_a_person(bag: dict[str, Told]) -> None:
    found = asking(bag)
    assert list(found) == ["release_assistant.ask_reviewer"]
    assert found["release_assistant.ask_reviewer"]["kinds"][0] == "ReleaseApproval"


def test_an_approval_that_nobody_answers_is_a_rejection_and_is_asked_once(bag: dict[str, Told]) -> None:
    for name, task in asking(bag).items():
        assert task["asks"] == {
            "options": ["Approve", "Reject"], "defaults": ["Reject"], "assigned_users": None, "multiple": False,
            "fail_on_reject": False, "ignore_downstream_trigger_rules": False,
        }, name  # fmt: skip
        assert (task["retries"], task["policy"], task["limit"]) == (0, False, "None"), name


def test_everything_behind_an_approval_runs_only_when_all_before_it_succeeded(bag: dict[str, Told]) -> None:
    behind = 0
    for name in asking(bag):
        dag_id, asked = name.split(".")
        for task_id, task in bag[dag_id]["tasks"].items():
            if asked in task["upstream"]:
                behind += 1
                assert task["rule"] == "all_success", f"{dag_id}.{task_id}"
    assert behind == 2  # promote, confirm


def test_what_promotes_waits_for_the_person_and_for_the_notary(bag: dict[str, Told]) -> None:
    tasks = bag["release_assistant"]["tasks"]
    kinds = {tasks[task_id]["kinds"][0] for task_id in tasks["promote"]["direct"]}
    assert kinds == {"ReleaseApproval", "ApprovalSensor"}


def test_the_step_that_promotes_is_called_by_one_task_alone() -> None:
    callers = [
        f"{file.stem}.{function.name}"
        for file in FILES
        for function in ast.walk(ast.parse(file.read_text()))
        if isinstance(function, ast.FunctionDef) and function.name != file.stem
        and any(isinstance(n, ast.Attribute) and n.attr == "promote_release" for n in ast.walk(function))
    ]  # fmt: skip
    assert callers == ["release_assistant.promote"]


def test_no_parameter_is_called_like_an_approval(bag: dict[str, Told]) -> None:
    names = {
        name
        for dag in bag.values()
        for params in (dag["params"], *(task["params"] for task in dag["tasks"].values()))
        for name in params
    }
    assert {"assistant", "reason"} < names
    assert {
        name for name in names if any(w in name.lower() for w in ("approv", "force", "skip", "bypass"))
    } == set()


def test_no_dag_and_no_step_reads_a_variable_of_airflow_or_of_the_process() -> None:
    files = [*FILES, *(ROOT / "include" / "llmops" / "orchestration").glob("*.py")]
    assert len(files) > len(FILES)
    forbidden = {"Variable", "environ", "getenv", "Connection"}
    read = {
        f"{file.stem}: {name}"
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        for name in _names(node)
        if name in forbidden
    }
    assert read == set()


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        return [node.attr]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime], tuple[Told, timedelta | None]]:
    """Let the operator ask; return what Airflow is told of the question, and how long it waits for an answer."""
    from airflow.providers.standard.operators import hitl

    from llmops.orchestration import approval

    monkeypatch.setattr(approval, "run_of", lambda context: None)
    monkeypatch.setattr(approval, "question_of", lambda run: ("Subject", "Body", ["rita", "sam"]))
    sent: Told = {}
    monkeypatch.setattr(hitl, "upsert_hitl_detail", lambda **values: sent.update(values))

    def ask(deadline: datetime) -> tuple[Told, timedelta | None]:
        operator = approval.ReleaseApproval(task_id="ask_reviewer", deadline=deadline.isoformat())
        instance = type("Instance", (), {"id": "1"})()
        with pytest.raises(BaseException) as waiting:  # noqa: PT011  Airflow's signals that a task waits differ
            operator.execute({"task_instance": instance})  # type: ignore[arg-type,typeddict-item]
        assert type(waiting.value).__name__ in ("TaskAwaitingInput", "TaskDeferred")
        return sent, operator.response_timeout

    return ask


def test_the_question_goes_to_the_assistants_approvers_until_its_deadline(asked: Any) -> None:
    sent, waits = asked(datetime.now(UTC) + timedelta(hours=3))
    assert sent["assigned_users"] == [{"id": "rita", "name": "rita"}, {"id": "sam", "name": "sam"}]
    assert (sent["subject"], sent["body"], sent["defaults"]) == ("Subject", "Body", ["Reject"])
    assert timedelta(hours=2, minutes=59) < waits <= timedelta(hours=3)


def test_a_question_whose_deadline_has_passed_does_not_wait_for_ever(asked: Any) -> None:
    _, waits = asked(datetime.now(UTC) - timedelta(hours=3))
    assert waits == timedelta(seconds=1)


@pytest.fixture
def request_(
    release: Callable[..., str], report: Callable[..., str], ask: Callable[..., ApprovalRequest]
) -> ApprovalRequest:
    """An open approval request of a release that passed its gate."""
    release_id = release()
    return ask(release_id, report(release_id))


def test_what_a_run_or_the_process_says_about_an_approval_promotes_nothing(
    environment: Environment, request_: ApprovalRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmops.orchestration.release import promote_release

    said = {
        "approved": True,
        "approve": "reviewer",
        "approval": {"decision": "approved"},
        "chosen_options": ["Approve"],
    }
    for name in ("APPROVED", "LLMOPS_APPROVED", "AIRFLOW_VAR_APPROVED", "LLMOPS_SKIP_APPROVAL"):
        monkeypatch.setenv(name, "true")
    run = Run(
        "guide", environment, request_.dag_id, request_.run_id, datetime.now(UTC), ("author",), "author", said
    )
    with pytest.raises(NotApproved, match="notary"):
        promote_release(run)
    assert production_release(environment, "guide") is None


def test_the_sensor_believes_the_notarys_record_and_no_event(
    environment: Environment, request_: ApprovalRequest, record: Callable[..., None], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from llmops.orchestration.approval import ApprovalSensor

    configured(environment, tmp_path, monkeypatch)
    nonce = str(request_.nonce)
    sensor = ApprovalSensor(task_id="await_approval", nonce=nonce, deadline=request_.deadline.isoformat())
    with pytest.raises(RuntimeError, match="the notary recorded nothing"):
        sensor.execute_complete({}, {"decision": "approved"})  # type: ignore[typeddict-item]
    record(request_)
    assert sensor.execute_complete({}, {"decision": "rejected"}) == {  # type: ignore[typeddict-item]
        "approver": "reviewer", "channel": "airflow", "nonce": nonce,
    }  # fmt: skip


def test_the_sensor_skips_what_follows_a_recorded_rejection(
    environment: Environment, request_: ApprovalRequest, record: Callable[..., None], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from airflow.sdk.exceptions import AirflowSkipException

    from llmops.orchestration.approval import ApprovalSensor

    configured(environment, tmp_path, monkeypatch)
    record(request_, "rejected")
    deadline = request_.deadline.isoformat()
    sensor = ApprovalSensor(task_id="await_approval", nonce=str(request_.nonce), deadline=deadline)
    with pytest.raises(AirflowSkipException, match="Not approved: reviewer rejected"):
        sensor.execute({})  # type: ignore[typeddict-item]
