"""Private keys and OpenSSH: each side accepts what the other signs, and says no to the same things."""

from __future__ import annotations

import base64
import os
import shutil
import stat
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from llmops.errors import ConfigurationError, SignatureInvalid
from llmops.signing import AllowedSigners, SigningKey
from support import signatures

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
MESSAGE = "release 7f\n\0ä".encode()
KINDS = {
    "ed25519": ("ed25519", "256"),
    "ecdsa-256": ("ecdsa", "256"),
    "ecdsa-384": ("ecdsa", "384"),
    "ecdsa-521": ("ecdsa", "521"),
    "rsa-2048": ("rsa", "2048"),
}
needs_openssh = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None, reason="ssh-keygen (package openssh-client) is not installed"
)
pytestmark = needs_openssh


def _ssh_keygen(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = ["ssh-keygen", *map(str, arguments)]
    return subprocess.run(
        command, input=stdin, capture_output=True, check=False, env={**os.environ, "TZ": "UTC"}
    )


def _make_key(file: Path, *options: str, passphrase: str = "") -> Path:
    made = _ssh_keygen("-q", "-f", file, "-N", passphrase, "-C", "a comment", *options)
    assert made.returncode == 0, made.stderr
    return file


@pytest.fixture(scope="module")
def key_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keys")
    return {name: _make_key(folder / name, "-t", kind, "-b", bits) for name, (kind, bits) in KINDS.items()}


def _openssh_accepts(
    folder: Path,
    line: str,
    signature: str,
    namespace: str = "ns",
    who: str = "ann",
    at: str = "20260501120000",
    message: bytes = MESSAGE,
) -> bool:
    (folder / "allowed").write_text(line + "\n")
    (folder / "signature").write_text(signature)
    asked = ("-Y", "verify", "-f", folder / "allowed", "-I", who, "-n", namespace, "-s", folder / "signature")
    return _ssh_keygen(*asked, "-O", f"verify-time={at}", stdin=message).returncode == 0


@pytest.mark.parametrize("digest", ["sha256", "sha512"])
@pytest.mark.parametrize("name", KINDS)
def test_what_openssh_signs_verifies_here(key_files: dict[str, Path], name: str, digest: str) -> None:
    file = key_files[name]
    signed = _ssh_keygen("-Y", "sign", "-f", file, "-n", "ns", "-O", f"hashalg={digest}", stdin=MESSAGE)
    assert signed.returncode == 0, signed.stderr
    allowed = AllowedSigners.parse(f"ann {file.with_suffix('.pub').read_text()}", "here")
    verified = allowed.verify(MESSAGE, signed.stdout.decode(), "ns", NOW)
    printed = _ssh_keygen("-lf", file.with_suffix(".pub")).stdout.decode().split()[1]
    assert (verified.principal, verified.fingerprint) == ("ann", printed)
    with pytest.raises(SignatureInvalid, match="is not one of this message"):
        allowed.verify(MESSAGE + b".", signed.stdout.decode(), "ns", NOW)


@pytest.mark.parametrize("name", KINDS)
def test_what_is_signed_here_openssh_accepts(key_files: dict[str, Path], name: str, tmp_path: Path) -> None:
    key = SigningKey.load(key_files[name])
    signature = key.sign(MESSAGE, "ns")
    assert _openssh_accepts(tmp_path, f"ann {key.public_line}", signature)
    assert not _openssh_accepts(tmp_path, f"ann {key.public_line}", signature, namespace="other")
    assert not _openssh_accepts(tmp_path, f"ann {SigningKey.generate().public_line}", signature)
    asked = ("-Y", "check-novalidate", "-n", "ns", "-s", tmp_path / "signature")
    assert key.fingerprint in _ssh_keygen(*asked, stdin=MESSAGE).stdout.decode()
    assert _ssh_keygen(*asked, stdin=MESSAGE + b".").returncode != 0


@pytest.mark.parametrize("name", KINDS)
def test_a_key_has_openssh_s_fingerprint_and_public_line(key_files: dict[str, Path], name: str) -> None:
    key = SigningKey.load(key_files[name])
    public = key_files[name].with_suffix(".pub")
    assert key.fingerprint == _ssh_keygen("-lf", public).stdout.decode().split()[1]
    assert f"{key.public_line} a comment\n" == public.read_text()


@pytest.mark.parametrize("options", [(), ("-Z", "aes256-gcm@openssh.com")])
def test_an_encrypted_key_opens_with_its_passphrase_alone(tmp_path: Path, options: tuple[str, ...]) -> None:
    pytest.importorskip("bcrypt", reason="OpenSSH encrypts keys with bcrypt, and it is not installed")
    file = _make_key(tmp_path / "key", "-t", "ed25519", "-a", "1", *options, passphrase="open sesame")
    key = SigningKey.load(file, lambda: b"open sesame")
    assert (tmp_path / "key.pub").read_text().startswith(key.public_line)
    for wrong in (b"open", b""):
        with pytest.raises(ConfigurationError, match=r"passphrase.* is (another|not the empty one)"):
            SigningKey.load(file, lambda wrong=wrong: wrong)


def test_an_encrypted_key_is_refused_where_nobody_can_type(tmp_path: Path) -> None:
    file = _make_key(tmp_path / "key", "-t", "ed25519", "-a", "1", passphrase="open sesame")
    with pytest.raises(ConfigurationError, match=r"key' is encrypted and nobody is here"):
        SigningKey.load(file)


def test_a_key_encrypted_in_an_unknown_way_says_how_to_encrypt_it_anew(tmp_path: Path) -> None:
    cipher = ("-Z", "chacha20-poly1305@openssh.com")
    file = _make_key(tmp_path / "key", "-t", "ed25519", "-a", "1", *cipher, passphrase="open sesame")
    with pytest.raises(ConfigurationError, match="ssh-keygen -p -Z aes256-ctr"):
        SigningKey.load(file, lambda: b"open sesame")


def test_nobody_is_asked_for_the_passphrase_of_a_key_without_one(key_files: dict[str, Path]) -> None:
    def ask() -> bytes:
        raise AssertionError("asked")

    assert SigningKey.load(key_files["ed25519"], ask).public_line.startswith("ssh-ed25519 AAAA")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-t", "rsa", "-b", "1024"), "an RSA key has 2048 to 16384 bits"),
        (("-t", "dsa"), "its kind is 'ssh-dss', not one of ecdsa-sha2-nistp256, "),
        (("-t", "rsa", "-b", "2048", "-m", "PEM"), "does not start with .* rewrites one of an older format"),
    ],
)
def test_a_key_of_another_kind_or_format_is_refused(
    tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    file = _make_key(tmp_path / "key", *options)
    with pytest.raises(ConfigurationError, match=message):
        SigningKey.load(file)


def test_what_is_no_private_key_is_refused(key_files: dict[str, Path], tmp_path: Path) -> None:
    good = key_files["ed25519"].read_bytes()
    file = tmp_path / "key"
    with pytest.raises(ConfigurationError, match=r"key' cannot be read \(No such file"):
        SigningKey.load(file)
    public = key_files["ed25519"].with_suffix(".pub").read_bytes()
    for data in (b"", b"\xff\xfe", public, good[:150], good.replace(b"b3Blbn", b"b3BLbn")):
        file.write_bytes(data)
        with pytest.raises(ConfigurationError, match="is not a private key that this product signs with"):
            SigningKey.load(file)
    lines = good.splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:3], lines[3][:5] + b"AAAA" + lines[3][9:], *lines[4:]]))
    with pytest.raises(ConfigurationError, match=r"does not open \(it is damaged"):
        SigningKey.load(file)


def test_a_key_with_the_line_ends_of_windows_is_read(key_files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(key_files["ed25519"].read_bytes().replace(b"\n", b"\r\n"))
    assert SigningKey.load(tmp_path / "key").public_line == SigningKey.load(key_files["ed25519"]).public_line


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("comment", ["", "notary of ä", "12345678"])
def test_a_saved_key_is_one_that_openssh_reads(
    key_files: dict[str, Path], name: str, comment: str, tmp_path: Path
) -> None:
    key = SigningKey.load(key_files[name])
    key.save(tmp_path / "key", comment)
    printed = _ssh_keygen("-y", "-f", tmp_path / "key").stdout.decode()
    assert printed == f"{key.public_line} {comment}".rstrip() + "\n"
    again = SigningKey.load(tmp_path / "key")
    assert again.fingerprint == key.fingerprint
    assert _openssh_accepts(tmp_path, f"ann {key.public_line}", again.sign(MESSAGE, "ns"))


def test_a_key_is_its_owner_s_alone_from_the_first_byte_and_on_disk_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes, synced = [], []
    opened, sync = os.fdopen, os.fsync
    monkeypatch.setattr(os, "fdopen", lambda d, *a, **k: modes.append(os.fstat(d)) or opened(d, *a, **k))
    monkeypatch.setattr(os, "fsync", lambda d: synced.append(os.fstat(d)) or sync(d))
    before = os.umask(0)
    try:
        SigningKey.generate().save(tmp_path / "key", "")
    finally:
        os.umask(before)
    assert [stat.S_IMODE(seen.st_mode) for seen in modes] == [0o600]
    file, folder = synced
    assert (file.st_ino, folder.st_ino) == ((tmp_path / "key").stat().st_ino, tmp_path.stat().st_ino)
    assert file.st_size == (tmp_path / "key").stat().st_size > 0


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for file in ("key", "link", "no/folder"):
        with pytest.raises(ConfigurationError, match=r"cannot be written to .* never overwritten"):
            SigningKey.generate().save(tmp_path / file, "")
    assert (tmp_path / "key").read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(ConfigurationError, match="must be one line"):
        SigningKey.generate().save(tmp_path / "new", "two\nlines")


def test_a_key_that_cannot_be_written_whole_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigurationError, match="No space left"):
        SigningKey.generate().save(tmp_path / "key", "")
    assert list(tmp_path.iterdir()) == []


def test_openssh_accepts_what_the_token_of_these_tests_signs(tmp_path: Path) -> None:
    """So that the tests of hardware keys rest on more than one reading of PROTOCOL.u2f."""
    token, sign = signatures.MADE["token"]
    signature = signatures.signature_by(token, sign)
    line = signatures.line_of(token)
    assert _openssh_accepts(tmp_path, line, signature, message=signatures.MESSAGE)
    assert not _openssh_accepts(tmp_path, line, signature, message=b"other")


def test_a_damaged_key_opens_or_is_refused_and_nothing_else(
    key_files: dict[str, Path], tmp_path: Path
) -> None:
    file, outcomes = tmp_path / "key", set()
    for name in ("ed25519", "ecdsa-256"):
        begin, *lines, end = key_files[name].read_text().splitlines()
        blob = base64.b64decode("".join(lines))
        for at in range(len(blob)):
            damaged = base64.b64encode(blob[:at] + bytes([blob[at] ^ 2]) + blob[at + 1 :]).decode()
            file.write_text(f"{begin}\n{damaged}\n{end}\n")
            try:
                SigningKey.load(file)
                outcomes.add("opens")  # what was hit is the comment or the secret number
            except ConfigurationError:
                outcomes.add("refused")
    assert outcomes == {"opens", "refused"}


ACCEPTED = [
    ("ann", "ann", "20260501120000"),
    ("bob,ann", "ann", "20260501120000"),
    ("*@example.org", "ann@example.org", "20260501120000"),
    ("a?n", "ann", "20260501120000"),
    ("!a*,*", "bob", "20260501120000"),
    ('ann namespaces="ns"', "ann", "20260501120000"),
    ('ann namespaces="other,n*"', "ann", "20260501120000"),
    ('ann Valid-After="20260501"', "ann", "20260501000000"),
    ('ann valid-after="202605011200Z"', "ann", "20260501120000"),
    ('ann valid-before="202605011200"', "ann", "20260501120000"),
    ('ann valid-after="20260101",valid-before="20270101",namespaces="ns"', "ann", "20260501120000"),
]
REFUSED = [
    ("ann", "ANN", "20260501120000"),
    ("*@example.org", "ann@example.com", "20260501120000"),
    ("a?n", "an", "20260501120000"),
    ("a[n]n", "ann", "20260501120000"),
    ("*,!ann", "ann", "20260501120000"),
    ("!ann,*", "ann", "20260501120000"),
    ("!ann", "bob", "20260501120000"),
    ('ann namespaces="other"', "ann", "20260501120000"),
    ('ann namespaces="*,!ns"', "ann", "20260501120000"),
    ('ann valid-after="20260501"', "ann", "20260430235959"),
    ('ann valid-after="20260501120001Z"', "ann", "20260501120000"),
    ('ann valid-before="20260501115959"', "ann", "20260501120000"),
    ("ann namespaces=ns", "ann", "20260501120000"),
    ('ann namespaces="ns",namespaces="ns"', "ann", "20260501120000"),
    ('ann valid-after="2026"', "ann", "20260501120000"),
    ('ann valid-after="20270101",valid-before="20260101"', "ann", "20260501120000"),
    ('ann colour="red"', "ann", "20260501120000"),
    ("ann cert-authority", "ann", "20260501120000"),
]


@pytest.mark.parametrize(
    ("line", "who", "at", "verdict"), [(*row, True) for row in ACCEPTED] + [(*row, False) for row in REFUSED]
)
def test_openssh_and_this_package_give_the_same_verdict(
    line: str, who: str, at: str, verdict: bool, tmp_path: Path
) -> None:
    key = SigningKey.generate()
    signature, line = key.sign(MESSAGE, "ns"), f"{line} {key.public_line} a comment"
    moment = datetime.strptime(at, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    try:
        AllowedSigners.parse(line, "here").verify(MESSAGE, signature, "ns", moment, who)
        accepted = True
    except (SignatureInvalid, ConfigurationError):
        accepted = False
    assert (accepted, _openssh_accepts(tmp_path, line, signature, "ns", who, at)) == (verdict, verdict)
