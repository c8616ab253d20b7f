"""``llmops ask`` against the real service, and ``llmops serve`` as a real process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
from click.testing import CliRunner

import llmops
from llmops.chain import REFUSAL
from llmops.cli.ask import command
from llmops.errors import InvalidRequest, MissingInput, ServiceUnavailable
from llmops.settings import environ
from serving.conftest import FakeRelease, FakeSource, served, wait_until
from support.passages import KILN, Shelf, extractive_chain, hit
from support.services import FreshDatabase, free_port

QUESTION = "How do I open the damper before I light the burner of the kiln?"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment ``dev`` whose service is wherever LLMOPS_SERVING_URL says."""
    (tmp_path / "environments").mkdir()
    (tmp_path / "environments" / "dev.yaml").write_text(
        "catalog: dev\nstorage_root: /none\ndatabase_url: x\nmlflow_url: x\nairflow_url: x\nnotary_url: x\n"
        "notary_keys: x\n"
        "serving_url: ${LLMOPS_SERVING_URL}\n"
    )
    monkeypatch.setenv("LLMOPS_INCLUDE", str(tmp_path))
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path / "home"))
    return monkeypatch


def quoting(*chunks: object) -> FakeSource:
    shelf = Shelf(list(chunks) or None)  # type: ignore[arg-type]
    return FakeSource({"library_guide": FakeRelease("r" * 64, extractive_chain(shelf, threshold=0.4))})


def test_an_answer_is_printed_with_its_citations(log_url: str, environment: pytest.MonkeyPatch) -> None:
    with served(quoting(), log_url, "library_guide") as base:
        environment.setenv("LLMOPS_SERVING_URL", base)
        shown = CliRunner().invoke(command, [QUESTION], catch_exceptions=False)
        asked = CliRunner().invoke(command, [QUESTION, "--json"], catch_exceptions=False)
    assert shown.exit_code == asked.exit_code == 0
    assert "Open the lower damper before you light the burner. [1]" in shown.output
    assert "[1] guide: Kiln > Starting the kiln" in shown.output
    given = json.loads(asked.output)
    assert set(given) == {
        "assistant", "question", "answer", "refused", "citations", "release", "answer_id",
    }  # fmt: skip
    assert given["release"] == "r" * 64
    assert given["citations"][0]["chunk_id"] == KILN.chunk_id
    assert given["citations"][0]["heading_path"] == ["Kiln", "Starting the kiln"]
    assert given["citations"][0]["document_version"] == KILN.document_version


def test_a_refusal_is_no_failure(log_url: str, environment: pytest.MonkeyPatch) -> None:
    with served(quoting(), log_url, "library_guide") as base:
        environment.setenv("LLMOPS_SERVING_URL", base)
        shown = CliRunner().invoke(
            command, ["Who won the football world cup in Brazil?"], catch_exceptions=False
        )
    assert shown.exit_code == 0
    assert REFUSAL in shown.output


def test_a_document_cannot_command_the_terminal(log_url: str, environment: pytest.MonkeyPatch) -> None:
    text = "Open the lower damper \x1b[2J\x1b]0;owned\x07before \u202eyou\u202c light the burner of the kiln."
    with served(quoting(hit("kiln", text, "Kiln \x1b[31m")), log_url, "library_guide") as base:
        environment.setenv("LLMOPS_SERVING_URL", base)
        shown = CliRunner().invoke(command, [QUESTION], catch_exceptions=False).output
        asked = CliRunner().invoke(command, [QUESTION, "--json"], catch_exceptions=False).output
    assert "damper" in shown
    for output in (shown, asked):
        assert not any(char in output for char in "\x1b\x07\u202e")
    assert "\x1b" in json.loads(asked)["answer"]


def test_the_command_serves_on_loopback_and_stops_in_order(
    database: FreshDatabase, tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    (tmp_path / "assistants").mkdir()
    (tmp_path / "assistants" / "library_guide.yaml").write_text("description: x\n")
    file = tmp_path / "environments" / "dev.yaml"
    file.write_text(file.read_text().replace("database_url: x", "database_url: ${LLMOPS_DATABASE_URL}"))
    port = free_port()
    variables = {
        **environ(),
        "PYTHONPATH": str(Path(llmops.__file__).parents[1]),
        "LLMOPS_DATABASE_URL": database.url("llmops_serving"),
        "LLMOPS_SERVING_URL": f"http://127.0.0.1:{port}",
    }
    command = [sys.executable, "-m", "llmops", "serve", "--port", str(port)]
    process = subprocess.Popen(command, env=variables, stderr=subprocess.PIPE)
    try:
        base = f"http://127.0.0.1:{port}"
        wait_until(lambda: process.poll() is not None or answers(f"{base}/healthz"), seconds=90)
        assert process.poll() is None, process.stderr and process.stderr.read()
        ready = httpx.get(f"{base}/readyz", timeout=10)
        assert ready.status_code == 503
        assert ready.json()["answer_log"] == "ok"
        sockets = psutil.Process(process.pid).net_connections()
        assert {s.laddr.ip for s in sockets if s.status == "LISTEN"} == {"127.0.0.1"}
        process.terminate()
        assert process.wait(timeout=30) in {0, -signal.SIGTERM}
    finally:
        process.kill()
        process.communicate()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.TransportError:
        return False


def test_what_goes_wrong_says_what_to_do(log_url: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("LLMOPS_SERVING_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ServiceUnavailable, match="llmops stack"):
        CliRunner().invoke(command, [QUESTION], catch_exceptions=False)
    with served(FakeSource(), log_url, "library_guide", wait=False) as base:
        environment.setenv("LLMOPS_SERVING_URL", base)
        with pytest.raises(ServiceUnavailable, match="release_assistant"):
            CliRunner().invoke(command, [QUESTION], catch_exceptions=False)
        with pytest.raises(MissingInput, match="library_guide"):
            CliRunner().invoke(command, [QUESTION, "--assistant", "other"], catch_exceptions=False)
        with pytest.raises(InvalidRequest, match="4000"):
            CliRunner().invoke(command, ["x" * 4001], catch_exceptions=False)
