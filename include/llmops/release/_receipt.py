"""The receipt of an answer: from the answer over its chunks, release, report and approval to the ledger, offline."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from llmops.answers import AnswerChunk, AnswerRecord, read_answer
from llmops.corpus import chunk_id_of
from llmops.errors import LlmopsError, MissingInput
from llmops.lakehouse import LakeTable
from llmops.manifest import Manifest
from llmops.release._copies import kept_heads
from llmops.release._ledger import LedgerEntry, check_ledger, ledger
from llmops.release._statement import notary_keys
from llmops.release._store import read_manifest
from llmops.release._verify import Evidence, evidence_for
from llmops.settings import Environment

_LAG = timedelta(minutes=5)
"""How long after a move an answer may still come from the release before: requests that were under way."""


@dataclass(frozen=True)
class Check:
    """One line of a receipt: what was looked at, what was found, and what is wrong with it, if anything."""

    name: str
    detail: str
    fault: str | None = None


@dataclass(frozen=True)
class Receipt:
    """Everything that stands behind one answer, line by line."""

    answer_id: str
    question: str
    text: str
    checks: tuple[Check, ...]

    @property
    def faults(self) -> list[Check]:
        """Return the lines that name a fault."""
        return [check for check in self.checks if check.fault]

    def as_dict(self) -> dict[str, Any]:
        """Return the receipt as plain values."""
        return asdict(self)


@dataclass
class _Walk:
    """Collects the lines of a receipt; what raises becomes a fault, and what rests on it is left out."""

    checks: list[Check] = field(default_factory=list)

    def tick(self, name: str, detail: str) -> None:
        self.checks.append(Check(name, detail))

    @contextmanager
    def line(self, name: str, detail: str) -> Iterator[None]:
        """Turn one of our errors in the block into this line's fault."""
        try:
            yield
        except LlmopsError as error:
            self.checks.append(Check(name, detail, str(error)))


def receipt(environment: Environment, answer_id: str) -> Receipt:
    """Return the receipt of an answer; raise MissingInput when the log has no such answer.

    Needs the answer log and the ledger in Postgres, the Delta tables and the public keys that this process's
    configuration pins; asks no other service. Copies of the ledger's heads in MLflow count where they can be had.
    """
    url = environment.database_url.get_secret_value()
    answer = read_answer(url, answer_id)
    walk = _Walk()
    _check_answer(walk, answer)
    _check_chunks(walk, environment, answer)
    manifest = _check_release(walk, url, answer)
    if manifest is not None:
        entries = ledger(url)
        evidence = _check_trust(walk, environment, manifest, entries)
        if evidence is not None:
            _check_ledger(walk, environment, answer, evidence, entries)
    return Receipt(answer.answer_id, answer.question, answer.text, tuple(walk.checks))


def _check_answer(walk: _Walk, answer: AnswerRecord) -> None:
    said = "refused to answer" if answer.refused else f"{len(answer.text)} characters"
    detail = f"{answer.answer_id}: {said}, {answer.created_at:%Y-%m-%d %H:%M:%S} UTC"
    with walk.line("answer", detail):
        if answer.status != "complete":
            raise MissingInput(f"it is {answer.status}: nobody got a whole answer")
        walk.tick("answer", detail)


def _check_chunks(walk: _Walk, environment: Environment, answer: AnswerRecord) -> None:
    """Check that each cited chunk was in its document, and that its text gives its id."""
    cited = [chunk for chunk in answer.chunks if chunk.cited]
    if not cited:
        walk.tick("chunks", "nothing is cited" + (", it is a refusal" if answer.refused else ""))
        return
    root, at = environment.table_root(answer.assistant), answer.created_at
    chunks = _Rows(root, "chunks", "chunk_id", [chunk.chunk_id for chunk in cited], at)
    documents = _Rows(root, "documents", "document_id", [chunk.document_id for chunk in cited], at)
    for chunk in cited:
        detail = (
            f"{chunk.chunk_id} of document {chunk.document_id[:12]}, version {chunk.document_version[:12]}"
        )
        with walk.line("chunk", detail):
            row = chunks.find(chunk.chunk_id, "document_version", chunk.document_version)
            _require_chunk(chunk, row)
            _require_document(
                chunk, row, documents.find(chunk.document_id, "version", chunk.document_version)
            )
            walk.tick("chunk", f"{detail}: {row['source']}:{row['path']}")


def _require_chunk(chunk: AnswerChunk, row: dict[str, Any]) -> None:
    """Raise MissingInput unless a row's text gives the chunk's id."""
    path = json.loads(row["heading_path"])
    if not any(
        chunk_id_of(row["chunker"], row["document_id"], path, row["text"], place) == chunk.chunk_id
        for place in range(_REPEATS)
    ):
        raise MissingInput("the stored text does not give the chunk's id: it was changed after it was cut")


def _require_document(chunk: AnswerChunk, row: dict[str, Any], document: dict[str, Any]) -> None:
    """Raise MissingInput unless a document's text gives its version, and holds the chunk."""
    version = hashlib.sha256(f"{document['title']}\0{document['text']}".encode()).hexdigest()
    if version != chunk.document_version or row["document_id"] != chunk.document_id:
        raise MissingInput("the stored document does not give its version: it was changed after it was read")
    if document["text"][row["char_start"] : row["char_end"]] != row["text"]:
        raise MissingInput("the document does not hold the chunk where it says")


_REPEATS = 64
"""How often the same text may stand in one section."""


class _Rows:
    """Rows of a Delta table as they are now and as they were when the answer was given."""

    def __init__(self, root: str, name: str, key: str, keys: Sequence[str], at: datetime) -> None:
        self._table = LakeTable(root, name)
        self._key, self._keys, self._at = key, sorted(set(keys)), at
        self._states: list[list[dict[str, Any]]] = []

    def find(self, key: str, version: str, value: str) -> dict[str, Any]:
        """Return the row of a key in one version; raise MissingInput when neither state of the table has it."""
        for row in self._rows():
            if (row[self._key], row[version]) == (key, value):
                return row
        raise MissingInput(
            f"it is not in the table {self._table.name!r}, neither now nor as that was then: it was erased, or "
            "its history is no longer kept"
        )

    def _rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of the newest state, then those of the state then; each is read once, when it is needed."""
        if not self._states:
            self._states.append(self._table.rows_of(self._key, self._keys).to_pylist())
        yield from self._states[0]
        if len(self._states) == 1:
            then = self._table.version_at(self._at)
            rows = [] if then is None else self._table.rows_of(self._key, self._keys, then).to_pylist()
            self._states.append(rows)
        yield from self._states[1]


def _check_release(walk: _Walk, url: str, answer: AnswerRecord) -> Manifest | None:
    with walk.line("release", answer.release_id):
        manifest = read_manifest(url, answer.release_id)
        embedder = manifest.embedder.fingerprint[:12] if manifest.embedder else "none"
        walk.tick(
            "release",
            f"{manifest.release_id}: code {manifest.code_digest[:12]}, prompt {manifest.prompt.text_hash[:12]}, "
            f"embedder {embedder}, index {manifest.index.generation if manifest.index else 'none'}",
        )
        return manifest
    return None


def _check_trust(
    walk: _Walk, environment: Environment, manifest: Manifest, entries: Sequence[LedgerEntry]
) -> Evidence | None:
    """Check report, approval and the entry that promoted the release."""
    entry = next(
        (e for e in reversed(entries) if e.alias == "production" and e.to_release == manifest.release_id),
        None,
    )
    with walk.line("approval", f"of release {manifest.release_id[:12]}"):
        if entry is None:
            raise MissingInput("the ledger never had this release in production")
        evidence = evidence_for(environment, manifest, entry)
        statement = evidence.statement
        walk.tick("gate report", f"{statement.report_hash}: PASS, by the rules that the release pins")
        too = f", signed by {statement.approver}'s own key" if statement.personal else ""
        walk.tick(
            "approval",
            f"by {statement.approver} ({statement.channel}) at {statement.answered_at:%Y-%m-%d %H:%M:%S} UTC, "
            f"signed by the notary{too}; authors {', '.join(statement.authors) or 'unknown'}",
        )
        return evidence
    return None


def _check_ledger(
    walk: _Walk,
    environment: Environment,
    answer: AnswerRecord,
    evidence: Evidence,
    entries: Sequence[LedgerEntry],
) -> None:
    """Check that the release was in production when the answer was given, in a ledger that is what was written."""
    with walk.line("production", f"at {answer.created_at:%Y-%m-%d %H:%M:%S} UTC"):
        entry = _entry_at(entries, answer)
        walk.tick("production", f"since entry {entry.entry}, {entry.action} by {entry.actor}: {entry.reason}")
    heads = kept_heads(environment)
    found = check_ledger(entries, heads, environment.name, notary_keys(environment))
    position = f"entry {evidence.promoted.entry} of {found.entries}, hash {evidence.promoted.hash[:12]}"
    with walk.line("ledger", position):
        if found.faults:
            first = found.faults[0]
            raise MissingInput(f"entry {first.entry}: {first.problem}; `llmops ledger verify` shows all")
        if found.signed < evidence.promoted.entry:
            raise MissingInput("the notary has not signed the ledger that far yet")
        walk.tick("ledger", f"{position}, signed by the notary up to entry {found.signed}")


def _entry_at(entries: Sequence[LedgerEntry], answer: AnswerRecord) -> LedgerEntry:
    """Return the entry by which the answer's release was in production; raise MissingInput when it was not then."""
    moves = [e for e in entries if e.assistant == answer.assistant and e.alias == "production"]
    for number in range(len(moves) - 1, -1, -1):
        began = moves[number].at
        ended = moves[number + 1].at if number + 1 < len(moves) else None
        if (
            moves[number].to_release == answer.release_id
            and began <= answer.created_at
            and (ended is None or answer.created_at <= ended + _LAG)
        ):
            return moves[number]
    raise MissingInput(f"release {answer.release_id[:12]} was not in production then, by the ledger")
