"""The list of who may sign is read as OpenSSH reads it; a line that is wrong is named."""

from __future__ import annotations

import base64
import random
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from llmops.errors import ConfigurationError
from llmops.signing import AllowedSigners, Signer
from support.signatures import ECDSA, ED25519, RSA, TOKEN, line_of, mpint, public_blob, string

ED = public_blob(ED25519)
ED_LINE, P256 = line_of(ED, "").strip(), b"ecdsa-sha2-nistp256"
POINT = ECDSA.public_key().public_bytes(
    serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
)
MODULUS = RSA.public_key().public_numbers().n
WRONG_LINES = {
    "ann": "is not `principals",
    "ann ssh-ed25519": "is not `principals",
    ED_LINE: "is not `principals",
    f'"ann" {ED_LINE}': "is not `principals",
    f"ann, {ED_LINE}": "holds an empty name",
    f"ann,! {ED_LINE}": "holds an empty name",
    f"\ufeffann {ED_LINE}": "a character that cannot be seen",
    f'ann namespaces="" {ED_LINE}': "holds an empty name",
    f'ann colour="red" {ED_LINE}': "option 'colour' is not one of namespaces, valid-after, valid-before",
    f"ann no-pty {ED_LINE}": "option 'no-pty' is not one of",
    f"ann Cert-Authority {ED_LINE}": "cert-authority is not supported",
    f'ann namespaces="ns",cert-authority {ED_LINE}': "cert-authority is not supported",
    f"ann namespaces=ns {ED_LINE}": "in double quotes",
    f"ann namespaces {ED_LINE}": "in double quotes",
    f'ann namespaces="ns", {ED_LINE}': "in double quotes",
    f'ann namespaces="ns"x {ED_LINE}': "in double quotes",
    f'ann namespaces="a",namespaces="b" {ED_LINE}': "'namespaces' stands there twice",
    f'ann valid-after="2026" {ED_LINE}': "'2026' is not a time YYYYMMDD",
    f'ann valid-after="20260230" {ED_LINE}': "'20260230' is not a time",
    f'ann valid-before="20260101+" {ED_LINE}': "is not a time",
    f'ann valid-before="" {ED_LINE}': "'' is not a time",
    f'ann valid-after="20260102",valid-before="20260102" {ED_LINE}': "valid-before is not later",
    "ann ssh-dss " + base64.b64encode(string(b"ssh-dss")).decode(): "keys of kind 'ssh-dss' are not",
    ED_LINE.replace("ssh-ed25519", "ann ssh-rsa"): "not of the kind 'ssh-rsa' that stands before it",
    f"ann {ED_LINE[:-1]}": "what is not base64",
    line_of(string(b"ssh-ed25519-cert-v01@openssh.com")): "are not supported",
    line_of(string(b"sk-ecdsa-sha2-nistp256@openssh.com")): "are not supported",
    line_of(ED + b"\0"): "1 bytes follow its end",
    line_of(TOKEN[:-8]): "cut short",
    line_of(string(b"ssh-ed25519", b"\0" * 31)): "it is not a key of kind 'ssh-ed25519'",
    line_of(string(P256, b"nistp384", POINT)): "curve 'nistp384' is not that of its kind",
    line_of(string(P256, b"nistp256", b"\2" + POINT[1:33])): "or its point is compressed",
    line_of(string(P256, b"nistp256", POINT[:-1] + bytes([POINT[-1] ^ 1]))): "it is not a key of kind 'ecdsa",
    line_of(string(b"ssh-rsa") + mpint(65537) + mpint(MODULUS >> 1 | 1)): "2048 to 16384 bits",
    line_of(string(b"ssh-rsa") + mpint(65537) + mpint(2**16384 + 1)): "2048 to 16384 bits",
    line_of(string(b"ssh-rsa") + mpint(65537) + mpint(MODULUS - 1)): "not those of an RSA key",
    line_of(string(b"ssh-rsa") + mpint(2**64 + 1) + mpint(MODULUS)): "not those of an RSA key",
    line_of(string(b"ssh-rsa") + mpint(2) + mpint(MODULUS)): "it is not a key of kind 'ssh-rsa'",
    line_of(string(b"ssh-rsa", b"\0\1\0\1") + mpint(MODULUS)): "longer than it needs to be",
}


@pytest.mark.parametrize("line", WRONG_LINES, ids=[str(number) for number in range(len(WRONG_LINES))])
def test_a_wrong_line_of_the_list_is_refused_with_its_number(line: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^here:3: .*{re.escape(WRONG_LINES[line])}"):
        AllowedSigners.parse(f"# people\n\n{line}\nbob {ED_LINE}\n", "here")


def test_no_text_raises_anything_else() -> None:
    rng = random.Random("allowed signers")
    good = f'ann,!b* namespaces="n*",valid-after="20260101Z" {ED_LINE} comment'
    refused = 0
    for _ in range(2000):
        at = rng.randrange(len(good))
        text = good[:at] + rng.choice((*'"= \t\n\r,!*A\0', "\ud800", "\xa0", "")) + good[at + 1 :]
        try:
            AllowedSigners.parse(text, "here")
        except ConfigurationError:
            refused += 1
    assert 1000 < refused < 2000


def test_a_list_is_read_as_openssh_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "allowed_signers"
    file.write_text(f'# people\r\n\n \tann,*@x   namespaces="a b,c*"\t{ED_LINE}   ann at home\r\n')
    (signer,) = AllowedSigners.load(file).signers
    assert signer == Signer(("ann", "*@x"), ("a b", "c*"), None, None, ED)
    file.write_text(f'ann valid-after="20260102",valid-before="20260102030405Z" {ED_LINE}')
    (signer,) = AllowedSigners.load(file).signers
    assert signer.valid_after == datetime(2026, 1, 2, tzinfo=UTC)
    assert signer.valid_before == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_a_list_that_cannot_be_read_or_names_nobody_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "allowed_signers"
    with pytest.raises(ConfigurationError, match=r"allowed_signers' cannot be read \(.*No such file"):
        AllowedSigners.load(file)
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match=r"cannot be read \(.*utf-8"):
        AllowedSigners.load(file)
    file.write_text("# nobody yet\n")
    with pytest.raises(ConfigurationError, match="name no key, so nobody could sign"):
        AllowedSigners.load(file)
