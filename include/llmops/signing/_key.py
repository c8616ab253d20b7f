"""Private keys: made, opened, kept and signed with."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from llmops.errors import ConfigurationError
from llmops.signing._envelope import Envelope
from llmops.signing._public import SIGNING_KINDS, curve_and_hash, names, read_key
from llmops.signing._wire import (
    Malformed,
    Reader,
    armour,
    dearmour,
    decode_base64,
    fingerprint,
    put_mpint,
    put_string,
    shown,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    _Private = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_LABEL = "OPENSSH PRIVATE KEY"
_MAGIC = b"openssh-key-v1\0"


class SigningKey:
    """A private key, ours or a reviewer's: Ed25519, ECDSA (NIST curves) or RSA of at least 2048 bits."""

    def __init__(self, private: _Private) -> None:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        line = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        self._private = private
        self._line = line.decode()
        self._blob = decode_base64(self._line.split()[1])

    @classmethod
    def generate(cls) -> SigningKey:
        """Return a new Ed25519 key."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, file: Path, passphrase: Callable[[], bytes] | None = None) -> SigningKey:
        """Return the key in ``file``, OpenSSH's private key format; ask for a passphrase only if it has one.

        Raises ConfigurationError when the file is missing, is not such a key or is of a kind that we do
        not sign with, and when it is encrypted and ``passphrase`` is None or gives the wrong one.
        """
        try:
            data = file.read_bytes()
        except OSError as error:
            raise ConfigurationError(
                f"the signing key {str(file)!r} cannot be read ({error.strerror}): correct the path, or make "
                "a key with `ssh-keygen -t ed25519`"
            ) from error
        try:
            encrypted = _private_key_is_encrypted(data)
        except ValueError as error:
            raise ConfigurationError(
                f"{str(file)!r} is not a private key that this product signs with ({error}): make one with "
                "`ssh-keygen -t ed25519`; `ssh-keygen -p -f FILE` rewrites one of an older format"
            ) from error
        if encrypted and passphrase is None:
            raise ConfigurationError(
                f"the signing key {str(file)!r} is encrypted and nobody is here to give its passphrase: use "
                "it where you can type, or name a key without one"
            )
        return cls(_open(file, data, passphrase() if encrypted and passphrase else None))

    def save(self, file: Path, comment: str) -> None:
        """Write the key, not encrypted, for its owner alone; raise ConfigurationError if ``file`` exists."""
        if not comment.isprintable():
            raise ConfigurationError(f"the comment {comment!r} of a signing key must be one line of text")
        text = armour(self._private_blob(comment.encode()), _LABEL)
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(descriptor, "w", encoding="ascii") as stream:
                    stream.write(text)
                    stream.flush()
                    os.fsync(stream.fileno())
                _sync_folder(file.parent)
            except OSError:
                file.unlink()
                raise
        except OSError as error:
            raise ConfigurationError(
                f"the signing key cannot be written to {str(file)!r} ({error.strerror}): name a file that "
                "does not exist yet, in a folder that does; a key is never overwritten"
            ) from error

    @property
    def public_line(self) -> str:
        """Return the kind and the key, as a line of allowed signers ends: ``ssh-ed25519 AAAA…``."""
        return self._line

    @property
    def fingerprint(self) -> str:
        """Return ``SHA256:…`` as ``ssh-keygen -l`` prints it."""
        return fingerprint(self._blob)

    def sign(self, message: bytes, namespace: str) -> str:
        """Return the signature as ``ssh-keygen -Y sign -n namespace`` writes it, over SHA-512."""
        if not namespace:
            raise ValueError("a signature needs a namespace: it says what the signature is for")
        unsigned = Envelope(self._blob, namespace.encode(), b"", b"sha512", b"")
        signature = self._sign(unsigned.signed_data(message))
        return replace(unsigned, signature=signature).armoured()

    def _sign(self, data: bytes) -> bytes:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, utils

        kind = Reader(self._blob).string()
        if isinstance(self._private, ed25519.Ed25519PrivateKey):
            return put_string(kind) + put_string(self._private.sign(data))
        if isinstance(self._private, ec.EllipticCurvePrivateKey):
            _, digest = curve_and_hash(kind.decode().removeprefix("ecdsa-sha2-"))
            numbers = utils.decode_dss_signature(self._private.sign(data, ec.ECDSA(digest)))
            return put_string(kind) + put_string(b"".join(map(put_mpint, numbers)))
        return put_string(b"rsa-sha2-512") + put_string(
            self._private.sign(data, padding.PKCS1v15(), hashes.SHA512())
        )

    def _private_blob(self, comment: bytes) -> bytes:
        """Return the private key format with a comment, which ``cryptography`` always leaves empty."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        pem = self._private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        whole = dearmour(pem.decode(), _LABEL)
        fields = Reader(whole[len(_MAGIC) :])
        for _ in range(3):  # cipher, its key derivation and its options: none
            fields.string()
        fields.number(), fields.string()  # one key; its public half
        section = fields.string()
        named = section[: -section[-1]].removesuffix(put_string(b"")) + put_string(comment)
        padded = named + bytes(range(1, 9 - len(named) % 8))
        return whole.removesuffix(put_string(section)) + put_string(padded)


def _private_key_is_encrypted(data: bytes) -> bool:
    """Raise Malformed, or another ValueError, unless ``data`` is one private key of a kind to sign with."""
    text = data.decode("ascii").replace("\r\n", "\n").strip()
    fields = Reader(dearmour(text, _LABEL))
    if fields.take(len(_MAGIC)) != _MAGIC:
        raise Malformed("it does not hold an OpenSSH key")
    cipher, _, _, count = fields.string(), fields.string(), fields.string(), fields.number()
    if count != 1:
        raise Malformed(f"it holds {count} keys")
    public = fields.string()
    kind = Reader(public).string()
    if kind not in SIGNING_KINDS:
        raise Malformed(f"its kind is {shown(kind)}, not one of {names(SIGNING_KINDS)}")
    read_key(public)
    return cipher != b"none"


def _open(file: Path, data: bytes, passphrase: bytes | None) -> _Private:
    from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    if passphrase == b"":
        raise ConfigurationError(f"the passphrase of the signing key {str(file)!r} is not the empty one")
    try:
        return cast("_Private", load_ssh_private_key(data, passphrase))
    except UnsupportedAlgorithm as error:
        raise ConfigurationError(
            f"the signing key {str(file)!r} is encrypted in a way that cannot be opened here ({error}): "
            "`ssh-keygen -p -Z aes256-ctr -f FILE` encrypts it anew, and `pip install bcrypt` adds what "
            "opens it"
        ) from error
    except (ValueError, NotImplementedError, InvalidTag) as error:  # the second for compressed points
        wrong = "its passphrase is another, or it is damaged" if passphrase else f"it is damaged: {error}"
        raise ConfigurationError(
            f"the signing key {str(file)!r} does not open ({wrong}): try again"
        ) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
