"""An index is released only when it holds every source and its sentinels are found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from llmops.corpus import CHUNKS, DOCUMENTS
from llmops.corpus._tables import chunks_schema, documents_schema
from llmops.evaluation import Case, Check, GateRules, Observation, Rule, decide, evaluate, replay
from llmops.index import Generation, Hit, create_generation, find_generation, generations, search, sync
from llmops.lakehouse import LakeTable
from llmops.manifest import ArtifactPin, IndexPin, Manifest
from llmops.release import read_manifest, retire_generations
from llmops.release._index_checks import check_index
from llmops.settings import Environment
from support.hash_embedder import HashEmbedder

CHUNKER = "c" * 16
TEXTS = {
    "notes:apples.md": "Apples keep for months in a cold cellar.",
    "notes:pears.md": "Pears ripen from the inside and must be picked early.",
    "rules:travel.md": "Trains are booked by the front desk two weeks ahead.",
}


@dataclass
class Guide:
    """One assistant's tables and its generation, written with a hash embedder."""

    environment: Environment
    embedder: HashEmbedder
    generation: str = "guide_1"

    @property
    def url(self) -> str:
        return self.environment.database_url.get_secret_value()

    def write(self, texts: dict[str, str], *, chunks: bool = True, access: str = "[]") -> None:
        documents, rows = [], []
        for uri, text in texts.items():
            source, path = uri.split(":")
            key, version = digest(uri), digest(text)
            common = {"document_id": key, "source": source, "path": path, "title": path, "access": access}
            documents.append({**common, "version": version, "text": text})
            place = {"heading_path": "[]", "position": 0, "char_start": 0, "char_end": len(text)}
            chunk = {"chunk_id": digest(uri, text), "document_version": version, "embed_text": text}
            rows.append({**common, **place, **chunk, "text": text, "chunker": CHUNKER, "metadata": "{}"})
        root = self.environment.table_root("guide")
        self._merge(LakeTable(root, DOCUMENTS), documents, documents_schema(), "document_id")
        if chunks:
            self._merge(LakeTable(root, CHUNKS), rows, chunks_schema(), "chunk_id")

    def _merge(self, table: LakeTable, rows: list[dict[str, Any]], schema: pa.Schema, key: str) -> None:
        content = pa.Table.from_pylist(rows, schema=schema)
        table.merge(content, key=key, database_url=self.url, delete_missing=True)

    def build(self) -> None:
        pin = ArtifactPin(uri="models:/hash/1", files={}, fingerprint=self.embedder.fingerprint)
        create_generation(
            self.url,
            Generation(
                self.generation, "guide", pin, self.embedder.fingerprint, self.embedder.dimension, CHUNKER
            ),
        )
        chunks = LakeTable(self.environment.table_root("guide"), CHUNKS)
        sync(self.url, self.generation, chunks, self.embedder)

    def find(self, question: str) -> tuple[Hit, ...]:
        with psycopg.connect(self.url) as connection:
            vector = self.embedder.embed([question])[0]
            return tuple(
                search(
                    connection, self.generation, question, vector, top_k=1, candidates=10, access=["staff"]
                )
            )


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


@pytest.fixture
def guide(environment: Environment) -> Guide:
    return Guide(environment, HashEmbedder())


def checks(guide: Guide, release: Callable[..., str], **retrieval: Any) -> dict[str, Check]:
    release_id = release(
        index=IndexPin(generation=guide.generation, chunker={"digest": CHUNKER}),
        retrieval={"kind": "hybrid", "access": ["staff"], **retrieval},
    )
    manifest: Manifest = read_manifest(guide.url, release_id)
    return {check.name: check for check in check_index(guide.environment, manifest, guide)}  # type: ignore[arg-type]


def test_a_whole_index_covers_every_source_and_finds_documents_drawn_from_each(
    guide: Guide, release: Callable[..., str]
) -> None:
    guide.write(TEXTS)
    guide.build()
    found = checks(guide, release)
    assert {name: (check.value, check.count) for name, check in found.items()} == {
        "coverage of notes": (1.0, 2),
        "coverage of rules": (1.0, 1),
        "drawn sentinels": (1.0, 3),
    }
    assert {check.result().outcome for check in found.values()} == {"pass"}


def test_documents_that_the_index_lacks_or_has_as_they_were_fail_their_source_alone(
    guide: Guide, release: Callable[..., str]
) -> None:
    guide.write(TEXTS)
    guide.build()
    guide.write({**TEXTS, "notes:pears.md": "Pears were edited.", "notes:new.md": "New."}, chunks=False)
    found = checks(guide, release)
    result = found["coverage of notes"].result()
    assert (result.outcome, result.candidate) == ("fail", pytest.approx(1 / 3))
    assert result.reason == "0.333 is below the minimum 0.99: not in the index: new.md, pears.md"
    assert found["coverage of rules"].result().outcome == "pass"
    lenient = checks(guide, release, minimum_coverage=0.3)
    assert lenient["coverage of notes"].result().outcome == "pass"


def test_a_sentinel_that_is_not_found_fails_and_is_named(guide: Guide, release: Callable[..., str]) -> None:
    guide.write(TEXTS)
    guide.build()
    asked = [
        {"question": "How long do apples keep?", "document": "notes:apples.md"},
        {"question": "How long do apples keep in the cellar?", "document": "rules:travel.md"},
    ]
    result = checks(guide, release, sentinels=asked)["sentinels"].result()
    assert (result.outcome, result.candidate, result.questions) == ("fail", 0.5, 2)
    assert result.reason.endswith("not found: rules:travel.md")


def test_documents_that_the_callers_may_not_see_are_not_drawn(
    guide: Guide, release: Callable[..., str]
) -> None:
    guide.write(TEXTS, access='["board"]')
    guide.build()
    assert set(checks(guide, release)) == {"coverage of notes", "coverage of rules"}
    guide.write(TEXTS, access='["board", "staff"]')
    guide.build()
    assert checks(guide, release)["drawn sentinels"].value == 1.0


@pytest.mark.parametrize(("value", "verdict"), [(1.0, "PASS"), (0.5, "FAIL"), (None, "INCOMPLETE")])
def test_the_gate_fails_a_release_whose_check_fails_however_good_its_answers(
    value: float | None, verdict: str
) -> None:
    cases = [Case(id="one", question="Why?", slice="unanswerable")]
    rules = GateRules(rules=(Rule(metric="quality", minimum=0.5),), resamples=1_000)
    evaluation = evaluate(cases, lambda question: Observation("No.", True, None, 0.1), label="candidate")
    check = Check("coverage of notes", "coverage", value, 0.99, 10)
    report = decide(rules, evaluation, None, checks=[check])
    assert report.verdict == verdict
    assert report.results[-1].rule == "coverage of notes"
    assert "coverage of notes" in report.markdown()
    assert replay(report).equal
    assert "checks" not in decide(rules, evaluation, None).content


def test_a_generation_nobody_can_roll_back_to_is_retired_and_dropped_the_next_time(
    guide: Guide, release: Callable[..., str]
) -> None:
    guide.write(TEXTS)
    guide.build()
    release(index=IndexPin(generation=guide.generation, chunker={"digest": CHUNKER}))
    later = datetime.now(UTC) + timedelta(days=29)
    assert retire_generations(guide.environment, "guide", later) == {"dropped": [], "retired": []}
    later += timedelta(days=2)
    assert retire_generations(guide.environment, "guide", later) == {
        "dropped": [],
        "retired": [guide.generation],
    }
    assert find_generation(guide.url, guide.generation).state == "retired"
    assert retire_generations(guide.environment, "guide", later)["dropped"] == [guide.generation]
    assert generations(guide.url, "guide") == []


def test_a_generation_in_production_is_never_retired_and_one_that_left_waits_for_its_window(
    guide: Guide, release: Callable[..., str], owner: Callable[[str], None]
) -> None:
    guide.write(TEXTS)
    guide.build()
    release_id = release(index=IndexPin(generation=guide.generation, chunker={"digest": CHUNKER}))
    other = release("other")
    move(owner, None, release_id, "now()")
    later = datetime.now(UTC) + timedelta(days=365)
    assert retire_generations(guide.environment, "guide", later) == {"dropped": [], "retired": []}
    move(owner, release_id, other, "now() + interval '300 days'")
    assert retire_generations(guide.environment, "guide", later - timedelta(days=40))["retired"] == []
    assert retire_generations(guide.environment, "guide", later)["retired"] == [guide.generation]


def move(owner: Callable[[str], None], left: str | None, to: str, at: str) -> None:
    """Enter a move of production into the ledger, as of a time."""
    before = f"'{left}'" if left else "NULL"
    owner(
        "INSERT INTO release_ledger (entry, assistant, alias, action, from_release, to_release, actor, reason, at, "
        "authentication, previous, hash) SELECT coalesce(max(entry), 0) + 1, 'guide',"
        f"  'production', 'promote', {before}, '{to}', 'a', 'b', "
        f"{at}, 'test', repeat('0', 64), md5(random()::text) || md5(random()::text) FROM release_ledger"
    )


def test_texts_of_checks_are_stored_as_plain_json() -> None:
    check = Check("coverage of notes", "coverage", 1 / 3, 0.99, 3, "not in the index: a.md")
    assert Check.of(json.loads(json.dumps(check.to_json()))).value == pytest.approx(1 / 3)
