"""``llmops release`` signs, rolls back and revokes for a person whose name is authenticated, and for nobody else."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.test_release_command import ANNA, Run, Two, run, two
from llmops.cli import release as module
from llmops.errors import ConfigurationError, MissingInput, NotApproved, SignatureInvalid
from llmops.release import ledger, production_release, promote, report_replica
from llmops.release._statement import personal_signatures
from llmops.settings import Environment
from llmops.signing import SigningKey
from llmops.stack import AirflowError
from support.http import FakeService, listening

__all__ = ["run", "two"]

PASSWORD = "right-7"


@pytest.fixture
def reviewer(environment: Environment, tmp_path: Path) -> Path:
    """The private key of Rita, who is among the reviewers."""
    return _reviewer(environment, tmp_path)


def _reviewer(environment: Environment, folder: Path, passphrase: str = "") -> Path:
    file = folder / "id_ed25519"
    if passphrase:
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(file)]
        subprocess.run(command, check=True)
        line = file.with_suffix(".pub").read_text()
    else:
        SigningKey.generate().save(file, "rita")
        line = SigningKey.load(file).public_line
    assert environment.reviewer_keys is not None
    environment.reviewer_keys.write_text(f'rita namespaces="llmops-release" {line}\n')
    return file


@pytest.fixture
def in_production(environment: Environment, two: Two) -> Two:
    """Two releases that were in production, the second now."""
    promote(environment, two[1], ANNA)
    return two


class FakeAirflow(FakeService):
    """Gives a token for the right password, and 401 for any other."""

    asked: list[str]

    def do_POST(self) -> None:
        given = json.loads(self.body())
        type(self).asked.append(f"{self.path} {given['username']}")
        right = self.path == "/auth/token" and given["password"] == PASSWORD
        answer = {"access_token": "t"} if right else {"detail": "Invalid credentials"}
        self.reply(201 if right else 401, json.dumps(answer).encode())


@pytest.fixture
def airflow(environment: Environment, run: Run, tmp_path: Path) -> Iterator[list[str]]:
    """A fake Airflow at the environment's address; return what it was asked."""
    FakeAirflow.asked = []
    with listening(FakeAirflow) as here:
        file = tmp_path / "include" / "environments" / "dev.yaml"
        text = file.read_text()
        file.write_text(text.replace("airflow_url: http://127.0.0.1:9", f"airflow_url: {here}"))
        yield FakeAirflow.asked


def test_approve_stores_the_owners_signature_over_the_whole_id(
    run: Run, two: Two, reviewer: Path, environment: Environment
) -> None:
    release_id = two[1].release_id
    output = run("approve", release_id[:12], "--key", str(reviewer)).output
    fingerprint = SigningKey.load(reviewer).fingerprint
    assert f"rita signed release {release_id} with key {fingerprint}\n" in output
    assert "once you have answered the request in Airflow too" in output
    (kept,) = personal_signatures(environment, release_id)
    assert (kept.principal, kept.fingerprint) == ("rita", fingerprint)
    run("approve", release_id, "--key", str(reviewer))
    assert len(personal_signatures(environment, release_id)) == 1


def test_an_encrypted_key_asks_for_its_passphrase(
    run: Run, two: Two, environment: Environment, tmp_path: Path
) -> None:
    key = _reviewer(environment, tmp_path, passphrase="geheim")
    arguments = ["approve", two[1].release_id, "--key", str(key)]
    result = CliRunner().invoke(module.command, arguments, input="geheim\n", catch_exceptions=False)
    assert result.stderr.startswith("Passphrase:")
    assert "geheim" not in result.output
    assert "rita signed release" in result.stdout
    with pytest.raises(ConfigurationError, match="its passphrase is another"):
        CliRunner().invoke(module.command, arguments, input="wrong\n", catch_exceptions=False)


def test_the_key_of_nobody_signs_nothing_and_moves_nothing(
    run: Run, in_production: Two, reviewer: Path, environment: Environment, tmp_path: Path, url: str
) -> None:
    stranger = tmp_path / "stranger"
    SigningKey.generate().save(stranger, "rita")
    first, second = (request.release_id for request in in_production)
    entries = ledger(url)
    for arguments in (
        ["approve", second],
        ["rollback", "--assistant", "guide", "--reason", "bad"],
        ["revoke", first, "--reason", "bad"],
    ):
        with pytest.raises(SignatureInvalid, match="not among the allowed signers"):
            run(*arguments, "--key", str(stranger))
    assert personal_signatures(environment, second) == []
    assert ledger(url) == entries


def test_without_a_file_of_reviewers_a_key_is_nobodys(run: Run, two: Two, tmp_path: Path) -> None:
    SigningKey.generate().save(tmp_path / "key", "rita")
    with pytest.raises(ConfigurationError, match="has no keys of reviewers"):
        run("approve", two[1].release_id, "--key", str(tmp_path / "key"))


def test_a_rollback_by_key_is_entered_with_the_owner_and_the_reason(
    run: Run, in_production: Two, reviewer: Path, environment: Environment, url: str
) -> None:
    first = in_production[0].release_id
    run("rollback", "--assistant", "guide", "--reason", "it is rude", "--key", str(reviewer))
    assert production_release(environment, "guide") == first
    entry = ledger(url)[-1]
    fingerprint = SigningKey.load(reviewer).fingerprint
    assert (entry.action, entry.actor, entry.authentication, entry.reason) == (
        "roll back", "rita", f"SSH key {fingerprint}", "it is rude",
    )  # fmt: skip


def test_a_rollback_where_no_service_runs_is_done_at_once_and_warns_that_nobody_confirmed_it(
    run: Run, in_production: Two, reviewer: Path, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CONFIRM_WAIT", timedelta(seconds=6))
    first = in_production[0].release_id
    began = time.monotonic()
    result = run("rollback", "--assistant", "guide", "--reason", "r", "--key", str(reviewer))
    assert time.monotonic() - began < 6
    assert result.exit_code == 0
    assert result.stdout == f"release {first} is in production, on no replica\n"
    assert "no service that answers for 'guide' is running here" in result.stderr
    assert "nobody confirmed" in result.stderr
    assert production_release(environment, "guide") == first


def test_a_rollback_that_a_replica_follows_says_how_many_and_warns_of_nothing(
    run: Run, in_production: Two, reviewer: Path, serving: Environment
) -> None:
    first = in_production[0].release_id
    report_replica(serving, "guide", first, "r1")
    result = run("rollback", "--assistant", "guide", "--reason", "r", "--key", str(reviewer))
    assert (result.stdout, result.stderr) == (f"release {first} is in production on 1 replica(s)\n", "")


def test_a_rollback_goes_to_no_release_that_was_never_in_production(
    run: Run, two: Two, reviewer: Path, environment: Environment
) -> None:
    arguments = ("rollback", "--assistant", "guide", "--reason", "r", "--key", str(reviewer))
    for to in (two[1].release_id[:12], "0000"):
        with pytest.raises(MissingInput, match=f"'{to}' was never in production"):
            run(*arguments, "--to", to)
    with pytest.raises(MissingInput, match="replaced none that could come back"):
        run(*arguments)
    with pytest.raises(MissingInput, match="'other' has no production release"):
        run("rollback", "--assistant", "other", "--reason", "r", "--key", str(reviewer))
    assert production_release(environment, "guide") == two[0].release_id


def test_revoking_by_key_is_entered_once_and_not_while_in_production(
    run: Run, two: Two, reviewer: Path, url: str
) -> None:
    first, second = (request.release_id for request in two)
    outputs = [run("revoke", second[:12], "--reason", "leaks", "--key", str(reviewer)).output for _ in "ab"]
    assert outputs == [f"release {second} is revoked\n"] * 2
    assert [(e.actor, e.reason, e.to_release) for e in ledger(url) if e.action == "revoke"] == [
        ("rita", "leaks", second)
    ]
    with pytest.raises(NotApproved, match="is in production"):
        run("revoke", first, "--reason", "leaks", "--key", str(reviewer))
    with pytest.raises(MissingInput, match="fits no release"):
        run("revoke", "0000", "--reason", "leaks", "--key", str(reviewer))


@pytest.mark.parametrize(
    "arguments", [("rollback", "--assistant", "guide"), ("revoke", "0")], ids=["rollback", "revoke"]
)
def test_moving_a_release_needs_a_reason(
    run: Run, in_production: Two, reviewer: Path, url: str, arguments: tuple[str, ...]
) -> None:
    entries = ledger(url)
    result = run(*arguments, "--key", str(reviewer))
    assert result.exit_code == 2
    assert "Missing option '--reason'" in result.output
    named = [in_production[0].release_id if each == "0" else each for each in arguments]
    with pytest.raises(NotApproved, match="reason"):
        run(*named, "--key", str(reviewer), "--reason", "  ")
    assert ledger(url) == entries


def test_a_user_is_known_by_the_password_that_airflow_accepts(
    run: Run, two: Two, airflow: list[str], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    release_id = two[1].release_id
    arguments = ["revoke", release_id, "--reason", "leaks"]
    asked = CliRunner().invoke(
        module.command, [*arguments, "--user", "anna"], input=f"{PASSWORD}\n", catch_exceptions=False
    )
    assert asked.stderr.startswith("Airflow password of anna:")
    assert asked.stdout == f"release {release_id} is revoked\n"
    entry = ledger(url)[-1]
    assert (entry.action, entry.actor, entry.authentication) == ("revoke", "anna", "Airflow login")
    monkeypatch.setenv("LLMOPS_USER", "bert")
    monkeypatch.setenv("LLMOPS_AIRFLOW_PASSWORD", PASSWORD)
    assert run(*arguments).output == f"release {release_id} is revoked\n"
    assert airflow == ["/auth/token anna", "/auth/token bert"]


def test_a_user_with_a_wrong_password_moves_nothing(
    run: Run, in_production: Two, airflow: list[str], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = ledger(url)
    monkeypatch.setenv("LLMOPS_AIRFLOW_PASSWORD", "wrong")
    for arguments in (
        ["rollback", "--assistant", "guide"],
        ["revoke", in_production[0].release_id],
    ):
        with pytest.raises(AirflowError, match="401") as caught:
            run(*arguments, "--reason", "r", "--user", "anna")
        assert caught.value.status == 401
        assert "wrong" not in str(caught.value)
    assert ledger(url) == entries
    assert airflow == ["/auth/token anna"] * 2
