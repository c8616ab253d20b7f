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
from llmops.release._approval import require_pass_of
from llmops.release._copies import kept_heads
from llmops.release._ledger import LedgerEntry, check_ledger, ledger
from llmops.release._statement import Statement, notary_keys
from llmops.release._store import StoredReport, read_manifest, read_report
from llmops.release._verify import (
    approval_behind,
    require_own_signature,
    require_promotion,
    require_unedited,
)
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
class _Line:
    """A line while it is looked at; ``detail`` comes to say what was found."""

    detail: str


@dataclass
class _Walk:
    """Collects the lines of a receipt, each with a tick or with the fault that it raised."""

    checks: list[Check] = field(default_factory=list)

    @contextmanager
    def line(self, name: str, detail: str) -> Iterator[_Line]:
        """Add one line: a tick, or one of our errors in the block as its fault."""
        line, fault = _Line(detail), None
        try:
            yield line
        except LlmopsError as error:
            fault = str(error)
        self.checks.append(Check(name, line.detail, fault))


def _rests_on(line: str) -> MissingInput:
    """Return why a line cannot be checked: another one, which names a fault, would have to hold first."""
    return MissingInput(f"not checked: it rests on the line {line!r}")


def receipt(environment: Environment, answer_id: str) -> Receipt:
    """Return the receipt of an answer; raise MissingInput when the log has no such answer.

    Every line is there, whatever the others found: what rests on a line that names a fault is a fault that says so.
    Needs the answer log and the ledger in Postgres, the Delta tables and the public keys that this process's
    configuration pins; asks no other service. Copies of the ledger's heads in MLflow count where they can be had.
    """
    url = environment.database_url.get_secret_value()
    answer = read_answer(url, answer_id)
    walk = _Walk()
    _check_answer(walk, answer)
    _check_chunks(walk, environment, answer)
    manifest = _check_release(walk, url, answer)
    entries = ledger(url)
    moves = _Moves.of(answer, entries)
    approval = _approval(environment, moves)
    report = _check_report(walk, url, manifest, moves, approval)
    _check_approval(walk, environment, manifest, report, approval)
    _check_production(walk, answer, entries)
    _check_ledger(walk, environment, moves.promoted, entries)
    return Receipt(answer.answer_id, answer.question, answer.text, tuple(walk.checks))


def _check_answer(walk: _Walk, answer: AnswerRecord) -> None:
    said = "refused to answer" if answer.refused else f"{len(answer.text)} characters"
    with walk.line("answer", f"{answer.answer_id}: {said}, {answer.created_at:%Y-%m-%d %H:%M:%S} UTC"):
        if answer.status != "complete":
            raise MissingInput(f"it is {answer.status}: nobody got a whole answer")


def _check_chunks(walk: _Walk, environment: Environment, answer: AnswerRecord) -> None:
    """Check that each cited chunk was in its document, and that its text gives its id."""
    cited = [chunk for chunk in answer.chunks if chunk.cited]
    if not cited:
        walk.checks.append(
            Check("chunks", "nothing is cited" + (", it is a refusal" if answer.refused else ""))
        )
        return
    root, at = environment.table_root(answer.assistant), answer.created_at
    chunks = _Rows(root, "chunks", "chunk_id", [chunk.chunk_id for chunk in cited], at)
    documents = _Rows(root, "documents", "document_id", [chunk.document_id for chunk in cited], at)
    for chunk in cited:
        detail = (
            f"{chunk.chunk_id} of document {chunk.document_id[:12]}, version {chunk.document_version[:12]}"
        )
        with walk.line("chunk", detail) as line:
            row = chunks.find(chunk.chunk_id, "document_version", chunk.document_version)
            _require_chunk(chunk, row)
            _require_document(
                chunk, row, documents.find(chunk.document_id, "version", chunk.document_version)
            )
            line.detail = f"{detail}: {row['source']}:{row['path']}"


def _require_chunk(chunk: AnswerChunk, row: dict[str, Any]) -> None:
    """Raise MissingInput unless a row's text gives the chunk's id."""
    path = _headings(row["heading_path"])
    if path is None or not any(
        chunk_id_of(row["chunker"], row["document_id"], path, row["text"], place) == chunk.chunk_id
        for place in range(_REPEATS)
    ):
        raise MissingInput("the stored text does not give the chunk's id: it was changed after it was cut")


def _headings(text: str) -> list[Any] | None:
    """Return the headings above a chunk; None for what ingestion never writes."""
    try:
        path = json.loads(text)
    except ValueError:
        return None
    return path if isinstance(path, list) else None


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
    with walk.line("release", answer.release_id) as line:
        manifest = read_manifest(url, answer.release_id)
        embedder = manifest.embedder.fingerprint[:12] if manifest.embedder else "none"
        line.detail = (
            f"{manifest.release_id}: code {manifest.code_digest[:12]}, prompt {manifest.prompt.text_hash[:12]}, "
            f"embedder {embedder}, index {manifest.index.generation if manifest.index else 'none'}"
        )
        return manifest
    return None


@dataclass(frozen=True)
class _Moves:
    """What brought a release to production: the newest entry that did, and the newest that promoted it."""

    release_id: str
    entry: LedgerEntry | None
    promoted: LedgerEntry | None

    @classmethod
    def of(cls, answer: AnswerRecord, entries: Sequence[LedgerEntry]) -> _Moves:
        """Find the entries about an answer's release."""
        about = (answer.assistant, "production", answer.release_id)
        moves = [e for e in reversed(entries) if (e.assistant, e.alias, e.to_release) == about]
        promotions = (e for e in moves if e.action == "promote")
        return cls(answer.release_id, next(iter(moves), None), next(promotions, None))


def _approval(environment: Environment, moves: _Moves) -> Statement | LlmopsError:
    """Return what the notary signed about the promotion of a release, or what is wrong with that."""
    try:
        if moves.entry is None:
            raise MissingInput("the ledger never had this release in production")
        promoted = require_promotion(moves.entry, moves.promoted, moves.release_id)
        return approval_behind(environment, promoted, environment.database_url.get_secret_value())
    except LlmopsError as error:
        return error


def _check_report(
    walk: _Walk, url: str, manifest: Manifest | None, moves: _Moves, approval: Statement | LlmopsError
) -> StoredReport | None:
    """Check the report that the approval names; where there is none, the one that the ledger names."""
    named = approval if isinstance(approval, Statement) else moves.promoted
    report_hash = named.report_hash if named else None
    with walk.line("gate report", report_hash or f"of release {moves.release_id[:12]}") as line:
        if report_hash is None:
            raise _rests_on("approval")
        report = read_report(url, report_hash)
        if manifest is None:
            raise _rests_on("release")
        require_pass_of(manifest, report)
        line.detail = f"{report_hash}: PASS, by the rules that the release pins"
        return report
    return None


def _check_approval(
    walk: _Walk,
    environment: Environment,
    manifest: Manifest | None,
    report: StoredReport | None,
    approval: Statement | LlmopsError,
) -> None:
    """Check the notary's signature, and the approver's own where the gate's rules ask for it."""
    with walk.line("approval", "of the release and the gate report") as line:
        if isinstance(approval, LlmopsError):
            raise approval
        line.detail = _signed_by(approval, own="")
        if manifest is None or report is None:
            raise _rests_on("gate report")
        require_own_signature(environment, manifest, approval, report)
        if approval.personal:
            line.detail = _signed_by(approval, own=f", signed by {approval.approver}'s own key")


def _signed_by(statement: Statement, own: str) -> str:
    return (
        f"by {statement.approver} ({statement.channel}) at {statement.answered_at:%Y-%m-%d %H:%M:%S} UTC, "
        f"signed by the notary{own}; authors {', '.join(statement.authors) or 'unknown'}"
    )


def _check_production(walk: _Walk, answer: AnswerRecord, entries: Sequence[LedgerEntry]) -> None:
    """Check that the release was in production when the answer was given."""
    with walk.line("production", f"at {answer.created_at:%Y-%m-%d %H:%M:%S} UTC") as line:
        entry = _entry_at(entries, answer)
        require_unedited(entry)
        line.detail = f"since entry {entry.entry}, {entry.action} by {entry.actor}: {entry.reason}"


def _check_ledger(
    walk: _Walk, environment: Environment, promoted: LedgerEntry | None, entries: Sequence[LedgerEntry]
) -> None:
    """Check that the ledger is what was written, and signed as far as the promotion of the release."""
    count = len(entries)
    at = f"entry {promoted.entry} of {count}, hash {promoted.hash[:12]}" if promoted else f"{count} entries"
    with walk.line("ledger", at) as line:
        found = check_ledger(entries, kept_heads(environment), environment.name, notary_keys(environment))
        if found.faults:
            first = found.faults[0]
            raise MissingInput(f"entry {first.entry}: {first.problem}; `llmops ledger verify` shows all")
        if promoted is None:
            raise _rests_on("approval")
        if found.signed < promoted.entry:
            raise MissingInput("the notary has not signed the ledger that far yet")
        line.detail = f"{at}, signed by the notary up to entry {found.signed}"


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
