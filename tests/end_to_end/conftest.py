"""One whole stack for all end-to-end tests, with assistants of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from llmops.errors import ServiceUnavailable
from llmops.llm import FakeLanguageModel
from llmops.settings import Environment
from llmops.stack import AirflowClient, Stack

PROMPT = "Answer from these passages and cite them.\n\n{context}\n\nQuestion: {question}\n"
DAYS = ("2024-03-01", "2024-03-02", "2024-03-03")

_FIRST = """# Harbour handbook

## Mooring

A visiting boat ties up at the north quay. The north quay has room for twelve boats.

## Fees

The harbour master collects twenty crowns for each night.
"""
_SECOND = """# Weather

## Storm warnings

A red flag on the mast means that a storm is expected. Boats stay in the harbour while it flies.

## Fog

The horn sounds every minute while there is fog.
"""
_OLD = "# Old rules\n\n## Lamps\n\nEvery boat carries two lamps and a bell.\n"


@dataclass(frozen=True)
class Loop:
    """The running stack, its environment, and the model that plays the LLM."""

    stack: Stack
    environment: Environment
    llm: FakeLanguageModel

    def client(self, user: str = "author") -> AirflowClient:
        return self.stack.client(user)

    def run(self, dag_id: str, conf: dict, user: str = "author") -> tuple[str, str]:
        """Run a DAG to its end; return run id and state."""
        self.client("admin").unpause(dag_id)
        run_id = self.client(user).trigger(dag_id, conf)
        try:
            return run_id, self.client().wait_for_run(dag_id, run_id, timeout_seconds=400)
        except ServiceUnavailable as error:
            raise AssertionError(f"{error}: {self.story(dag_id, run_id)}") from error

    def story(self, dag_id: str, run_id: str) -> str:
        """Tell how far each task of a run came, with the end of the log of each that did not succeed."""
        lines = []
        for found in self.client().tasks(dag_id, run_id):
            lines.append(f"{found['task_id']}: {found['state']}, attempt {found['try_number']}")
            if found["state"] not in ("success", "skipped", "upstream_failed", None):
                lines.append(self.client().log(dag_id, run_id, found["task_id"], attempt=found["try_number"]))
        return "\n".join(line[-3000:] for line in lines)


def _git(repository: Path, *arguments: str, date: str = "") -> None:
    identity = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER")
                for what, value in (("NAME", "Writer"), ("EMAIL", "writer@example.com"), ("DATE", date))}  # fmt: skip
    subprocess.run(
        ["git", "-C", str(repository), *arguments],
        check=True, capture_output=True, env={**os.environ, **(identity if date else {})},
    )  # fmt: skip


def make_history(repository: Path) -> None:
    """Three dated commits: two documents are added, one is edited and one added, one is deleted."""
    repository.mkdir(parents=True)
    _git(repository, "init", "-q", "-b", "main")
    (repository / "handbook.md").write_text(_FIRST)
    (repository / "old.md").write_text(_OLD)
    _commit(repository, DAYS[0])
    (repository / "handbook.md").write_text(_FIRST.replace("twenty crowns", "thirty crowns"))
    (repository / "weather.md").write_text(_SECOND)
    _commit(repository, DAYS[1])
    (repository / "old.md").unlink()
    _commit(repository, DAYS[2])


def _commit(repository: Path, day: str) -> None:
    _git(repository, "add", "-A")
    _git(repository, "commit", "-q", "-m", f"State of {day}", date=f"{day}T12:00:00+0000")


def _assistants(home: Path, repository: Path, llm_url: str) -> None:
    folder = home / "assistants"
    folder.mkdir(parents=True)
    history = {
        "description": "Answers from a handbook with a history.",
        "sources": [{"kind": "git", "name": "handbook", "repository": str(repository)}],
        "prompt": PROMPT,
        "gate": {
            "underpowered": "allow",
            "rules": [{"metric": "recall_at_10", "minimum": 0.5, "largest_loss": 0.1}],
        },
        "approval": {"approvers": ["reviewer"]},
        "training": {"max_steps": 3},
    }
    direct = {
        "description": "Asks a language model directly.",
        "prompt": "Answer briefly.\n\nQuestion: {question}\n",
        "retrieval": {"kind": "none"},
        "generator": {"kind": "chat", "url": llm_url, "model": "small"},
        "evaluation_cases": "direct.cases.jsonl",
        "gate": {"underpowered": "allow", "rules": [{"metric": "latency_p95_seconds", "maximum": 30}]},
        "approval": {"approvers": ["reviewer"]},
    }
    manual = {
        **history,
        "sources": [{"kind": "directory", "name": "manual", "path": "docs"}],
        "gate": {"underpowered": "allow", "rules": [{"metric": "latency_p95_seconds", "maximum": 30}]},
    }
    prompted = {**history, "prompt": "Be brief. " + PROMPT}
    # Unpausing `ingest_documents` runs it for the default assistant too: small sources keep that short.
    default = {"sources": manual["sources"]}
    for name, values in (
        ("history", history),
        ("fresh", history),
        ("prompted", prompted),
        ("manual", manual),
        ("direct", direct),
        ("library_guide", default),
    ):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    (folder / "direct.cases.jsonl").write_text(
        '{"id": "one", "question": "Who won the chess cup of my village in 1911?", "expected_documents": [], '
        '"facts": [], "slice": "unanswerable", "synthetic": false}\n'
    )


def _reply(messages: list[dict[str, str]]) -> str:
    return f"You asked: {messages[-1]['content'].rsplit('Question: ')[-1].strip()}"


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    with (
        tempfile.TemporaryDirectory(prefix="llmops-loop-") as folder,
        FakeLanguageModel(respond=_reply) as llm,
    ):
        Path(folder).chmod(0o711)
        home = Path(folder) / "home"
        make_history(Path(folder) / "repository")
        _assistants(home, Path(folder) / "repository", llm.url)
        dags = Path(folder) / "dags"
        shutil.copytree(Path(__file__).resolve().parents[2] / "dags", dags)
        shutil.copytree(Path(__file__).resolve().parent / "dags", dags / "attacks")
        stack = Stack(
            home,
            ports={name: 0 for name in ("airflow", "mlflow", "serving", "follower", "notary")},
            dags=dags,
        )
        try:
            stack.up()
            for path in dags.rglob("*.py"):
                stack.client().wait_for_dag(path.stem)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("LLMOPS_HOME", str(home))
                from llmops.settings import load_environment

                yield Loop(stack, load_environment(), llm)
        finally:
            stack.down()
