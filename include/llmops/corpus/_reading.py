"""Reading one shard of the sources: what is new or changed is parsed, in a sandbox, and staged."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmops.corpus._files import MAX_BYTES, SourceFile
from llmops.corpus._parsing import media_type_of, parsers_digest
from llmops.corpus._problems import Unreadable
from llmops.corpus._rules import rules_of
from llmops.corpus._sandbox import Sandbox
from llmops.corpus._staging import Plan, ShardWriter, SourceState
from llmops.corpus._tables import DOCUMENTS, QUARANTINE, document_id
from llmops.errors import LlmopsError, MissingInput, TransientError
from llmops.lakehouse import LakeTable
from llmops.manifest import canonical_json
from llmops.quality import QualityRules

if TYPE_CHECKING:
    from llmops.corpus._sources import AnySource

__all__ = ["read_shard"]

log = logging.getLogger(__name__)

_MAY_PASS_LATER = ("timeout", "memory", "crashed")
_RULES = 1
"""Raise it when the same text would be screened or measured differently: every document is then read anew."""

_TRIES = 3
"""A file whose parser ran into a limit is tried on so many runs: the machine may have been busy."""


def read_shard(
    sources: Sequence[AnySource], quality: QualityRules, *, staging: Path, shard: int, table_root: str
) -> tuple[SourceState, ...]:
    """Read one shard of every source and stage what was found; nothing else changes.

    What is unchanged since the run's base version is neither parsed nor staged again. A source that fails
    keeps the documents it has. Returns what became of each source; raises the source's own error when none
    could be read.
    """
    plan = Plan.load(staging)
    held = _Held.load(table_root, plan.base)
    states: list[SourceState] = []
    errors: list[LlmopsError | OSError] = []
    with Sandbox() as sandbox, ShardWriter(staging, shard) as writer:
        for source in sources:
            if not _reads(source, shard, plan.shards):
                continue
            try:
                state = _Reading(source, rules_of(source, quality), plan, shard, held, sandbox, writer).run()
            except (LlmopsError, OSError) as error:
                log.warning("Source %s was not read, its documents stay as they are: %s", source.name, error)
                errors.append(error)
                state = SourceState(source.name, "failed", error=str(error))
            states.append(state)
            writer.state(state)
    _check(states, errors)
    return tuple(states)


def _check(states: list[SourceState], errors: list[LlmopsError | OSError]) -> None:
    """Raise when nothing was read at all, which must not look like an empty corpus."""
    active = [state for state in states if state.status != "paused"]
    if not errors or len(errors) < len(active):
        return
    if len(errors) == 1:
        raise errors[0]
    kind = TransientError if any(isinstance(error, TransientError) for error in errors) else MissingInput
    raise kind("none of the sources could be read: " + "; ".join(map(str, errors)))


def _reads(source: AnySource, shard: int, shards: int) -> bool:
    """Return whether a shard has to do with a source; one that cannot be divided is read by one shard."""
    return source.divisible or int(document_id(source.name, "")[:12], 16) % shards == shard


@dataclass(frozen=True)
class _Held:
    """What the tables know of every file: enough to tell whether it has to be read again."""

    documents: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    refused: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, table_root: str, base: int | None) -> _Held:
        documents: dict[str, tuple[Any, ...]] = {}
        if base is not None:
            columns = ["document_id", "content_digest", "source_date", "metadata", "access"]
            rows = LakeTable(table_root, DOCUMENTS).read(columns, base)
            for key, *rest in zip(*(column.to_pylist() for column in rows.columns), strict=True):
                documents[key] = tuple(rest)
        table = LakeTable(table_root, QUARANTINE)
        refused = table.read().to_pylist() if table.exists() else []
        return cls(documents, {row["document_id"]: row for row in refused})


@dataclass(frozen=True)
class _Pending:
    """A file whose content is being parsed."""

    file: SourceFile
    document_id: str
    digest: str


@dataclass(frozen=True)
class _Reading:
    """One source on its way into one shard."""

    source: AnySource
    rules: QualityRules
    plan: Plan
    shard: int
    held: _Held
    sandbox: Sandbox
    writer: ShardWriter

    def run(self) -> SourceState:
        """Read the source; whatever it raises leaves its rows without effect."""
        source = self.source
        if source.paused:
            return SourceState(source.name, "paused")
        snapshot = source.discover(self.plan.as_of, pin=self.plan.pins.get(source.name), sandbox=self.sandbox)
        for pending, outcome in self.sandbox.map("document", self._jobs(snapshot)):
            if isinstance(outcome, Unreadable):
                self._refuse(pending, outcome, tried=True)
            else:
                self._accept(pending, outcome)
        return SourceState(source.name, "read", snapshot.date, dated=snapshot.dated)

    def _jobs(self, files: Iterator[SourceFile] | Any) -> Iterator[tuple[_Pending, tuple[Any, ...]]]:
        """Yield what has to be parsed; stage the rest as it is."""
        for file in files:
            key = document_id(self.source.name, file.path)
            if self.source.divisible and int(key[:12], 16) % self.plan.shards != self.shard:
                continue
            if (read := self._content(file, key)) is not None:
                yield read

    def _content(self, file: SourceFile, key: str) -> tuple[_Pending, tuple[Any, ...]] | None:
        """Return a file's content with what parses it; None when it is known or cannot be had."""
        try:
            media_type_of(file.path, file.media_type)
            if file.revision and not file.problem:
                pending = _Pending(file, key, self._digest(file, f"revision {file.revision}"))
                if self._is_known(pending):
                    return None
                content = _content_of(file)
            else:
                content = _content_of(file)
                pending = _Pending(file, key, self._digest(file, hashlib.sha256(content).hexdigest()))
                if self._is_known(pending):
                    return None
        except Unreadable as error:
            self._refuse(_Pending(file, key, self._digest(file, f"{file.size} {error}")), error, tried=False)
            return None
        return pending, (file.path, file.media_type, content, file.title, self._sensitive)

    def _digest(self, file: SourceFile, content: str) -> str:
        """Return the digest of a content and of everything else that decides what becomes of it."""
        decided = f"{self._reads_with}\0{file.media_type}\0{file.title}\0{content}"
        return hashlib.sha256(decided.encode()).hexdigest()

    @cached_property
    def _sensitive(self) -> dict[str, Any]:
        return self.rules.sensitive.model_dump(mode="json")

    @cached_property
    def _reads_with(self) -> str:
        """What decides, beside a file's bytes, what its document is."""
        return canonical_json([_RULES, parsers_digest(), self._sensitive])

    def _is_known(self, pending: _Pending) -> bool:
        """Stage a file as it was before, if that is what it still is."""
        if self.held.documents.get(pending.document_id) == (pending.digest, *self._attributes(pending.file)):
            self._present(pending, "unchanged")
            return True
        row = self.held.refused.get(pending.document_id)
        if row is None or row["content_digest"] != pending.digest or row["problem"] == "repeated":
            return False
        if row["problem"] in _MAY_PASS_LATER and row["tries"] < _TRIES:
            return False
        self._refuse(pending, Unreadable(row["reason"], row["problem"]), tried=False)
        return True

    def _attributes(self, file: SourceFile) -> tuple[datetime | None, str, str]:
        metadata, access = self._own
        if file.metadata:
            metadata = canonical_json({**self.source.metadata, **file.metadata})
        return file.source_date, metadata, access

    @cached_property
    def _own(self) -> tuple[str, str]:
        """The source's own metadata and access tags, as columns."""
        source = self.source
        return canonical_json(source.metadata), canonical_json(sorted(set(source.access)))

    def _accept(self, pending: _Pending, columns: dict[str, Any]) -> None:
        date, metadata, access = self._attributes(pending.file)
        row = {
            **columns,
            "document_id": pending.document_id,
            "source": self.source.name,
            "path": pending.file.path,
            "source_date": date,
            "metadata": metadata,
            "access": access,
            "content_digest": pending.digest,
            "warnings": canonical_json(columns["warnings"]),
            "sensitive": canonical_json(columns["sensitive"]),
        }
        self.writer.add("documents", row)
        self._present(pending, "changed")

    def _refuse(self, pending: _Pending, error: Unreadable, *, tried: bool) -> None:
        log.log(
            logging.DEBUG if error.problem == "unsupported" else logging.WARNING,
            "Quarantined %s of source %s: %s", pending.file.path, self.source.name, error,
        )  # fmt: skip
        row = {
            "document_id": pending.document_id,
            "source": self.source.name,
            "path": pending.file.path,
            "problem": error.problem,
            "reason": str(error),
            "content_digest": pending.digest,
            "count": int(tried),
            "tries": int(tried),
        }
        self.writer.add("quarantine", row)
        self._present(pending, "refused")

    def _present(self, pending: _Pending, state: str) -> None:
        row = {
            "source": self.source.name,
            "document_id": pending.document_id,
            "content_digest": pending.digest,
            "state": state,
        }
        self.writer.add("present", row)


def _content_of(file: SourceFile) -> bytes:
    if file.size > MAX_BYTES:
        raise Unreadable(
            f"it has {file.size:,} bytes, more than the {MAX_BYTES:,} a document may have: split it",
            "too_large",
        )
    if file.problem:
        raise Unreadable(file.problem, "refused")
    try:
        return file.read()
    except OSError as error:
        raise Unreadable(f"it cannot be read: {error.strerror or error}") from error
