"""The notary's key is made once and kept private, and the notary does not start with one that tasks can read."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from llmops.cli.notary import command
from llmops.errors import ConfigurationError
from llmops.release import Notary, check_key_is_private, make_notary_key
from llmops.settings import Environment
from llmops.signing import AllowedSigners, SigningKey

NOW = datetime(2026, 3, 2, tzinfo=UTC)
WORKER, WORKERS = 54_321, 54_322
"""A user and a group that run tasks, and that no test machine has."""

STRANGER = 54_400


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """The files of the private and the public key; nothing is there yet."""
    return tmp_path / "notary" / "key", tmp_path / "published" / "keys"


def test_a_new_key_is_for_its_owner_alone_and_its_public_half_may_sign_approvals_and_heads(
    files: tuple[Path, Path],
) -> None:
    private, public = files
    umask = os.umask(0o022)
    try:
        made = make_notary_key(private, public)
    finally:
        os.umask(umask)
    assert (mode(private), mode(private.parent)) == (0o600, 0o700)
    key = SigningKey.load(private)
    assert key.fingerprint == made
    allowed = AllowedSigners.load(public)
    for namespace in ("llmops-approval", "llmops-ledger"):
        assert allowed.verify(b"x", key.sign(b"x", namespace), namespace, NOW, "notary").fingerprint == made
    assert public.read_text().endswith(f"{key.public_line}\n")
    assert [file.name for file in public.parent.iterdir()] == ["keys"]


def test_making_the_key_again_changes_nothing(files: tuple[Path, Path]) -> None:
    private, public = files
    made = make_notary_key(private, public)
    before = private.read_bytes(), public.read_bytes()
    assert make_notary_key(private, public) == made
    assert (private.read_bytes(), public.read_bytes()) == before


@pytest.mark.parametrize("ending", ["\n", ""])
def test_a_new_key_is_added_and_what_earlier_ones_signed_still_verifies(
    files: tuple[Path, Path], ending: str
) -> None:
    private, public = files
    make_notary_key(private, public)
    old = SigningKey.load(private)
    public.write_text("# our notaries\n" + public.read_text().removesuffix("\n") + ending)
    private.unlink()
    made = make_notary_key(private, public)
    assert made != old.fingerprint
    lines = public.read_text().split("\n")
    assert (len(lines), lines[0], lines[3]) == (4, "# our notaries", "")
    allowed = AllowedSigners.load(public)
    for key in (old, SigningKey.load(private)):
        signature = key.sign(b"x", "llmops-approval")
        assert allowed.verify(b"x", signature, "llmops-approval", NOW).fingerprint == key.fingerprint


def test_a_line_that_was_commented_out_does_not_count_as_published(files: tuple[Path, Path]) -> None:
    private, public = files
    made = make_notary_key(private, public)
    public.write_text("# " + public.read_text())
    assert make_notary_key(private, public) == made
    assert [signer.fingerprint for signer in AllowedSigners.load(public).signers] == [made]


Guarded = Callable[..., None]


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guarded:
    """Check a key of ``owner:group`` with a mode for ``worker``, in prod; ``member`` names the worker's groups."""
    private = tmp_path / "key"
    private.write_text("key")

    def check(
        worker: str | None, owner: int, group: int, bits: int, member: tuple[int, ...] = (WORKERS,), name: str = "prod"
    ) -> None:  # fmt: skip
        monkeypatch.setattr(pwd, "getpwnam", lambda user: _account(user, {"worker": WORKER, "root": 0}))
        monkeypatch.setattr(pwd, "getpwuid", lambda uid: _account(uid, {WORKER: WORKER, 0: 0}))
        monkeypatch.setattr(os, "getgrouplist", lambda user, first: [first, *member])
        private.chmod(bits)
        found = list(os.stat(private))
        found[stat.ST_UID], found[stat.ST_GID] = (
            owner,
            group,
        )  # only root could change them in the file itself
        monkeypatch.setattr(Path, "stat", lambda file: os.stat_result(found))
        check_key_is_private(environment_called(name), private, worker)

    return check


def _account(key: Any, known: dict[Any, int]) -> SimpleNamespace:
    return SimpleNamespace(pw_name="worker", pw_uid=known[key], pw_gid=known[key])


def environment_called(name: str) -> Environment:
    here = "http://127.0.0.1:9"
    return Environment(
        name=name, catalog=name, storage_root="x", database_url="postgresql://x", mlflow_url=here, airflow_url=here,
        serving_url=here, notary_url=here, notary_keys=Path("keys"),
    )  # fmt: skip


def test_in_dev_anybody_may_read_the_key(guarded: Guarded) -> None:
    guarded(None, WORKER, WORKERS, 0o644, name="dev")
    guarded("worker", WORKER, WORKERS, 0o644, name="dev")


@pytest.mark.parametrize("worker", ["worker", str(WORKER), str(STRANGER)])
@pytest.mark.parametrize("bits", [0o600, 0o400, 0o640])
def test_outside_dev_a_key_of_another_user_and_group_is_accepted(
    guarded: Guarded, worker: str, bits: int
) -> None:
    guarded(worker, STRANGER + 1, STRANGER + 1, bits)


@pytest.mark.parametrize("worker", [None, ""])
def test_outside_dev_the_notary_must_know_who_runs_tasks(guarded: Guarded, worker: str | None) -> None:
    with pytest.raises(ConfigurationError, match="LLMOPS_WORKER_USER is not set"):
        guarded(worker, STRANGER, STRANGER, 0o600)


@pytest.mark.parametrize("worker", ["nobody-we-know", "worker ", "-1", "²"])
def test_outside_dev_a_worker_that_does_not_exist_is_named(guarded: Guarded, worker: str) -> None:
    with pytest.raises(ConfigurationError, match=f"names '{worker}', but there is no such user"):
        guarded(worker, STRANGER, STRANGER, 0o600)


@pytest.mark.parametrize(
    ("worker", "owner", "group", "bits"),
    [
        ("root", STRANGER, STRANGER, 0o600),
        ("0", STRANGER, STRANGER, 0o600),
        ("worker", WORKER, STRANGER, 0o600),
        (str(WORKER), WORKER, STRANGER, 0o600),
        (str(STRANGER), STRANGER, STRANGER + 1, 0o600),
        ("worker", STRANGER, STRANGER, 0o604),
        (str(STRANGER), STRANGER + 1, STRANGER + 1, 0o604),
        ("worker", STRANGER, WORKERS, 0o640),
        ("worker", STRANGER, WORKER, 0o640),
        (str(WORKER), STRANGER, WORKERS, 0o640),
        (str(STRANGER), STRANGER + 1, 0, 0o640),
        (str(WORKER), STRANGER, 0, 0o640),
    ],
    ids=["root", "number 0", "owner", "owner's number", "owner in another container", "world-readable",
         "world-readable to another container", "group", "primary group", "group of a number",
         "group 0 of another container", "group 0 of a number that is somebody here too"],
)  # fmt: skip
def test_outside_dev_a_key_that_the_worker_can_read_is_refused(
    guarded: Guarded, worker: str, owner: int, group: int, bits: int
) -> None:
    with pytest.raises(ConfigurationError, match=rf"mode {bits:o}, user {owner}\) can be read by {worker}"):
        guarded(worker, owner, group, bits)


class Started(Exception):
    """The notary would run now."""


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the private key of a notary in ``prod`` for which everything is set; starting it raises Started."""
    for name in [name for name in os.environ if name.startswith("LLMOPS_")]:
        monkeypatch.delenv(name)
    environments = tmp_path / "include" / "environments"
    environments.mkdir(parents=True)
    here = "http://127.0.0.1:9"
    values = {
        **{"catalog": "prod", "storage_root": "x", "database_url": "postgresql://x", "notary_keys": tmp_path},
        **{f"{name}_url": here for name in ("mlflow", "airflow", "serving", "notary")},
    }
    for name in ("dev", "prod"):
        text = "".join(f"{key}: {value}\n" for key, value in values.items())
        (environments / f"{name}.yaml").write_text(text)
    private = tmp_path / "private"
    SigningKey.generate().save(private, "test")
    for name, value in {
        "INCLUDE": str(tmp_path / "include"), "HOME": str(tmp_path / "home"), "ENV": "prod",
        "AIRFLOW_USER": "notary", "AIRFLOW_PASSWORD": "secret", "NOTARY_KEY": str(private),
        "WORKER_USER": str(WORKER),
    }.items():  # fmt: skip
        monkeypatch.setenv(f"LLMOPS_{name}", value)

    def start(self: Notary, host: str, port: int) -> None:
        raise Started

    monkeypatch.setattr(Notary, "run", start)
    return private


def _run() -> None:
    CliRunner().invoke(command, ["run"], catch_exceptions=False)


def test_the_notary_starts_with_a_private_key_and_an_account(started: Path) -> None:
    with pytest.raises(Started):
        _run()


@pytest.mark.parametrize("name", ["AIRFLOW_USER", "AIRFLOW_PASSWORD", "NOTARY_KEY", "WORKER_USER"])
def test_the_notary_names_the_variable_that_is_not_set(
    started: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv(f"LLMOPS_{name}")
    with pytest.raises(ConfigurationError, match=f"LLMOPS_{name} is not set"):
        _run()


def test_the_notary_does_not_start_in_prod_with_a_key_that_tasks_can_read(
    started: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started.chmod(0o644)
    with pytest.raises(ConfigurationError, match=f"mode 644.*can be read by {WORKER}"):
        _run()
    monkeypatch.setenv("LLMOPS_ENV", "dev")
    with pytest.raises(Started):
        _run()


def test_the_command_makes_the_key_and_says_its_fingerprint(files: tuple[Path, Path]) -> None:
    arguments = ["key", "--private", str(files[0]), "--public", str(files[1])]
    outputs = [CliRunner().invoke(command, arguments, catch_exceptions=False).output for _ in range(2)]
    assert outputs == [f"The notary signs with key {SigningKey.load(files[0]).fingerprint}\n"] * 2
