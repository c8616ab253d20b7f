"""The demo's story, told stage by stage with counts and times."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markdown import Markdown
from rich.text import Text

from llmops.cli._approve import Approver
from llmops.cli._phrases import changes, index_line, losses, why_skipped
from llmops.cli._timing import Ledger
from llmops.errors import ConfigurationError, StackError
from llmops.settings import home, load_environment
from llmops.stack import AirflowClient, Stack

_LIBRARIES = "library_guide"
_FOLDER = "my_documents"
_QUESTIONS = (
    "How do I open a psycopg connection pool?",
    "How do I run a Databricks notebook from Airflow?",
    "How long do I boil an egg?",
)
_DAGS = ("ingest_documents", "sync_index", "fine_tune_embedder", "release_assistant", "rollback_release")
_STAGES = 6
_SCHEDULED_SECONDS = 20


@dataclass(frozen=True)
class Wishes:
    """What the person asked the demo for."""

    docs: Path | None = None
    llm: str | None = None
    model: str | None = None
    key_file: Path | None = None
    leave: bool = False


@dataclass
class Story:
    """Runs the stages one after the other and prints what each did."""

    wishes: Wishes
    console: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=True))
    stack: Stack = field(default_factory=Stack)
    ledger: Ledger = field(default_factory=Ledger)
    attended: bool = field(default_factory=lambda: bool(sys.stdin and sys.stdin.isatty()))
    stage_number: int = 0

    def tell(self) -> None:
        """Run everything; the stack stays up unless the wish was to leave."""
        assistant = self._prepare()
        try:
            with self._stage("Start Postgres, MLflow, Airflow, the service, the follower and the notary"):
                self._start()
            airflow = self.stack.client("author")
            self._ingest(airflow, assistant)
            self._release(airflow, assistant, "the base embedder", first=True)
            self.stack.client("admin").unpause("sync_index")  # from here on there is an index to keep fresh
            embedder = self._fine_tune(airflow, assistant)
            if self.wishes.llm:
                self._use_llm(assistant)
            what = (
                f"{self.wishes.model} on the fine-tuned embedder"
                if self.wishes.llm
                else "the fine-tuned embedder"
            )
            self._release(airflow, assistant, what, first=False, embedder=embedder)
            with self._stage("Ask the assistant"):
                self._ask(assistant)
            self._finish(assistant)
        finally:
            if self.wishes.leave:
                self.console.print(f"Stopped {self.stack.down()} processes.")

    def _prepare(self) -> str:
        """Check what was wished for and write the assistant's overlay; return the assistant's name."""
        if self.wishes.llm:
            from llmops.endpoints import read_key
            from llmops.llm import check_url

            check_url(self.wishes.llm)
            if key_file := self._key_file():
                read_key(key_file)
        overlays = home() / "assistants"
        overlays.mkdir(parents=True, exist_ok=True)
        if self.wishes.docs is None:
            (overlays / f"{_LIBRARIES}.yaml").unlink(missing_ok=True)
            return _LIBRARIES
        folder = self.wishes.docs.expanduser().resolve()
        if not folder.is_dir():
            raise ConfigurationError(
                f"DOCS={str(self.wishes.docs)!r} is no folder: name one with your documents"
            )
        (overlays / f"{_FOLDER}.yaml").write_text(yaml.safe_dump(_folder_assistant(folder), sort_keys=False))
        return _FOLDER

    def _use_llm(self, assistant: str) -> None:
        """Lay a chat generator over the assistant's file for the second release."""
        generator: dict[str, Any] = {"kind": "chat", "url": self.wishes.llm, "model": self.wishes.model}
        if key_file := self._key_file():
            generator["key_file"] = str(key_file)
        overlay = home() / "assistants" / f"{assistant}.yaml"
        values = yaml.safe_load(overlay.read_text()) if overlay.exists() else {}
        overlay.write_text(yaml.safe_dump({**values, "generator": generator}, sort_keys=False))

    def _key_file(self) -> Path | None:
        return self.wishes.key_file.expanduser().resolve() if self.wishes.key_file else None

    def _start(self) -> None:
        started = self.stack.up(lambda line: self.console.print(Text(f"  {line}")))
        if started.new_passwords:
            self.console.print("  Airflow's users, shown this once (kept in a file only you can read):")
            for user, password in started.new_passwords.items():
                self.console.print(Text(f"    {user:<10} {password}"))
        client = self.stack.client("admin")
        for dag_id in _DAGS:
            client.wait_for_dag(dag_id)

    def _ingest(self, airflow: AirflowClient, assistant: str) -> None:
        with self._stage("Ingest documents, gate their quality, chunk them"):
            run_id = self._ingestion(airflow, assistant)
            self._follow(airflow, "ingest_documents", run_id)
            results = self._results(airflow, "ingest_documents", run_id)
            read, merged = results.get("check_quality", {}), results.get("merge_documents", {})
            chunked = results.get("merge_chunks", {})
            self._say(
                f"{read.get('documents', 0)} documents read, {read.get('quarantined', 0)} quarantined; "
                f"{changes(merged)}; chunks: {changes(chunked)}"
            )

    def _fine_tune(self, airflow: AirflowClient, assistant: str) -> str | None:
        with self._stage("Fine-tune the embedder on the documents' own headings and sections"):
            run_id = self._trigger("fine_tune_embedder", {"assistant": assistant, "announce": False})
            self._follow(airflow, "fine_tune_embedder", run_id)
            results = self._results(airflow, "fine_tune_embedder", run_id)
            if "register_embedder" not in results:
                self._say("Every document is needed for the evaluation: nothing is left to train on.")
                return None
            registered, trained = results["register_embedder"], results["train_embedder"]
            self._say(
                f"{results['build_training_set']['pairs']} pairs; "
                + (
                    losses(trained["metrics"])
                    if trained["trained"]
                    else "nothing changed since it was trained"
                )
                + f"; registered as {registered['embedder']}"
            )
            return str(registered["embedder"])

    def _release(
        self, airflow: AirflowClient, assistant: str, what: str, *, first: bool, embedder: str | None = None
    ) -> None:
        with self._stage(f"Release {what}: index, evaluate, gate, ask, promote"):
            if first and (base := self._base_embedder(airflow)):
                embedder = base
            if first and self._production(assistant):
                self._say(
                    "There is a production release from an earlier run; the next stage compares with it."
                )
                return
            run_id = self._trigger("release_assistant", {"assistant": assistant, "embedder": embedder})
            approver = Approver(self.stack, self.console, self.ledger, self.attended)
            self._follow(airflow, "release_assistant", run_id, approver)
            self._explain(airflow, run_id, approver)

    def _explain(self, airflow: AirflowClient, run_id: str, approver: Approver) -> None:
        """Say how a release ended, in words."""
        tasks = {task["task_id"]: task for task in airflow.tasks("release_assistant", run_id)}
        states = {name: task["state"] for name, task in tasks.items()}
        results = self._results(airflow, "release_assistant", run_id)
        built = results.get("build_index") or {}
        if states.get("assemble") == "skipped":
            attempt = tasks["assemble"].get("try_number") or 1
            self._say(why_skipped(airflow.log("release_assistant", run_id, "assemble", attempt=attempt)))
            return
        self._say(index_line(built))
        verdict = (results.get("gate") or {}).get("verdict")
        if not approver.asked and verdict:
            self.console.print(Markdown(self._report(results["gate"]["report_hash"])))
        if states.get("confirm") == "success":
            confirmed = results["confirm"]
            self._say(
                f"Release {confirmed['release_id'][:12]} is in production on {confirmed['replicas']} replica(s)."
            )
        elif verdict == "FAIL":
            self._say("The gate says FAIL: production stays as it is. That is the gate doing its work.")
        else:
            self._say("The release was not approved: production stays as it is.")

    def _report(self, report_hash: str) -> str:
        from llmops.release import read_report

        return read_report(self.stack.database_url(), report_hash).markdown

    def _production(self, assistant: str) -> str | None:
        from llmops.release import ledger

        entries = ledger(self.stack.database_url(), assistant, "production")
        return entries[-1].to_release if entries else None

    def _base_embedder(self, airflow: AirflowClient) -> str | None:
        """Return the embedder that the newest ingestion prepared."""
        for run in airflow.runs("ingest_documents", limit=5):
            if run["state"] == "success":
                prepared = airflow.result("ingest_documents", run["dag_run_id"], "prepare_embedder")
                return str(prepared["embedder"]) if prepared.get("embedder") else None
        return None

    def _ask(self, assistant: str) -> None:
        from llmops.cli.ask import ask, show
        from llmops.cli.receipt import show_receipt
        from llmops.release import receipt

        environment, given = load_environment(), []
        for question in _QUESTIONS if assistant == _LIBRARIES else self._own_questions(assistant):
            self.console.print(Text(f"\n  ? {question}", style="bold"))
            given.append(ask(environment.serving_url, assistant, question))
            for line in show(given[-1]).splitlines():
                self.console.print(Text(f"    {line}"))
        self.console.print()
        for line in show_receipt(receipt(environment, given[0]["answer_id"])).splitlines():
            self.console.print(Text(f"  {line}"))

    def _own_questions(self, assistant: str) -> list[str]:
        from llmops.evaluation import derive_cases
        from llmops.lakehouse import LakeTable

        chunks = LakeTable(load_environment().table_root(assistant), "chunks").read()
        answerable = [case.question for case in derive_cases(chunks, limit=20, seed=7) if case.facts]
        return [*answerable[:2], _QUESTIONS[-1]]

    def _finish(self, assistant: str) -> None:
        split = self.ledger.split()
        report = home() / "demo" / "report.json"
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps(split, indent=2))
        self.console.print(
            f"\nDone in {split['total']:.0f} s, without the {split['human']:.0f} s that a person took: "
            f"{split['stack']:.0f} s starting the stack, {split['work']:.0f} s work in tasks, "
            f"{split['imports']:.0f} s imports, {split['orchestration']:.0f} s orchestration and the rest."
        )
        urls, command = self.stack.addresses, _own_command()
        self.console.print(
            f"\n  Airflow    {urls['airflow']}   (user author, reviewer or admin)"
            f"\n  MLflow     {urls['mlflow']}"
            f"\n  Service    {urls['serving']}/v1/chat/completions   (model {assistant})"
            f'\n\n  {command} ask "…" --assistant {assistant}'
            f"\n  {command} receipt <answer> --verify"
            f"\n  {command} stack down      stops everything; data stays in {_from_here(home())}"
        )
        if assistant == _FOLDER:
            self.console.print(
                f"\n  To keep this assistant, copy {home() / 'assistants' / f'{_FOLDER}.yaml'} to include/assistants/."
                f"\n  Its questions were derived from headings: `{command} evaluate cases export --assistant {_FOLDER}`"
                " writes them as a file to edit."
            )

    def _trigger(self, dag_id: str, conf: Mapping[str, Any]) -> str:
        """Start a run as the author and return its id; a paused DAG is unpaused first."""
        self.stack.client("admin").unpause(dag_id)
        return self.stack.client("author").trigger(dag_id, {k: v for k, v in conf.items() if v is not None})

    def _ingestion(self, airflow: AirflowClient, assistant: str) -> str:
        """Return the run that ingests: unpausing starts yesterday's interval of the default assistant by itself."""
        admin = self.stack.client("admin")
        if assistant == _LIBRARIES and admin.request("GET", "/dags/ingest_documents")["is_paused"]:
            admin.unpause("ingest_documents")
            give_up = time.monotonic() + _SCHEDULED_SECONDS
            while time.monotonic() < give_up:
                if runs := [r for r in airflow.runs("ingest_documents") if r["run_type"] == "scheduled"]:
                    return str(runs[0]["dag_run_id"])
                time.sleep(0.5)
        return self._trigger("ingest_documents", {"assistant": assistant})

    def _follow(
        self, airflow: AirflowClient, dag_id: str, run_id: str, approver: Approver | None = None
    ) -> None:
        seen: dict[str, str] = {}

        def progress(tasks: list[dict[str, Any]]) -> None:
            for task in tasks:
                name, state = task["task_id"], task["state"] or "scheduled"
                if seen.get(name) != state and state in ("success", "failed", "skipped", "upstream_failed"):
                    self.console.print(Text(f"  {name:<20} {state:<10} {task['duration'] or 0:6.1f} s"))
                if approver and name == "ask_reviewer" and state == "awaiting_input":
                    approver.answer(dag_id, run_id)
                seen[name] = state

        if (
            airflow.wait_for_run(dag_id, run_id, timeout_seconds=7 * 24 * 3600, progress=progress)
            != "success"
        ):
            failed = sorted(name for name, state in seen.items() if state == "failed")
            raise StackError(
                f"the run {run_id!r} of {dag_id!r} failed at {', '.join(failed) or 'an unknown task'}: "
                + "".join(_last_lines(airflow, dag_id, run_id, name) for name in failed[:1])
                + f"; see {airflow.url}/dags/{dag_id}/runs/{run_id}"
            )

    def _results(self, airflow: AirflowClient, dag_id: str, run_id: str) -> dict[str, Any]:
        """Return what each task returned, and enter its seconds into the ledger."""
        results = {}
        for task in airflow.tasks(dag_id, run_id):
            if task["state"] == "success" and task["task_id"] not in ("ask_reviewer", "announce"):
                mapped = task["map_index"]
                name = task["task_id"] if mapped < 0 else f"{task['task_id']}[{mapped}]"
                results[name] = airflow.result(dag_id, run_id, task["task_id"], map_index=mapped)
        self.ledger.enter(dag_id, run_id, results)
        return results

    def _say(self, text: str) -> None:
        self.console.print(Text(f"  {text}"))

    @contextmanager
    def _stage(self, title: str) -> Iterator[None]:
        self.stage_number += 1
        self.console.print(Text(f"\n[{self.stage_number}/{_STAGES}] {title}", style="bold"))
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        self.ledger.stage(title, seconds)
        self._say(f"{seconds:.1f} s")


def _own_command() -> str:
    """Return what a person types here to run this installation's ``llmops``."""
    ours = Path(sys.executable).parent / "llmops"
    found = shutil.which("llmops")
    if found and Path(found) == ours:
        return "llmops"
    return _from_here(ours)


def _from_here(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _last_lines(airflow: AirflowClient, dag_id: str, run_id: str, task_id: str) -> str:
    lines = airflow.log(dag_id, run_id, task_id).splitlines()
    errors = [
        line for line in lines if re.match(r"[A-Za-z]+(Error|Failed|Approved|Input|Mismatch|Release): ", line)
    ]
    return os.linesep.join(errors[-1:] or lines[-5:])


def _folder_assistant(folder: Path) -> dict[str, Any]:
    """Return an assistant over one folder, with everything else at its default."""
    return {
        "description": f"Answers questions from the documents in {folder}.",
        "sources": [{"kind": "directory", "name": "documents", "path": str(folder)}],
        "prompt": "Answer from the numbered passages below and from nothing else; cite them like [1]. "
        "If they do not answer the question, say exactly this: {refusal}\n\n"
        "{context}\n\nQuestion: {question}\n",
        "gate": {
            "underpowered": "allow",
            "rules": [
                {"metric": "recall_at_10", "minimum": 0.5, "largest_loss": 0.1},
                {"metric": "latency_p95_seconds", "maximum": 5},
            ],
        },
        "approval": {"approvers": ["reviewer"]},
    }
