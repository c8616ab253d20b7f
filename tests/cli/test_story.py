"""What the demo writes for its wishes is a valid assistant; a wish that cannot be met is one clear error."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner
from rich.console import Console

from llmops.assistant import load_assistant
from llmops.chain import ChatGenerator
from llmops.cli._approve import Approver
from llmops.cli._story import Story, Wishes, _own_command
from llmops.cli._timing import Ledger
from llmops.cli.demo import command
from llmops.errors import ConfigurationError
from llmops.settings import load_environment
from llmops.stack import AirflowClient
from llmops.stack.airflow_api import _text


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_folder_becomes_an_assistant_over_that_folder(home: Path, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    name = Story(Wishes(docs=docs))._prepare()
    assistant = load_assistant(name, load_environment())
    assert [(source.kind, source.path) for source in assistant.sources] == [("directory", str(docs))]
    assert assistant.cases() == ()


def test_a_folder_that_is_not_there_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no folder"):
        Story(Wishes(docs=tmp_path / "nowhere"))._prepare()


def test_a_language_model_is_laid_over_the_assistant_and_taken_away_by_the_next_demo(home: Path) -> None:
    story = Story(Wishes(llm="http://127.0.0.1:9/v1", model="small"))
    name = story._prepare()
    before = load_assistant(name, load_environment())
    story._use_llm(name)
    after = load_assistant(name, load_environment())
    assert isinstance(after.generator, ChatGenerator)
    assert after.generator.model == "small"
    assert after.model_copy(update={"generator": before.generator}) == before
    Story(Wishes())._prepare()
    assert load_assistant(name, load_environment()) == before


def test_a_language_model_is_laid_over_a_folder_too(home: Path, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    story = Story(Wishes(docs=docs, llm="http://127.0.0.1:9/v1", model="small"))
    name = story._prepare()
    story._use_llm(name)
    assistant = load_assistant(name, load_environment())
    assert [source.kind for source in assistant.sources] == ["directory"]
    assert isinstance(assistant.generator, ChatGenerator)


def test_a_url_without_a_model_is_refused() -> None:
    result = CliRunner().invoke(command, ["--llm", "http://127.0.0.1:9/v1"])
    assert result.exit_code == 2
    assert "MODEL" in result.output


def test_the_report_splits_the_time_into_parts_that_add_up() -> None:
    ledger = Ledger()
    ledger.began -= 100
    ledger.human = 10
    ledger.stage("stack", 20)
    ledger.enter("ingest", "run", {"parse": {"seconds": {"imports": 5, "work": 30}}, "ask": "no measurement"})
    split = ledger.split()
    assert split["total"] == pytest.approx(90, abs=1)
    assert split["stack"] + split["work"] + split["imports"] + split["orchestration"] == pytest.approx(
        split["total"], abs=0.1
    )


def test_an_error_of_ours_is_one_line_and_exit_code_1(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "llmops", "demo", "--docs", str(home / "nowhere")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"llm": "ftp://host/v1"}, "http://"),
        ({"llm": "http://127.0.0.1:9/v1", "key_file": Path("missing")}, "key file .*missing"),
    ],
    ids=["url", "key file"],
)
def test_a_language_model_that_cannot_be_asked_is_refused_before_anything_starts(
    home: Path, monkeypatch: pytest.MonkeyPatch, wish: dict[str, Any], words: str
) -> None:
    monkeypatch.setattr(Story, "_start", lambda story: pytest.fail("the stack was started"))
    with pytest.raises(ConfigurationError, match=words):
        Story(Wishes(model="small", **wish)).tell()
    assert not home.exists()


class _Runs:
    """An Airflow with one release run whose first task was skipped in its second attempt."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        return [{"task_id": "assemble", "state": "skipped", "try_number": 2}]

    def log(self, dag_id: str, run_id: str, task_id: str, *, attempt: int) -> str:
        assert (task_id, attempt) == ("assemble", 2)
        return _text({"event": "Skipping task.", "reason": self._reason})


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("release 0123456789ab is production already", "in production already: nothing to do"),
        ("release 0123456789ab is waiting already", "waiting for its approvers already"),
        ("something else", "Nothing was released"),
    ],
)
def test_a_release_that_was_not_assembled_says_where_it_stands(reason: str, said: str) -> None:
    screen = io.StringIO()
    story = Story(Wishes(), console=Console(file=screen, width=300))
    approver = Approver(story.stack, story.console, story.ledger, attended=False)
    story._explain(cast(AirflowClient, _Runs(reason)), "run", approver)
    assert said in screen.getvalue()
    assert ("in production already" in screen.getvalue()) == ("is production" in reason)


def test_the_hourly_index_sync_runs_from_the_first_release_on(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    did: list[str] = []
    client = SimpleNamespace(unpause=did.append)
    for name in ("_start", "_ingest", "_fine_tune", "_ask", "_finish"):
        monkeypatch.setattr(Story, name, lambda *_: None)
    monkeypatch.setattr(Story, "_release", lambda *_, first, **__: did.append(f"release {first}"))
    story = Story(Wishes(), console=Console(file=io.StringIO()))
    monkeypatch.setattr(story.stack, "client", lambda user: client)
    story.tell()
    assert did == ["release True", "sync_index", "release False"]


def test_a_demo_is_attended_when_it_begins_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    person, ours = os.openpty()
    try:
        with os.fdopen(ours) as terminal, io.StringIO() as pipe:
            for stdin, attended in ((terminal, True), (pipe, False), (None, False)):
                monkeypatch.setattr(sys, "stdin", stdin)
                assert Story(Wishes()).attended is attended
    finally:
        os.close(person)


def test_the_demo_names_the_command_as_a_person_here_would_type_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("python", "llmops"):
        (folder / name).touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", "/usr/bin")
    assert _own_command() == str(folder / "llmops")
    monkeypatch.chdir(tmp_path)
    assert _own_command() == ".venv/bin/llmops"
    monkeypatch.setenv("PATH", str(folder))
    assert _own_command() == "llmops"
