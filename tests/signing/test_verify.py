"""Only what the right key signed, for this purpose, at a time it could, passes; the rest says why."""

from __future__ import annotations

import base64
import hashlib
import random
import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography.hazmat.primitives import hashes

from llmops.errors import IntegrityError, SignatureInvalid
from llmops.signing import AllowedSigners, SigningKey, Verified
from support.signatures import (
    ECDSA,
    ED25519,
    MADE,
    MESSAGE,
    RSA,
    TOKEN,
    armour,
    blob_of,
    by_ecdsa,
    by_ed25519,
    by_rsa,
    by_token,
    line_of,
    mpint,
    public_blob,
    signature_by,
    string,
)

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
KEY = SigningKey.generate()


def _verify(signature: str, lines: str, principal: str | None = None, at: datetime = NOW) -> Verified:
    return AllowedSigners.parse(lines, "here").verify(MESSAGE, signature, "ns", at, principal)


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("digest", [b"sha256", b"sha512"])
def test_a_signature_of_every_kind_of_key_verifies(made: str, digest: bytes) -> None:
    key, sign = MADE[made]
    expected = "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")
    assert _verify(signature_by(key, sign, digest=digest), line_of(key)) == Verified("ann", expected)


def test_the_reserved_field_may_hold_anything_that_the_key_signed() -> None:
    key = public_blob(ED25519)
    signature = signature_by(key, by_ed25519, reserved=b"later")
    assert _verify(signature, line_of(key)).principal == "ann"
    changed = armour(blob_of(signature).replace(b"later", b"other"))
    with pytest.raises(SignatureInvalid, match="is not one of this message"):
        _verify(changed, line_of(key))


def test_a_signature_needs_no_last_newline_and_no_line_length() -> None:
    text = KEY.sign(MESSAGE, "ns")
    assert _verify(text.rstrip("\n"), f"ann {KEY.public_line}").principal == "ann"
    assert _verify(armour(blob_of(text)), f"ann {KEY.public_line}").principal == "ann"


def _with_spare_bits(signature: str) -> str:
    """Set a bit of the last letter that stands for no byte."""
    before, end = signature.rsplit("==\n", 1)
    return f"{before[:-1]}{chr(ord(before[-1]) + 1)}==\n{end}"


ED = public_blob(ED25519)
R, S = 2**255 + 5, 2**254 + 7
MALFORMED = {
    "other magic": (signature_by(ED, by_ed25519, magic=b"SSHSIX"), "does not hold an SSH signature"),
    "version 0": (signature_by(ED, by_ed25519, version=0), "its version is 0, not 1"),
    "version 2": (signature_by(ED, by_ed25519, version=2), "its version is 2, not 1"),
    "no namespace": (signature_by(ED, by_ed25519, namespace=b""), "its namespace is empty"),
    "other hash": (
        signature_by(ED, by_ed25519, digest=b"sha384"),
        "hash algorithm 'sha384' is not sha256 or",
    ),
    "blob trailing": (signature_by(ED, by_ed25519, after=b"\0"), "1 bytes follow its end"),
    "cut short": (armour(blob_of(signature_by(ED, by_ed25519))[:-1]), "cut short"),
    "field trailing": (signature_by(ED, lambda d: by_ed25519(d) + b"xy"), "2 bytes follow its end"),
    "token trailing": (signature_by(TOKEN, lambda d: by_token()(d) + b"x"), "1 bytes follow its end"),
    "rsa trailing": (
        signature_by(public_blob(RSA), lambda d: MADE["rsa-sha2-512"][1](d) + b"x"),
        "1 bytes follow its end",
    ),
    "ecdsa trailing": (
        signature_by(public_blob(ECDSA), lambda d: by_ecdsa(d) + b"x"),
        "1 bytes follow its end",
    ),
    "ecdsa numbers trailing": (
        signature_by(
            public_blob(ECDSA), lambda d: string(b"ecdsa-sha2-nistp256", mpint(R) + mpint(S) + b"xyz")
        ),
        "3 bytes follow its end",
    ),
    "negative number": (
        signature_by(public_blob(ECDSA), lambda d: string(b"ecdsa-sha2-nistp256", string(b"\xff" * 32) * 2)),
        "is negative or longer",
    ),
    "leading zeros": (
        signature_by(public_blob(ECDSA), lambda d: string(b"ecdsa-sha2-nistp256", string(b"\0\1") * 2)),
        "is negative or longer",
    ),
    "SHA-1": (
        signature_by(public_blob(RSA), by_rsa(b"ssh-rsa", hashes.SHA1())),
        "algorithm 'ssh-rsa' is not rsa-sha2-512 or rsa-sha2-256",
    ),
    "other algorithm": (
        signature_by(ED, lambda d: string(b"ssh-rsa", ED25519.sign(d))),
        "algorithm 'ssh-rsa' is not ssh-ed25519",
    ),
    "nobody touched": (signature_by(TOKEN, by_token(flags=4)), "nobody touched it"),
    "spare bits": (_with_spare_bits(signature_by(ED, by_ed25519)), "spare bits"),
    "not base64": (signature_by(ED, by_ed25519).replace("U1NI", "U1N!"), "what is not base64"),
    "not ASCII": (signature_by(ED, by_ed25519).replace("U1NI", "U1N\ud800"), "what is not base64"),
    "empty": ("", "does not start with '-----BEGIN SSH SIGNATURE-----' and end with"),
    "only the ends": ("-----BEGIN SSH SIGNATURE-----\n-----END SSH SIGNATURE-----", "cut short"),
    "space before": (" " + signature_by(ED, by_ed25519), "does not start with"),
    "text behind": (signature_by(ED, by_ed25519) + "ok\n", "does not start with"),
    "huge": (armour(b"\0" * 60_000), " characters)"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_signature_is_refused(what: str) -> None:
    signature, message = MALFORMED[what]
    lines = "\n".join(line_of(key) for key in (ED, TOKEN, public_blob(RSA), public_blob(ECDSA)))
    with pytest.raises(SignatureInvalid, match=rf"^the signature is malformed \(.*{re.escape(message)}"):
        _verify(signature, lines)


def test_a_signature_for_another_purpose_is_refused() -> None:
    allowed = AllowedSigners.parse(f"ann {KEY.public_line}", "here")
    for namespace in ("llmops-ledger", "", "\ud800", "n", "ns\0"):
        with pytest.raises(SignatureInvalid, match="is for the namespace 'ns', not"):
            allowed.verify(MESSAGE, KEY.sign(MESSAGE, "ns"), namespace, NOW)
    assert issubclass(SignatureInvalid, IntegrityError)


def test_a_key_that_nobody_listed_is_refused() -> None:
    other = SigningKey.generate()
    with pytest.raises(SignatureInvalid, match=f"{re.escape(other.fingerprint)} is not among the .* 'here'"):
        _verify(other.sign(MESSAGE, "ns"), f"ann {KEY.public_line}")
    with pytest.raises(SignatureInvalid, match="is not among the allowed signers"):
        _verify(KEY.sign(MESSAGE, "ns"), "# nobody")


@pytest.mark.parametrize("made", MADE)
def test_a_signature_of_something_else_is_refused(made: str) -> None:
    key, sign = MADE[made]
    allowed = AllowedSigners.parse(line_of(key), "here")
    with pytest.raises(SignatureInvalid, match="is not one of this message"):
        allowed.verify(MESSAGE, signature_by(key, lambda data: sign(data + b".")), "ns", NOW)
    with pytest.raises(SignatureInvalid, match="is not one of this message"):
        allowed.verify(MESSAGE + b".", signature_by(key, sign), "ns", NOW)


def test_a_token_s_signature_for_another_application_is_refused() -> None:
    with pytest.raises(SignatureInvalid, match="is not one of this message"):
        _verify(signature_by(TOKEN, by_token(application=b"web")), line_of(TOKEN))


def test_a_forged_signature_is_called_that_before_anything_is_said_about_its_owner() -> None:
    line = f'ann valid-before="20200101Z",namespaces="no" {KEY.public_line}'
    with pytest.raises(SignatureInvalid, match="is not one of this message"):
        AllowedSigners.parse(line, "here").verify(b"other", KEY.sign(MESSAGE, "ns"), "ns", NOW, "bob")


@pytest.mark.parametrize(
    ("before", "principal", "message"),
    [
        ("ann", "bob", "belongs to 'ann', not to 'bob'"),
        ("ann", "", "belongs to 'ann', not to ''"),
        ("*", "", "not to ''"),
        ("*,!bob", "bob", "not to 'bob'"),
        ("a.n", "abn", "not to 'abn'"),
        ("an*", "bann", "not to 'bann'"),
        ("*@x", None, "which does not say who signed: name the principal"),
        ("ann,!ann", None, "which does not say who signed"),
        ("!bob,ann", None, "which does not say who signed"),
        ('ann namespaces="llmops-*,!llmops-x"', None, "must not sign for the namespace 'ns'"),
        ('ann namespaces="*,!ns"', "ann", "must not sign for the namespace 'ns'"),
        ('ann valid-after="202605011201Z"', None, r"was not valid at 2026-05-01T12:00:00\+00:00"),
        ('ann valid-before="20260501115959Z"', None, "was not valid at"),
        ('ann valid-before="20260501"', None, "was not valid at"),
    ],
)
def test_a_key_that_must_not_sign_this_is_refused(before: str, principal: str | None, message: str) -> None:
    with pytest.raises(SignatureInvalid, match=message):
        _verify(KEY.sign(MESSAGE, "ns"), f"{before} {KEY.public_line}", principal)


@pytest.mark.parametrize(
    ("before", "principal", "verified"),
    [
        ("ann,bob", None, "ann"),
        ("ann,*", "carl", "carl"),
        ("ann,!bob", None, "ann"),
        ('ann namespaces="a,n?"', None, "ann"),
        ('ann valid-after="20260501120000",valid-before="202605011201Z"', None, "ann"),
        ('ann valid-after="202605011200Z"', None, "ann"),
        ('ann valid-before="20260501120000Z"', None, "ann"),
        ('ann VALID-after="20260501Z"', None, "ann"),
    ],
)
def test_a_key_that_may_sign_this_passes(before: str, principal: str | None, verified: str) -> None:
    line = f"{before} {KEY.public_line}"
    assert _verify(KEY.sign(MESSAGE, "ns"), line, principal) == Verified(verified, KEY.fingerprint)


def test_of_several_lines_with_one_key_the_first_that_allows_everything_counts() -> None:
    rules = ('old valid-before="20200101Z"', 'ledger namespaces="l"', "*@x", "ann", "bob")
    lines = "\n".join(f"{rule} {KEY.public_line}" for rule in rules)
    signature = KEY.sign(MESSAGE, "ns")
    assert _verify(signature, lines).principal == "ann"
    assert _verify(signature, lines, "bob").principal == "bob"
    assert _verify(signature, lines, at=datetime(2019, 1, 1, tzinfo=UTC)).principal == "old"
    with pytest.raises(SignatureInvalid, match="must not sign for the namespace"):
        _verify(signature, lines, "ledger")


def test_time_limits_are_compared_across_zones_and_need_one() -> None:
    line = f'ann valid-before="202605011200Z" {KEY.public_line}'
    east, west = timezone(timedelta(hours=2)), timezone(timedelta(hours=-1))
    in_time, too_late = datetime(2026, 5, 1, 13, 30, tzinfo=east), datetime(2026, 5, 1, 11, 30, tzinfo=west)
    assert _verify(KEY.sign(MESSAGE, "ns"), line, at=in_time).principal == "ann"
    with pytest.raises(SignatureInvalid, match="was not valid at"):
        _verify(KEY.sign(MESSAGE, "ns"), line, at=too_late)
    with pytest.raises(ValueError, match="has no time zone"):
        _verify(KEY.sign(MESSAGE, "ns"), line, at=NOW.replace(tzinfo=None))
    with pytest.raises(ValueError, match="needs a namespace"):
        KEY.sign(MESSAGE, "")


def _changed(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.3:
        return data[: rng.randrange(len(data))]
    bit = rng.randrange(8 * len(data))
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("made", MADE)
def test_no_cut_or_flipped_bit_goes_unnoticed(made: str) -> None:
    """In the text, and in the blob below it; whatever it hits, the answer is SignatureInvalid."""
    rng = random.Random(f"signing {made}")
    key, sign = MADE[made]
    signature = signature_by(key, sign)
    allowed = AllowedSigners.parse(line_of(key), "here")
    assert allowed.verify(MESSAGE, signature, "ns", NOW).principal == "ann"
    text, blob = signature.rstrip("\n").encode(), blob_of(signature)
    for _ in range(600):
        for damaged in (_changed(rng, text).decode("latin-1"), armour(_changed(rng, blob))):
            with pytest.raises(SignatureInvalid):
                allowed.verify(MESSAGE, damaged, "ns", NOW)


@pytest.mark.parametrize("made", MADE)
def test_no_content_of_the_last_field_raises_anything_else(made: str) -> None:
    rng = random.Random(f"last field {made}")
    key, sign = MADE[made]
    name = sign(b"")[4 : 4 + int.from_bytes(sign(b"")[:4], "big")]
    allowed = AllowedSigners.parse(line_of(key), "here")
    for _ in range(300):
        parts = [rng.randbytes(rng.choice((0, 1, 31, 32, 33, 64, 255, 256, 257))) for _ in range(2)]
        bodies = (string(*parts), parts[0], mpint(int.from_bytes(parts[0], "big")) + string(b""))
        for body in bodies:
            last = string(name, body) + (b"\1\0\0\0\0" if made == "token" else b"")
            with pytest.raises(SignatureInvalid):
                allowed.verify(MESSAGE, signature_by(key, lambda d, last=last: last), "ns", NOW)
