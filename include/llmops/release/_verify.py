"""What must hold before a release answers anybody: its artifacts, its index, its code, and the trust it rests on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from llmops.database import Database, connect, connected
from llmops.embedding import Embedder
from llmops.errors import EmbedderMismatch, IntegrityError, MissingInput, NotApproved
from llmops.index import generations
from llmops.manifest import Manifest
from llmops.release._approval import approval_of, gate_settings, require_pass_of, require_scope
from llmops.release._assemble import registry_of
from llmops.release._code import code_digest
from llmops.release._ledger import LedgerEntry, is_revoked, newest_move
from llmops.release._statement import Statement, notary_keys, open_statement, require_personal, reviewer_keys
from llmops.release._store import StoredReport, read_report
from llmops.settings import Environment

LIVE = timedelta(seconds=20)
"""A replica that was heard of within this time is live."""


@dataclass(frozen=True)
class Evidence:
    """Why a release may answer: the entry that made it production, the one that first did, approval and report."""

    entry: LedgerEntry
    promoted: LedgerEntry
    statement: Statement
    report: StoredReport


@dataclass(frozen=True)
class Replica:
    """One process of the service: the release and code that it answers with, and where it alone can be asked."""

    name: str
    release_id: str
    code_digest: str
    address: str | None


def evidence_for(
    environment: Environment, manifest: Manifest, entry: LedgerEntry, database: Database | None = None
) -> Evidence:
    """Return why a release that the ledger names may answer; raise an error that says what is missing.

    ``entry`` is the ledger's newest about ``production``; ``database`` a connection to use. Raises IntegrityError
    for a ledger, report or approval that was changed, SignatureInvalid for an approval that the notary did not
    sign, NotApproved for one of something else.
    """
    database = database or environment.database_url.get_secret_value()
    promoted = newest_move(
        database, manifest.assistant, "production", action="promote", to=manifest.release_id
    )
    promoted = require_promotion(entry, promoted, manifest.release_id)
    statement = approval_behind(environment, promoted, database)
    report = read_report(database, statement.report_hash)
    require_pass_of(manifest, report)
    require_own_signature(environment, manifest, statement, report)
    return Evidence(entry, promoted, statement, report)


def require_promotion(entry: LedgerEntry, promoted: LedgerEntry | None, release_id: str) -> LedgerEntry:
    """Return the entry that promoted a release; raise NotApproved without one, IntegrityError for an edited one.

    ``entry`` is the newest that brought the release to production, ``promoted`` the newest that promoted it.
    """
    if promoted is None or promoted.approval_nonce is None or entry.to_release != release_id:
        raise NotApproved(
            f"release {release_id[:12]} never was promoted with an approval: run release_assistant"
        )
    for each in (entry, promoted):
        require_unedited(each)
    return promoted


def require_unedited(entry: LedgerEntry) -> None:
    """Raise IntegrityError for an entry of the ledger whose content does not give its hash."""
    if entry.computed_hash() != entry.hash:
        raise IntegrityError(
            f"ledger entry {entry.entry} was edited after it was made: nothing is served on it; "
            "`llmops ledger verify` shows what changed"
        )


def approval_behind(environment: Environment, promoted: LedgerEntry, database: Database) -> Statement:
    """Return what the notary signed about the promotion that an entry of the ledger made.

    Whether the approver's own signature is needed as well is said by the gate report: ``require_own_signature``.
    Raises NotApproved without an approval or for one of something else, SignatureInvalid for one that the notary did
    not sign.
    """
    assert promoted.approval_nonce is not None
    assert promoted.to_release is not None
    approval = approval_of(database, promoted.approval_nonce)
    if approval is None:
        raise NotApproved(f"the approval that ledger entry {promoted.entry} names is gone: release again")
    statement = open_statement(approval, notary_keys(environment))
    if statement.decision != "approved" or statement.release_id != promoted.to_release:
        raise NotApproved(
            f"ledger entry {promoted.entry} promotes release {promoted.to_release[:12]}, but its approval says "
            f"{statement.decision!r} of release {statement.release_id[:12]}"
        )
    require_scope(statement, environment, promoted.assistant)
    return statement


def require_not_revoked(database: Database, release_id: str) -> None:
    """Raise NotApproved for a release that somebody revoked."""
    with connected(database) as connection:
        if is_revoked(connection, release_id):
            raise NotApproved(
                f"release {release_id[:12]} is revoked and never answers (again): choose another one"
            )


def require_own_signature(
    environment: Environment, manifest: Manifest, statement: Statement, report: StoredReport
) -> None:
    """Raise NotApproved when the gate asks for the approver's own signature and there is none that verifies."""
    if gate_settings(manifest, report).get("approval") == "personal":
        require_personal(statement, reviewer_keys(environment))


def require_artifacts(environment: Environment, manifest: Manifest) -> None:
    """Raise IntegrityError unless every artifact is what the manifest pins; nothing of them is deserialised.

    Prompt and model files are fetched anew from the registry, so that a change there is found even where a good copy is
    cached, and the local copy is checked as well.
    """
    registry = registry_of(environment, manifest.assistant)
    registry.verify_prompt(manifest.prompt)
    registry.prompt_text(manifest.prompt)
    if manifest.embedder is not None:
        registry.verify(manifest.embedder)
        registry.fetch(manifest.embedder)
    require_generation(environment, manifest)


def require_generation(environment: Environment, manifest: Manifest) -> None:
    """Raise MissingInput or EmbedderMismatch unless the index generation is there, made by the release's embedder."""
    if manifest.index is None or manifest.embedder is None:
        return
    url = environment.database_url.get_secret_value()
    found = {g.id: g for g in generations(url, manifest.assistant)}.get(manifest.index.generation)
    if found is None or found.state == "retired":
        raise MissingInput(
            f"release {manifest.release_id[:12]} answers from index generation {manifest.index.generation!r}, which "
            "is not there (any more): run release_assistant, which builds it again"
        )
    chunker = str(manifest.index.chunker["digest"])
    if (found.fingerprint, found.chunker) != (manifest.embedder.fingerprint, chunker):
        raise EmbedderMismatch(
            f"release {manifest.release_id[:12]} pairs index generation {found.id!r} (embedder "
            f"{found.fingerprint[:12]}, chunker {found.chunker[:12]}) with embedder "
            f"{manifest.embedder.fingerprint[:12]}, chunker {chunker[:12]}: assemble it again"
        )


def require_matching(embedder: Embedder, manifest: Manifest) -> None:
    """Raise EmbedderMismatch unless a loaded embedder computes what the manifest's pin says."""
    if manifest.embedder is not None and embedder.fingerprint != manifest.embedder.fingerprint:
        raise EmbedderMismatch(
            f"release {manifest.release_id[:12]} pins embedder {manifest.embedder.fingerprint[:12]}, its files compute "
            f"as {embedder.fingerprint[:12]}: assemble it again"
        )


def require_code(url: str, manifest: Manifest) -> None:
    """Refuse before the alias moves when a live replica, or this process, runs other code than was judged."""
    others = {r.name for r in replicas(url, manifest.assistant) if r.code_digest != manifest.code_digest}
    if code_digest() != manifest.code_digest:
        others.add("this worker")
    if others:
        raise NotApproved(
            f"release {manifest.release_id[:12]} was judged with code {manifest.code_digest[:12]}, but "
            f"{', '.join(sorted(others))} run(s) other code: roll out the image first, then promote"
        )


def require_clean(environment: Environment, manifest: Manifest) -> None:
    """Raise NotApproved for a release of another environment, or one of uncommitted code outside ``dev``."""
    if manifest.environment != environment.name:
        raise NotApproved(
            f"release {manifest.release_id[:12]} was made for environment {manifest.environment!r}, "
            f"this is {environment.name!r}"
        )
    if manifest.dirty and environment.name != "dev":
        raise NotApproved(
            f"release {manifest.release_id[:12]} was made from uncommitted code: commit, release again"
        )


def replicas(url: str, assistant: str) -> list[Replica]:
    """Return the live replicas of the service that answer for an assistant."""
    with connect(url) as connection:
        rows = connection.execute(
            "SELECT replica_id, release_id, code_digest, address FROM replicas "
            "WHERE assistant = %s AND seen_at > now() - %s ORDER BY replica_id",
            (assistant, LIVE),
        ).fetchall()
    return [Replica(*row) for row in rows]
