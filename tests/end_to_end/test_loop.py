"""The whole loop on the running stack: Airflow's scheduler runs the DAGs, people answer, the service serves."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import yaml

from end_to_end.conftest import DAYS, PROMPT, Loop
from llmops.corpus import dump as dump_corpus
from llmops.errors import LlmopsError
from llmops.index import dump as dump_index
from llmops.index import generations
from llmops.release import ledger, read_manifest
from support.stacks import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]


def backfill(loop: Loop, first: str, last: str) -> None:
    """Replay days one after the other from the command line, and wait until Airflow has closed the backfill."""
    loop.client("admin").unpause("ingest_documents")
    created = loop.stack.airflow(
        *("backfill", "create", "--dag-id", "ingest_documents", "--from-date", first, "--to-date", last),
        *("--reprocess-behavior", "completed", "--max-active-runs", "1"),
        *("--dag-run-conf", json.dumps({"assistant": "history"})),
    )
    assert created == 0
    wait_until(lambda: all(b["completed_at"] for b in backfills(loop)), 300)
    states = {
        r["logical_date"][:10]: r["state"]
        for r in loop.client().runs("ingest_documents")
        if r["run_type"] == "backfill"
    }
    assert set(states.values()) == {"success"}
    assert {first, last} <= set(states)


def backfills(loop: Loop) -> list[dict]:
    return loop.client("admin").request("GET", "/backfills", dag_id="ingest_documents")["backfills"]


def documents_read(loop: Loop) -> dict[str, int]:
    """Return how many documents the source had on each replayed day."""
    return {
        run["logical_date"][:10]: loop.client().result(
            "ingest_documents", run["dag_run_id"], "check_quality"
        )["documents"]
        for run in loop.client().runs("ingest_documents")
        if run["run_type"] == "backfill"
    }


def release(loop: Loop, assistant: str, user: str = "author", **conf: str) -> str:
    """Start a release and return its run id once a person is asked, or once it ended."""
    loop.client("admin").unpause("release_assistant")
    run_id = loop.client(user).trigger("release_assistant", {"assistant": assistant, **conf})
    asked: list[bool] = []

    def look(tasks: list[dict]) -> None:
        if awaits_a_person(tasks) and not asked:
            asked.append(True)
            loop.client("reviewer").answer("release_assistant", run_id, "ask_reviewer", "Approve")

    state = loop.client().wait_for_run("release_assistant", run_id, timeout_seconds=400, progress=look)
    assert state == "success", loop.story("release_assistant", run_id)
    return run_id


def awaits_a_person(tasks: list[dict]) -> bool:
    return any(t["task_id"] == "ask_reviewer" and t["state"] == "awaiting_input" for t in tasks)


def change(loop: Loop, assistant: str, **values: Any) -> None:
    """Change an assistant's file."""
    file = loop.stack.home / "assistants" / f"{assistant}.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | values))


def in_production(loop: Loop, assistant: str) -> None:
    """Take an assistant to production unless an earlier test did."""
    if not ledger(loop.environment.database_url.get_secret_value(), assistant, "production"):
        _, state = loop.run("ingest_documents", {"assistant": assistant})
        assert state == "success"
        release(loop, assistant)


def canonical(loop: Loop, assistant: str) -> tuple[list[str], list[str]]:
    url = loop.environment.database_url.get_secret_value()
    rows = [line for g in generations(url, assistant) for line in dump_index(url, g.id)]
    return list(dump_corpus(loop.environment.table_root(assistant))), rows


def test_days_backfilled_out_of_order_end_like_a_fresh_build_of_the_last_day(loop: Loop) -> None:
    backfill(loop, DAYS[2], DAYS[2])
    backfill(loop, DAYS[0], DAYS[1])
    backfill(loop, DAYS[1], DAYS[1])
    assert documents_read(loop) == dict(zip(DAYS, (2, 3, 2), strict=True))
    release(loop, "history")
    _, state = loop.run("ingest_documents", {"assistant": "fresh"})
    assert state == "success"
    release(loop, "fresh")
    documents, vectors = canonical(loop, "history")
    assert (documents, vectors) == canonical(loop, "fresh")
    text = "\n".join(documents)
    assert "thirty crowns" in text
    assert "storm" in text
    assert "lamps" not in text
    assert vectors


def test_the_approved_release_answers_with_citations_through_the_openai_client(loop: Loop) -> None:
    from openai import OpenAI

    in_production(loop, "history")
    serving = loop.stack.addresses["serving"]
    client = OpenAI(base_url=f"{serving}/v1", api_key="unused", max_retries=0)
    answer = client.chat.completions.create(
        model="history", messages=[{"role": "user", "content": "What does a red flag on the mast mean?"}]
    )
    assert "storm" in (answer.choices[0].message.content or "")
    extra = answer.model_extra or {}
    assert extra["citations"][0]["path"] == "weather.md"
    assert (
        extra["release"] == httpx.get(f"{serving}/release", params={"assistant": "history"}).json()["release"]
    )


def test_ingesting_again_embeds_nothing_and_writes_nothing(loop: Loop) -> None:
    in_production(loop, "fresh")
    before = canonical(loop, "fresh")
    run_id, state = loop.run("ingest_documents", {"assistant": "fresh"})
    assert state == "success"
    merged = loop.client().result("ingest_documents", run_id, "merge_documents")
    chunked = loop.client().result("ingest_documents", run_id, "merge_chunks")
    assert [merged[k] for k in ("inserted", "updated", "deleted")] == [0, 0, 0]
    assert [chunked[k] for k in ("inserted", "updated", "deleted")] == [0, 0, 0]
    run_id, state = loop.run("sync_index", {"assistant": "fresh", "all_assistants": False})
    synced = loop.client().result("sync_index", run_id, "sync_generations")
    assert [synced[k] for k in ("embedded", "reused", "upserted", "deleted")] == [0, 0, 0, 0]
    assert canonical(loop, "fresh") == before


def test_the_same_release_again_is_skipped(loop: Loop) -> None:
    in_production(loop, "fresh")
    run_id, state = loop.run("release_assistant", {"assistant": "fresh"})
    states = {t["task_id"]: t["state"] for t in loop.client().tasks("release_assistant", run_id)}
    assert state == "success"
    assert states["assemble"] == "skipped"


def test_a_changed_prompt_is_a_release_of_its_own(loop: Loop) -> None:
    in_production(loop, "fresh")
    in_production(loop, "prompted")
    url = loop.environment.database_url.get_secret_value()
    manifests = [
        read_manifest(url, ledger(url, name, "production")[-1].to_release) for name in ("fresh", "prompted")
    ]
    assert manifests[0].prompt.text_hash != manifests[1].prompt.text_hash
    assert manifests[0].retrieval == manifests[1].retrieval


def test_an_assistant_without_retrieval_asks_the_language_model_directly(loop: Loop) -> None:
    release(loop, "direct")
    answer = httpx.post(
        f"{loop.stack.addresses['serving']}/v1/chat/completions",
        json={"model": "direct", "messages": [{"role": "user", "content": "Who won?"}]},
        timeout=60,
    )
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "You asked: Who won?"
    assert answer.json()["citations"] == []
    assert loop.llm.history[-1].body["model"] == "small"


def test_no_author_can_approve_and_a_rejection_promotes_nothing(loop: Loop) -> None:
    """Two runs at once: Airflow refuses an author who is no approver, the notary one who is on the list."""
    in_production(loop, "prompted")
    url = loop.environment.database_url.get_secret_value()
    before = {name: ledger(url, name, "production") for name in ("prompted", "direct")}
    change(loop, "prompted", prompt="Be very brief. " + PROMPT)
    change(loop, "direct", prompt="One word.\n\n{question}", approval={"approvers": ["author", "reviewer"]})
    author, reviewer = loop.client("author"), loop.client("reviewer")
    runs = {name: author.trigger("release_assistant", {"assistant": name}) for name in before}
    for name, run_id in runs.items():
        wait_until(lambda run_id=run_id: awaits_a_person(author.tasks("release_assistant", run_id)), 300)
        if name == "prompted":
            with pytest.raises(LlmopsError, match="403"):
                author.answer("release_assistant", run_id, "ask_reviewer", "Approve")
            reviewer.answer("release_assistant", run_id, "ask_reviewer", "Reject")
        else:
            author.answer("release_assistant", run_id, "ask_reviewer", "Approve")
    for name, run_id in runs.items():
        assert author.wait_for_run("release_assistant", run_id, timeout_seconds=400) == "success"
        states = {t["task_id"]: t["state"] for t in author.tasks("release_assistant", run_id)}
        assert (states["ask_reviewer"], states["promote"]) == ("success", "skipped")
        assert states["await_approval"] == "skipped"
        assert ledger(url, name, "production") == before[name]
    said = {name: [e.reason for e in ledger(url, name) if e.action == "reject"] for name in runs}
    assert "reviewer chose Reject" in said["prompted"]
    assert "author is an author of this release; somebody else must approve it" in said["direct"]


def test_the_lifecycle_runs_every_step_in_order_and_waits_for_the_person_twice(loop: Loop) -> None:
    for dag_id in ("ingest_documents", "sync_index", "fine_tune_embedder", "release_assistant"):
        loop.client("admin").unpause(dag_id)
    run_id = loop.client("author").trigger("run_lifecycle", {"assistant": "manual"})
    answered: set[str] = set()

    def look(tasks: list[dict]) -> None:
        for run in loop.client().runs("release_assistant", limit=5):
            name = run["dag_run_id"]
            if name in answered or run["state"] != "running" or run["conf"].get("assistant") != "manual":
                continue
            if awaits_a_person(loop.client().tasks("release_assistant", name)):
                loop.client("reviewer").answer("release_assistant", name, "ask_reviewer", "Approve")
                answered.add(name)

    state = loop.client().wait_for_run("run_lifecycle", run_id, timeout_seconds=600, progress=look)
    states = {t["task_id"]: t["state"] for t in loop.client().tasks("run_lifecycle", run_id)}
    assert state == "success", states
    assert set(states.values()) == {"success"}
    assert len(answered) == 2
    url = loop.environment.database_url.get_secret_value()
    base, tuned = (read_manifest(url, entry.to_release) for entry in ledger(url, "manual", "production"))
    assert base.authors == tuned.authors
    assert {"author", *(base.committers or ())} == set(base.authors)
    assert base.embedder is not None
    assert tuned.embedder is not None
    assert base.embedder.fingerprint != tuned.embedder.fingerprint
    started = {
        run["triggering_user_name"]
        for dag_id in ("ingest_documents", "fine_tune_embedder", "release_assistant")
        for run in loop.client().runs(dag_id)
        if run["conf"].get("assistant") == "manual"
    }
    assert started == {"author"}
