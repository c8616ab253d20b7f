"""Starting, watching and stopping processes, with Postgres and MLflow only."""

from __future__ import annotations

import json
import socket
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from llmops.errors import ConfigurationError, StackError
from llmops.release import code_digest
from llmops.stack import Stack
from support.stacks import leftovers, process_of, wait_until

MakeStack = Callable[..., Stack]


def _works(stack: Stack) -> bool:
    states = stack.status()
    return bool(states) and all(state.state.works for state in states)


def test_two_stacks_run_at_once_and_one_stops_without_the_other(make_stack: MakeStack) -> None:
    wish = {"mlflow": 15000}
    one, two = make_stack("mlflow", ports=wish), make_stack("mlflow", ports=wish)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda stack: stack.up(), (one, two)))
    addresses = {one.addresses["mlflow"], two.addresses["mlflow"]}
    assert len(addresses) == 2
    assert all(httpx.get(f"{address}/health").text == "OK" for address in addresses)
    one.down()
    assert not leftovers(one)
    assert httpx.get(f"{two.addresses['mlflow']}/health").text == "OK"
    psycopg.connect(two.database_url()).close()


def test_a_port_that_is_taken_is_not_used(make_stack: MakeStack) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        stack = make_stack("postgres", ports={"serving": taken})
        stack.up()
        assert stack.addresses["serving"] == f"http://127.0.0.1:{taken + 1}"


def test_progress_has_one_line_per_process_and_a_second_up_changes_nothing(make_stack: MakeStack) -> None:
    stack = make_stack("database")
    lines: list[str] = []
    first = stack.up(lines.append)
    before = process_of(stack, "postgres").pid
    second = stack.up()
    assert [line.split()[0] for line in lines] == ["postgres", "database"]
    assert (first.already_up, second.already_up) == (False, True)
    assert process_of(stack, "postgres").pid == before


def _started_by_other_code(stack: Stack, code: str | None) -> None:
    file = stack.home / "run" / "stack.json"
    published = json.loads(file.read_text())
    assert published.pop("code") == code_digest()
    file.write_text(json.dumps(published | ({"code": code} if code else {})))


@pytest.mark.parametrize("code", ["0" * 64, None], ids=["other code", "a version that did not say"])
def test_a_stack_that_runs_other_code_is_restarted_with_all_it_ran(
    make_stack: MakeStack, code: str | None
) -> None:
    stack = make_stack("database")
    stack.up()
    before = process_of(stack, "postgres").pid
    _started_by_other_code(stack, code)
    lines: list[str] = []
    part = Stack(stack.home, only=("postgres",), ports=dict.fromkeys(stack.wished_ports, 0))
    assert not part.up(lines.append).already_up
    assert lines[0] == "the code changed since the stack started: restarting it"
    assert [line.split()[0] for line in lines[1:]] == ["postgres", "database"]
    assert process_of(stack, "postgres").pid != before
    assert stack.up().already_up


def test_commands_find_the_running_stack_and_secrets_are_private(make_stack: MakeStack) -> None:
    stack = make_stack("database")
    stack.up()
    published = json.loads((stack.home / "run" / "stack.json").read_text())["environment"]
    with psycopg.connect(published["LLMOPS_DATABASE_URL"]) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("llmops_worker",)
    for file in ("run/stack.json", "run/processes.json", "secrets.json", "postgres/passwords.json"):
        assert stat.S_IMODE((stack.home / file).stat().st_mode) == 0o600, file
    stack.down()
    assert not (stack.home / "run" / "stack.json").exists()


def test_postgres_comes_back_after_a_kill_with_its_rows(make_stack: MakeStack) -> None:
    stack = make_stack("database")
    stack.up()
    with psycopg.connect(stack.database_url("llmops_owner")) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
    victim = process_of(stack, "postgres")
    victim.kill()
    wait_until(lambda: not victim.is_running() and _works(stack))
    with psycopg.connect(stack.database_url("llmops_owner")) as connection:
        assert connection.execute("SELECT number FROM kept").fetchone() == (7,)


def test_up_works_after_everything_was_killed_at_once(make_stack: MakeStack) -> None:
    stack = make_stack("database")
    stack.up()
    supervisor = json.loads((stack.home / "run" / "processes.json").read_text())["supervisor"]["pid"]
    for victim in (psutil.Process(supervisor), process_of(stack, "postgres")):
        victim.kill()
        victim.wait()
    assert not stack.up().already_up
    psycopg.connect(stack.database_url()).close()


def test_down_ends_what_a_killed_supervisor_left_behind(make_stack: MakeStack) -> None:
    stack = make_stack("database")
    stack.up()
    supervisor = json.loads((stack.home / "run" / "processes.json").read_text())["supervisor"]["pid"]
    psutil.Process(supervisor).kill()
    assert leftovers(stack)
    assert stack.down() == 1
    assert not leftovers(stack)
    assert stack.down() == 0


def test_down_ends_a_supervisor_whose_notes_are_lost(make_stack: MakeStack) -> None:
    stack = make_stack("database")
    stack.up()
    notes = stack.home / "run" / "processes.json"
    supervisor = psutil.Process(json.loads(notes.read_text())["supervisor"]["pid"])
    notes.unlink()
    stack.down()
    assert not supervisor.is_running() or supervisor.status() == psutil.STATUS_ZOMBIE
    assert not leftovers(stack)


def test_a_stack_runs_in_a_deep_folder(make_stack: MakeStack, scratch: Path) -> None:
    stack = make_stack("database", home=scratch.joinpath(*["a_rather_long_name"] * 12))
    stack.up()
    assert _works(stack)


def test_postgres_that_does_not_start_is_one_error_and_leaves_nothing(make_stack: MakeStack) -> None:
    stack = make_stack("database")
    stack.up()
    stack.down()
    next(stack.home.glob("postgres/server/data/PG_VERSION")).write_text("12\n")
    with pytest.raises(StackError, match=r"(?s)^postgres does not start.*not compatible"):
        stack.up()
    assert not leftovers(stack)


def test_names_that_do_not_exist_are_refused(make_stack: MakeStack) -> None:
    with pytest.raises(ConfigurationError, match="no process 'postgrse'"):
        make_stack("postgrse").up()
    with pytest.raises(ConfigurationError, match="airfow"):
        make_stack(ports={"airfow": 1})
    with pytest.raises(StackError, match="llmops stack up"):
        make_stack("postgres").client()


def test_everybody_as_administrator_is_refused(
    make_stack: MakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "True")
    with pytest.raises(ConfigurationError, match="ALL_ADMINS"):
        make_stack("database").up()
