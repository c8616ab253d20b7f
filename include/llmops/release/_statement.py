"""What the notary signs about an approval request, and what people sign themselves."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

from psycopg.rows import class_row
from pydantic import BaseModel, ConfigDict, ValidationError

from llmops.database import connect
from llmops.errors import ConfigurationError, NotApproved, SignatureInvalid
from llmops.manifest import canonical_json
from llmops.settings import Environment
from llmops.signing import AllowedSigners, SigningKey

log = logging.getLogger(__name__)

APPROVALS = "llmops-approval"
"""The namespace of the notary's signatures over statements."""

RELEASES = "llmops-release"
"""The namespace of a person's signature over a release id."""


@dataclass(frozen=True)
class Actor:
    """Who does something that the ledger remembers, and how the name is known."""

    name: str
    authentication: str


class PersonalSignature(BaseModel):
    """A person's own signature over a release id, in the format of ``ssh-keygen -Y sign``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    principal: str
    fingerprint: str
    signature: str


class Statement(BaseModel):
    """How one approval request ended: everything that the notary's signature covers.

    ``body_hash`` is the sha-256 of the text that was put before the approver. ``personal`` are the signatures of
    people that the decision rests on besides.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["approval"] = "approval"
    nonce: UUID
    assistant: str
    environment: str
    release_id: str
    report_hash: str
    body_hash: str | None
    decision: Literal["approved", "rejected"]
    approver: str | None
    authors: tuple[str, ...]
    trigger: str
    reason: str
    channel: Literal["airflow", "demo"]
    opened_at: datetime
    answered_at: datetime | None
    expires_at: datetime
    signed_at: datetime
    personal: tuple[PersonalSignature, ...] = ()

    def text(self) -> str:
        """Return the canonical JSON: what is signed."""
        return canonical_json(self.model_dump(mode="json"))


@dataclass(frozen=True)
class Approval:
    """The notary's record of how a request ended; only ``statement`` and ``signature`` are evidence."""

    nonce: UUID
    release_id: str
    report_hash: str
    decision: str
    approver: str | None
    reason: str
    channel: str
    environment: str
    answered_at: datetime | None
    expires_at: datetime
    recorded_at: datetime
    statement: str | None
    signature: str | None


def sign_statement(statement: Statement, key: SigningKey) -> str:
    """Return the notary's signature of a statement."""
    return key.sign(statement.text().encode(), APPROVALS)


def open_statement(approval: Approval, keys: AllowedSigners) -> Statement:
    """Return what the notary signed; raise SignatureInvalid unless it signed exactly what the record says."""
    where = f"the approval of request {approval.nonce} of release {approval.release_id[:12]}"
    if approval.statement is None or approval.signature is None:
        raise SignatureInvalid(f"{where} carries no signature of the notary: run release_assistant again")
    try:
        statement = Statement.model_validate_json(approval.statement)
    except ValidationError as error:
        raise SignatureInvalid(f"{where} is damaged ({error.errors()[0]['msg']}): do not use it") from error
    try:
        keys.verify(approval.statement.encode(), approval.signature, APPROVALS, statement.signed_at)
    except SignatureInvalid as error:
        raise SignatureInvalid(f"{where} is not the notary's: {error}") from error
    said = (*_identity(statement), statement.answered_at, statement.expires_at)
    if said != (*_identity(approval), approval.answered_at, approval.expires_at):
        raise SignatureInvalid(f"{where} differs from what the notary signed: somebody edited the record")
    return statement


def _identity(record: Statement | Approval) -> tuple[object, ...]:
    return (
        *(record.nonce, record.release_id, record.report_hash, record.decision, record.approver),
        *(record.reason, record.channel, record.environment),
    )


def notary_keys(environment: Environment) -> AllowedSigners:
    """Return the public keys of the notary, as this process's own configuration pins them."""
    return AllowedSigners.load(environment.notary_keys)


def reviewer_keys(environment: Environment) -> AllowedSigners:
    """Return the public keys of reviewers; raise ConfigurationError when there are none."""
    keys = _reviewer_keys(environment)
    if keys is None:
        raise ConfigurationError(
            f"environment {environment.name!r} has no keys of reviewers "
            f"({environment.reviewer_keys or 'reviewer_keys is not set'}): write one line per key, "
            '<name in Airflow> namespaces="llmops-release" <public key>, as ssh-keygen(1) says under ALLOWED SIGNERS'
        )
    return keys


def _reviewer_keys(environment: Environment) -> AllowedSigners | None:
    """Return the public keys of reviewers, None when no file or no line names one: then nobody signs as a person."""
    file = environment.reviewer_keys
    if file is None or not file.is_file():
        return None
    keys = AllowedSigners.load(file, may_be_empty=True)
    return keys if keys.signers else None


def sign_release(environment: Environment, release_id: str, key: SigningKey) -> PersonalSignature:
    """Sign a release id with a person's own key, store the signature and return it.

    Raises SignatureInvalid when the key is not among the environment's reviewer keys.
    """
    return store_signature(environment, release_id, key.sign(release_id.encode(), RELEASES))


def store_signature(environment: Environment, release_id: str, signature: str) -> PersonalSignature:
    """Store a signature over a release id, as ``ssh-keygen -Y sign`` writes it, and return whose it is.

    Raises SignatureInvalid when it is not one by a key among the environment's reviewer keys.
    """
    signer = reviewer_keys(environment).verify(release_id.encode(), signature, RELEASES, datetime.now(UTC))
    personal = PersonalSignature(
        principal=signer.principal, fingerprint=signer.fingerprint, signature=signature
    )
    with connect(environment.database_url.get_secret_value()) as connection:
        connection.execute(
            "INSERT INTO personal_signatures (release_id, fingerprint, principal, signature) "
            "VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (release_id, personal.fingerprint, personal.principal, personal.signature),
        )
    return personal


def owner_of_key(environment: Environment, key: SigningKey) -> Actor:
    """Return the person to whom a reviewer's key belongs; raise SignatureInvalid when it is nobody's."""
    now = datetime.now(UTC)
    challenge = f"{environment.name} {now.isoformat()}".encode()
    signer = reviewer_keys(environment).verify(challenge, key.sign(challenge, RELEASES), RELEASES, now)
    return Actor(signer.principal, f"SSH key {signer.fingerprint}")


def personal_signatures(environment: Environment, release_id: str) -> list[PersonalSignature]:
    """Return the signatures over a release that verify now against the reviewer keys; none without such keys.

    A stored signature that does not verify is as good as none: anybody may store one.
    """
    keys = _reviewer_keys(environment)
    if keys is None:
        return []
    with (
        connect(environment.database_url.get_secret_value()) as connection,
        connection.cursor(row_factory=class_row(_Stored)) as cursor,
    ):
        cursor.execute(
            "SELECT principal, fingerprint, signature FROM personal_signatures WHERE release_id = %s ORDER BY at",
            (release_id,),
        )
        stored = cursor.fetchall()
    verified = []
    for each in stored:
        try:
            signer = keys.verify(release_id.encode(), each.signature, RELEASES, datetime.now(UTC))
        except SignatureInvalid as error:
            log.info(
                "A stored signature of %r over release %s does not count: %s",
                each.principal,
                release_id,
                error,
            )
            continue
        verified.append(
            PersonalSignature(
                principal=signer.principal, fingerprint=signer.fingerprint, signature=each.signature
            )
        )
    return verified


@dataclass(frozen=True)
class _Stored:
    principal: str
    fingerprint: str
    signature: str


def require_personal(statement: Statement, keys: AllowedSigners) -> None:
    """Raise NotApproved unless the approver's own signature over the release is part of the approval, and verifies.

    Keys are checked as of the time at which the notary signed, so that a key that is replaced later does not take
    back what it approved.
    """
    problems: list[str] = []
    for personal in statement.personal:
        try:
            keys.verify(
                statement.release_id.encode(),
                personal.signature,
                RELEASES,
                statement.signed_at,
                principal=statement.approver,
            )
        except SignatureInvalid as error:
            problems.append(str(error))
        else:
            return
    raise NotApproved(
        f"the gate of release {statement.release_id[:12]} asks for {statement.approver}'s own signature, and "
        f"{'; '.join(problems) or 'there is none'}: `llmops release approve {statement.release_id[:12]} --key <file>`"
    )
