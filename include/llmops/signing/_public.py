"""Public keys: the kinds whose signatures are accepted, and how each checks one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from llmops.signing._wire import Malformed, Reader, shown

if TYPE_CHECKING:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

_USER_PRESENT = 0x01
_RSA_BITS = range(2048, 16384 + 1)


class PublicKey(Protocol):
    """A key that checks signatures; ``algorithms`` are the names of those that it can make."""

    @property
    def algorithms(self) -> tuple[bytes, ...]: ...

    def verify(self, algorithm: bytes, signature: Reader, data: bytes) -> None:
        """Raise Malformed, or cryptography's InvalidSignature, unless ``signature`` is one of ``data``."""


@dataclass(frozen=True)
class _Ed25519:
    """RFC 8709."""

    public: ed25519.Ed25519PublicKey
    algorithms: tuple[bytes, ...]

    @classmethod
    def read(cls, kind: bytes, fields: Reader) -> _Ed25519:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        return cls(Ed25519PublicKey.from_public_bytes(fields.string()), (kind,))

    def verify(self, algorithm: bytes, signature: Reader, data: bytes) -> None:
        value = signature.string()
        signature.end()
        self.public.verify(value, data)


@dataclass(frozen=True)
class _HardwareEd25519:
    """PROTOCOL.u2f: the token signs digests, a counter, and whether a person touched it."""

    public: ed25519.Ed25519PublicKey
    application: bytes
    algorithms: tuple[bytes, ...]

    @classmethod
    def read(cls, kind: bytes, fields: Reader) -> _HardwareEd25519:
        plain = _Ed25519.read(kind, fields)
        return cls(plain.public, fields.string(), plain.algorithms)

    def verify(self, algorithm: bytes, signature: Reader, data: bytes) -> None:
        value, state = signature.string(), signature.take(5)  # flags, and the counter as uint32
        signature.end()
        if not state[0] & _USER_PRESENT:
            raise Malformed("the hardware key says that nobody touched it")
        digests = hashlib.sha256(self.application).digest(), hashlib.sha256(data).digest()
        self.public.verify(value, digests[0] + state + digests[1])


@dataclass(frozen=True)
class _Ecdsa:
    """RFC 5656."""

    public: ec.EllipticCurvePublicKey
    digest: hashes.HashAlgorithm
    algorithms: tuple[bytes, ...]

    @classmethod
    def read(cls, kind: bytes, fields: Reader) -> _Ecdsa:
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

        name, point = fields.string(), fields.string()
        if kind != b"ecdsa-sha2-" + name or point[:1] != b"\x04":
            raise Malformed(f"its curve {shown(name)} is not that of its kind, or its point is compressed")
        curve, digest = curve_and_hash(name.decode())
        return cls(EllipticCurvePublicKey.from_encoded_point(curve, point), digest, (kind,))

    def verify(self, algorithm: bytes, signature: Reader, data: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec, utils

        numbers = Reader(signature.string())
        signature.end()
        der = utils.encode_dss_signature(numbers.mpint(), numbers.mpint())
        numbers.end()
        self.public.verify(der, data, ec.ECDSA(self.digest))


@dataclass(frozen=True)
class _Rsa:
    """RFC 8332: SHA-2 only; ``ssh-rsa`` as the name of an algorithm means SHA-1."""

    public: rsa.RSAPublicKey
    algorithms: ClassVar[tuple[bytes, ...]] = (b"rsa-sha2-512", b"rsa-sha2-256")

    @classmethod
    def read(cls, kind: bytes, fields: Reader) -> _Rsa:
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

        exponent, modulus = fields.mpint(), fields.mpint()
        if modulus.bit_length() not in _RSA_BITS:
            raise Malformed(f"an RSA key has {_RSA_BITS[0]} to {_RSA_BITS[-1]} bits")
        if not modulus % 2 or exponent.bit_length() > 64:  # OpenSSL fails on these in its own ways
            raise Malformed("its numbers are not those of an RSA key")
        return cls(RSAPublicNumbers(exponent, modulus).public_key())

    def verify(self, algorithm: bytes, signature: Reader, data: bytes) -> None:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding

        value = signature.string()
        signature.end()
        digest = hashes.SHA512() if algorithm == b"rsa-sha2-512" else hashes.SHA256()
        self.public.verify(value, data, padding.PKCS1v15(), digest)


_KINDS: dict[bytes, Callable[[bytes, Reader], PublicKey]] = {
    b"ssh-ed25519": _Ed25519.read,
    b"ecdsa-sha2-nistp256": _Ecdsa.read,
    b"ecdsa-sha2-nistp384": _Ecdsa.read,
    b"ecdsa-sha2-nistp521": _Ecdsa.read,
    b"ssh-rsa": _Rsa.read,
    b"sk-ssh-ed25519@openssh.com": _HardwareEd25519.read,
}
SIGNING_KINDS = _KINDS.keys() - {b"sk-ssh-ed25519@openssh.com"}


def curve_and_hash(name: str) -> tuple[ec.EllipticCurve, hashes.HashAlgorithm]:
    """Return the curve that SSH calls ``name``, and the hash that it is signed with."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    return {
        "nistp256": (ec.SECP256R1(), hashes.SHA256()),
        "nistp384": (ec.SECP384R1(), hashes.SHA384()),
        "nistp521": (ec.SECP521R1(), hashes.SHA512()),
    }[name]


def read_key(blob: bytes) -> PublicKey:
    """Return the public key in SSH's encoding; raise Malformed unless it is one that is accepted."""
    fields = Reader(blob)
    kind = fields.string()
    if kind not in _KINDS:
        raise Malformed(f"keys of kind {shown(kind)} are not supported, only {names(_KINDS)}")
    try:
        key = _KINDS[kind](kind, fields)
    except Malformed:
        raise
    except ValueError as error:  # from cryptography: a length, a point off its curve, a wrong exponent
        raise Malformed(f"it is not a key of kind {shown(kind)}: {error}") from error
    fields.end()
    return key


def names(kinds: Iterable[bytes]) -> str:
    """Return kinds of keys for a message."""
    return ", ".join(sorted(kind.decode() for kind in kinds))
