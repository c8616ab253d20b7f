"""The blob of a signature (PROTOCOL.sshsig of OpenSSH, SIG_VERSION 1)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from llmops.signing._public import read_key
from llmops.signing._wire import Malformed, Reader, armour, dearmour, put_string, shown

_MAGIC = b"SSHSIG"
_LABEL = "SSH SIGNATURE"
_HASHES = {b"sha256": hashlib.sha256, b"sha512": hashlib.sha512}
_LARGEST = 64 * 1024  # characters; a signature of the longest RSA key has 6000


@dataclass(frozen=True)
class Envelope:
    """The blob between the BEGIN and END lines of a signature.

    ``reserved`` means nothing yet, but the key signs it.
    """

    key: bytes
    namespace: bytes
    reserved: bytes
    digest: bytes
    signature: bytes

    @classmethod
    def parse(cls, text: str) -> Envelope:
        """Return what the text holds; raise Malformed unless it is one whole signature."""
        if len(text) > _LARGEST:
            raise Malformed(f"it has {len(text)} characters")
        fields = Reader(dearmour(text, _LABEL))
        if fields.take(len(_MAGIC)) != _MAGIC:
            raise Malformed("it does not hold an SSH signature")
        if (version := fields.number()) != 1:
            raise Malformed(f"its version is {version}, not 1")
        envelope = cls(*(fields.string() for _ in range(5)))
        fields.end()
        if not envelope.namespace:
            raise Malformed("its namespace is empty")
        if envelope.digest not in _HASHES:
            raise Malformed(f"its hash algorithm {shown(envelope.digest)} is not sha256 or sha512")
        return envelope

    def signed_data(self, message: bytes) -> bytes:
        """Return what the key signs: every field but the key, and the digest of the message."""
        digest = _HASHES[self.digest](message).digest()
        return _MAGIC + b"".join(map(put_string, (self.namespace, self.reserved, self.digest, digest)))

    def armoured(self) -> str:
        """Return the text that ``parse`` reads."""
        fields = (self.key, self.namespace, self.reserved, self.digest, self.signature)
        return armour(_MAGIC + (1).to_bytes(4, "big") + b"".join(map(put_string, fields)), _LABEL)

    def check(self, message: bytes) -> None:
        """Raise Malformed or cryptography's InvalidSignature unless the key signed ``message``."""
        key, fields = read_key(self.key), Reader(self.signature)
        algorithm = fields.string()
        if algorithm not in key.algorithms:
            fitting = " or ".join(name.decode() for name in key.algorithms)
            raise Malformed(f"its signature algorithm {shown(algorithm)} is not {fitting}")
        key.verify(algorithm, fields, self.signed_data(message))
