"""The ledger: every move of an alias and every decision, chained by hash, its heads signed by the notary."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb
from pydantic import BaseModel, ConfigDict, ValidationError

from llmops.database import Database, connect, connected
from llmops.errors import SignatureInvalid
from llmops.manifest import canonical_json
from llmops.signing import AllowedSigners, SigningKey

Alias = Literal["staging", "production"]
Move = Literal["stage", "promote", "roll back", "go back"]
Decision = Literal["approve", "reject", "refuse", "revoke"]

HEADS = "llmops-ledger"
"""The namespace of signatures over heads."""

_BEGINNING = "0" * 64
_UNSIGNED = timedelta(minutes=5)
"""How long a ledger may be without any signed head: the notary signs within seconds."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class LedgerEntry:
    """One line of the ledger: what happened to a release, by whom, why, and on what evidence.

    Moves name the alias and the releases it left and came to; decisions name no alias, and the release they are
    about as ``to_release``. ``authentication`` says how the actor's name is known. ``hash`` covers everything
    else, ``previous`` (the hash of the entry before) included.
    """

    entry: int
    assistant: str
    alias: str | None
    action: str
    from_release: str | None
    to_release: str | None
    actor: str
    reason: str
    report_hash: str | None
    approval_nonce: UUID | None
    at: datetime
    authentication: str
    previous: str
    hash: str

    def as_dict(self) -> dict[str, Any]:
        """Return the entry with times and ids as text."""
        return {k: str(v) if isinstance(v, datetime | UUID) else v for k, v in asdict(self).items()}

    def computed_hash(self) -> str:
        """Return the sha-256 of the entry's fields, each as ``<octets>:<text>`` and null as ``-``.

        The same as the database's function ``ledger_hash``; times count microseconds since 1970.
        """
        fields = (
            *(self.previous, str(self.entry), self.assistant, self.alias, self.action, self.from_release),
            *(self.to_release, self.actor, self.authentication, self.reason, self.report_hash),
            *(str(self.approval_nonce) if self.approval_nonce else None, str(_microseconds(self.at))),
        )
        return hashlib.sha256("".join(map(_field, fields)).encode()).hexdigest()


@dataclass(frozen=True)
class NewEntry:
    """What somebody wants to enter; the database adds number, time and hashes."""

    assistant: str
    action: Move | Decision
    actor: str
    reason: str
    alias: Alias | None = None
    from_release: str | None = None
    to_release: str | None = None
    authentication: str = ""
    report_hash: str | None = None
    approval_nonce: UUID | None = None


class Head(BaseModel):
    """What the notary signs of the ledger: how long it was and how it ended."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["ledger head"] = "ledger head"
    environment: str
    entry: int
    hash: str
    signed_at: datetime


@dataclass(frozen=True)
class SignedHead:
    """A head with its signature, as it is stored and copied."""

    entry: int
    statement: str
    signature: str


@dataclass(frozen=True)
class LedgerFault:
    """One thing that is wrong with the ledger; ``entry`` is where."""

    entry: int
    problem: str


@dataclass(frozen=True)
class LedgerCheck:
    """What a verification found: how far the ledger goes, how far a signature covers it, and what is wrong."""

    entries: int
    signed: int
    heads: int
    faults: tuple[LedgerFault, ...]


def append_entry(connection: psycopg.Connection, new: NewEntry) -> LedgerEntry:
    """Append to the ledger within the caller's transaction and return the entry.

    The database refuses (InsufficientPrivilege) what this process's role may not enter, a promotion without the
    notary's approval, a return to a release that never was in production, and anything about a revoked one.
    """
    values = {key: str(v) if isinstance(v, UUID) else v for key, v in asdict(new).items()}
    with connection.cursor(row_factory=class_row(LedgerEntry)) as cursor:
        cursor.execute("SELECT * FROM append_ledger_entry(%s)", (Jsonb(values),))
        made = cursor.fetchone()
    assert made is not None
    return made


def ledger(url: str, assistant: str | None = None, alias: Alias | None = None) -> list[LedgerEntry]:
    """Return the entries, oldest first: all of them, of one assistant, or of one of its aliases."""
    with connect(url) as connection, connection.cursor(row_factory=class_row(LedgerEntry)) as cursor:
        cursor.execute(
            "SELECT * FROM release_ledger WHERE (%(a)s::text IS NULL OR assistant = %(a)s) "
            "AND (%(alias)s::text IS NULL OR alias = %(alias)s) ORDER BY entry",
            {"a": assistant, "alias": alias},
        )
        return cursor.fetchall()


def current_release(
    connection: psycopg.Connection, assistant: str, alias: Alias, at: datetime | None = None
) -> str | None:
    """Return the release that the ledger says an alias is at, or was at a time; None when at none."""
    row = connection.execute(
        "SELECT to_release FROM release_ledger WHERE assistant = %s AND alias = %s "
        "AND at <= coalesce(%s::timestamptz, 'infinity') ORDER BY entry DESC LIMIT 1",
        (assistant, alias, at),
    ).fetchone()
    return str(row[0]) if row and row[0] else None


def newest_move(
    database: Database, assistant: str, alias: Alias, *, action: Move | None = None, to: str | None = None
) -> LedgerEntry | None:
    """Return the newest entry about an alias, or the newest of one action, or to one release; None without one."""
    with connected(database) as connection, connection.cursor(row_factory=class_row(LedgerEntry)) as cursor:
        cursor.execute(
            "SELECT * FROM release_ledger WHERE assistant = %(assistant)s AND alias = %(alias)s "
            "AND (%(action)s::text IS NULL OR action = %(action)s) AND (%(to)s::text IS NULL OR to_release = %(to)s) "
            "ORDER BY entry DESC LIMIT 1",
            {"assistant": assistant, "alias": alias, "action": action, "to": to},
        )
        return cursor.fetchone()


def is_revoked(connection: psycopg.Connection, release_id: str) -> bool:
    """Return whether somebody revoked a release; that is for ever."""
    row = connection.execute(
        "SELECT 1 FROM release_ledger WHERE to_release = %s AND action = 'revoke' LIMIT 1", (release_id,)
    ).fetchone()
    return row is not None


def sign_head(environment: str, entry: LedgerEntry, key: SigningKey) -> SignedHead:
    """Return the signed head of a ledger that ends with ``entry``."""
    head = Head(environment=environment, entry=entry.entry, hash=entry.hash, signed_at=datetime.now(UTC))
    statement = canonical_json(head.model_dump(mode="json"))
    return SignedHead(entry.entry, statement, key.sign(statement.encode(), HEADS))


def open_head(signed: SignedHead, environment: str, keys: AllowedSigners) -> Head:
    """Return what a signed head says; raise SignatureInvalid unless the notary of this environment signed it."""
    try:
        head = Head.model_validate_json(signed.statement)
    except ValidationError as error:
        raise SignatureInvalid(
            f"the head of entry {signed.entry} cannot be read: {error.errors()[0]['msg']}"
        ) from None
    keys.verify(signed.statement.encode(), signed.signature, HEADS, head.signed_at)
    if head.environment != environment or head.entry != signed.entry:
        raise SignatureInvalid(
            f"the head stored for entry {signed.entry} of {environment!r} is that of entry {head.entry} of "
            f"{head.environment!r}"
        )
    return head


def signed_heads(url: str) -> list[SignedHead]:
    """Return the heads in the database, oldest first."""
    with connect(url) as connection, connection.cursor(row_factory=class_row(SignedHead)) as cursor:
        cursor.execute("SELECT entry, statement, signature FROM ledger_heads ORDER BY entry")
        return cursor.fetchall()


def check_ledger(
    entries: Sequence[LedgerEntry], heads: Iterable[SignedHead], environment: str, keys: AllowedSigners
) -> LedgerCheck:
    """Return what is wrong with a ledger, located: edits, deletions, changed order, rewriting, a cut tail.

    Links are checked against each other, and hashes against every head that the notary ever signed, wherever a copy
    of it was kept: whoever recomputes the whole chain, or cuts its end, cannot sign heads that fit.
    """
    faults = _broken_links(entries)
    hashes = {entry.entry: entry.hash for entry in entries}
    last = entries[-1].entry if entries else 0
    signed = count = 0
    for copy in {(head.entry, head.statement): head for head in heads}.values():
        count += 1
        try:
            head = open_head(copy, environment, keys)
        except SignatureInvalid as error:
            faults.append(LedgerFault(copy.entry, f"a head of it is not the notary's: {error}"))
            continue
        signed = max(signed, head.entry)
        if head.entry > last:
            faults.append(
                LedgerFault(
                    last + 1,
                    f"the ledger ends at {last}, but the notary signed it up to {head.entry}: cut off",
                )
            )
        elif hashes.get(head.entry) not in (None, head.hash):
            faults.append(
                LedgerFault(
                    head.entry, f"the notary signed hash {head.hash[:12]} here: rewritten up to this entry"
                )
            )
    if entries and not signed and entries[0].at < datetime.now(UTC) - _UNSIGNED:
        faults.append(LedgerFault(last, "the notary has signed nothing of it, or every head is gone"))
    return LedgerCheck(
        len(entries), signed, count, tuple(sorted(set(faults), key=lambda f: (f.entry, f.problem)))
    )


def _broken_links(entries: Sequence[LedgerEntry]) -> list[LedgerFault]:
    faults = []
    number, before = 0, _BEGINNING
    for entry in entries:
        if entry.entry != number + 1:
            what = (
                f"entries {number + 1} to {entry.entry - 1} are gone"
                if entry.entry > number
                else "out of order"
            )
            faults.append(LedgerFault(number + 1, what))
        elif entry.previous != before:
            faults.append(
                LedgerFault(entry.entry, "does not follow from the entry before: one of the two was replaced")
            )
        if entry.computed_hash() != entry.hash:
            faults.append(LedgerFault(entry.entry, "was edited: its content does not give its hash"))
        number, before = entry.entry, entry.hash
    return faults


def _field(text: str | None) -> str:
    return "-" if text is None else f"{len(text.encode())}:{text}"


def _microseconds(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)


def parse_head(text: str) -> SignedHead:
    """Return the head in a copy that ``dump_head`` made; raise SignatureInvalid when it is none."""
    try:
        values = json.loads(text)
        return SignedHead(int(values["entry"]), str(values["statement"]), str(values["signature"]))
    except (ValueError, KeyError, TypeError) as error:
        raise SignatureInvalid(f"a copy of a ledger head cannot be read: {error!r}") from error


def dump_head(head: SignedHead) -> str:
    """Return a head as one line of JSON."""
    return canonical_json(asdict(head))
