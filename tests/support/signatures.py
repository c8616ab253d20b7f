"""SSH signatures built by hand from OpenSSH's documents, also such as no program would make."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MESSAGE = b"release 7f"
SK = b"sk-ssh-ed25519@openssh.com"
ED25519, ECDSA, RSA = (
    Ed25519PrivateKey.generate(),
    ec.generate_private_key(ec.SECP256R1()),
    rsa.generate_private_key(65537, 2048),
)


def string(*fields: bytes) -> bytes:
    return b"".join(len(field).to_bytes(4, "big") + field for field in fields)


def mpint(value: int) -> bytes:
    return string(value.to_bytes(value.bit_length() // 8 + 1, "big"))


def public_blob(private: Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    line = private.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return base64.b64decode(line.split()[1])


def line_of(key: bytes, before: str = "ann") -> str:
    kind = key[4 : 4 + int.from_bytes(key[:4], "big")].decode()
    return f"{before} {kind} {base64.b64encode(key).decode()}"


def armour(blob: bytes) -> str:
    text = base64.b64encode(blob).decode()
    return f"-----BEGIN SSH SIGNATURE-----\n{text}\n-----END SSH SIGNATURE-----\n"


def blob_of(signature: str) -> bytes:
    return base64.b64decode("".join(signature.split("\n")[1:-2]))


def signature_by(
    key: bytes,
    sign: Callable[[bytes], bytes],
    *,
    namespace: bytes = b"ns",
    reserved: bytes = b"",
    digest: bytes = b"sha256",
    version: int = 1,
    magic: bytes = b"SSHSIG",
    after: bytes = b"",
) -> str:
    """Build a signature by hand, from PROTOCOL.sshsig; ``sign`` returns its last field."""
    value = hashlib.new(digest.decode(), MESSAGE).digest()
    last = sign(b"SSHSIG" + string(namespace, reserved, digest, value))
    return armour(magic + version.to_bytes(4, "big") + string(key, namespace, reserved, digest, last) + after)


def by_ed25519(data: bytes) -> bytes:
    return string(b"ssh-ed25519", ED25519.sign(data))


def by_rsa(algorithm: bytes, digest: hashes.HashAlgorithm) -> Callable[[bytes], bytes]:
    return lambda data: string(algorithm, RSA.sign(data, padding.PKCS1v15(), digest))


def by_ecdsa(data: bytes) -> bytes:
    r, s = utils.decode_dss_signature(ECDSA.sign(data, ec.ECDSA(hashes.SHA256())))
    return string(b"ecdsa-sha2-nistp256", mpint(r) + mpint(s))


def by_token(flags: int = 1, application: bytes = b"ssh:") -> Callable[[bytes], bytes]:
    """Sign as a hardware key does (PROTOCOL.u2f), with a key in software."""

    def sign(data: bytes) -> bytes:
        state = bytes([flags]) + (7).to_bytes(4, "big")
        digests = hashlib.sha256(application).digest(), hashlib.sha256(data).digest()
        return string(SK, ED25519.sign(digests[0] + state + digests[1])) + state

    return sign


TOKEN = string(SK, ED25519.public_key().public_bytes_raw(), b"ssh:")
MADE = {
    "ed25519": (public_blob(ED25519), by_ed25519),
    "ecdsa": (public_blob(ECDSA), by_ecdsa),
    "rsa-sha2-256": (public_blob(RSA), by_rsa(b"rsa-sha2-256", hashes.SHA256())),
    "rsa-sha2-512": (public_blob(RSA), by_rsa(b"rsa-sha2-512", hashes.SHA512())),
    "token": (TOKEN, by_token()),
}
