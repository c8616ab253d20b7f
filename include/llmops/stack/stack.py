"""The local stack as commands, the demo and tests use it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from llmops import settings
from llmops.errors import ConfigurationError, StackError
from llmops.stack._airflow import airflow_environment
from llmops.stack._airflow_settings import load_airflow_settings, read_airflow_settings
from llmops.stack._layout import MARK, PORTS, SUPERVISOR_MARK, USERS, Layout, Options
from llmops.stack._sessions import end_session, marked_leaders, members
from llmops.stack._spawn import START_OF_LOG
from llmops.stack._state import ProcessState, Snapshot, State, read_state
from llmops.stack.airflow_api import AirflowClient
from llmops.stack.postgres import EmbeddedPostgres
from llmops.stack.processes import process_table, select

__all__ = ["Stack", "Started"]

log = logging.getLogger(__name__)

_ATTEMPTS = 3
_UP_SECONDS = 600.0
_DOWN_SECONDS = 60.0


@dataclass(frozen=True)
class Started:
    """What ``up`` did: the seconds it took, and the users' passwords if nobody has seen them yet."""

    seconds: float
    new_passwords: Mapping[str, str]
    already_up: bool


class Stack:
    """All processes of one checkout, below ``home`` (by default ``settings.home()``).

    ``only`` selects processes by name (what they require comes with them), ``ports`` wishes for ports
    of ``airflow``, ``mlflow``, ``serving``, ``follower`` and ``notary`` (0: any), and ``dags`` is the
    DAG folder, by default that of the checkout.
    """

    def __init__(
        self,
        home: Path | None = None,
        *,
        only: Iterable[str] = (),
        ports: Mapping[str, int] | None = None,
        dags: Path | None = None,
    ) -> None:
        self.home = (home or settings.home()).resolve()
        self._options = Options(self.home, tuple(only), _wished_ports(ports or {}), dags)
        self._run = self.home / "run"

    @property
    def wished_ports(self) -> Mapping[str, int]:
        """Return the ports that were asked for; the others have their usual one."""
        return self._options.ports

    @property
    def addresses(self) -> dict[str, str]:
        """Return the URL of each service of the running stack, by the service's name."""
        layout = self._layout()
        return {name: layout.address(name) for name in PORTS}

    @property
    def is_running(self) -> bool:
        """Return whether the stack's supervisor is alive."""
        return self._running() is not None

    @property
    def environment(self) -> dict[str, str]:
        """Return the LLMOPS variables that the running stack published, as the worker role."""
        return dict(self._published()["environment"])

    def database_url(self, role: str = "llmops_worker", database: str = "llmops") -> str:
        """Return the URL of a database of this stack as ``role``."""
        return self._layout().postgres.url(role, database)

    def password(self, user: str) -> str:
        """Return the password of one of Airflow's users."""
        if user not in USERS:
            raise ConfigurationError(f"Airflow has no user {user!r} here; there is: {', '.join(USERS)}")
        return self._layout().password(user)

    def client(self, user: str = "admin") -> AirflowClient:
        """Return a client of the running Airflow as ``user``."""
        return AirflowClient(self.addresses["airflow"], user, self.password(user))

    def airflow(self, *arguments: str) -> int:
        """Run ``airflow <arguments>`` on the running stack, on this process's terminal; return its exit status.

        Raises StackError when no stack is running, and ConfigurationError for `dags trigger`: such a run is
        started by nobody whom Airflow knows, so no author could be kept from approving their own release.
        """
        if arguments[:2] == ("dags", "trigger"):
            raise ConfigurationError(
                "`airflow dags trigger` starts a run without an account, so its author would be unknown: "
                "trigger it in Airflow's UI or API"
            )
        if self._running() is None:
            raise StackError(f"no stack is running in {self.home}: start it with `llmops stack up`")
        layout = self._layout()
        command = layout.python("airflow", *arguments)
        return subprocess.run(command, env=airflow_environment(layout), check=False).returncode

    def status(self) -> list[ProcessState]:
        """Return the state of every process, in the order of the table; empty when the stack is down."""
        snapshot = self._running()
        return list(snapshot.processes.values()) if snapshot else []

    def up(self, progress: Callable[[str], None] = lambda line: None) -> Started:
        """Start what is not running, wait until all of it works, load Airflow's settings.

        A stack that runs other code than the present is started anew with all it ran, since its service
        would refuse every release of the present code. ``progress`` is given one line per process. Raises
        StackError, after stopping what it started, when a process does not come up.
        """
        began = time.monotonic()
        with self._exclusively():
            running = self._running()
            table, only = process_table(self._planned()), self._options.only
            wanted = {row.name for row in select(table, only)}
            already_up = running is not None and wanted <= set(running.processes)
            if running is not None and not self._runs_this_code():
                progress("the code changed since the stack started: restarting it")
                already_up = False
                known = [row.name for row in table if row.name in running.processes]
                only = (*only, *known) if only else ()
            if not (already_up and self._follow(progress, began)):
                already_up = False
                self._stop()
                self._start(progress, began, only)
            return Started(time.monotonic() - began, self._unseen_passwords(), already_up)

    def down(self) -> int:
        """Stop everything, also what a killed supervisor left behind; return how many processes ran."""
        with self._exclusively():
            return self._stop()

    def log_file(self, name: str) -> Path:
        """Return the log file of a process."""
        file = self.home / "logs" / f"{name}.log"
        if not file.is_file():
            known = ", ".join(sorted(f.stem for f in file.parent.glob("*.log"))) or "none yet"
            raise ConfigurationError(f"there is no log {name!r} in {file.parent}; there is: {known}")
        return file

    def load_airflow_settings(self) -> dict[str, int]:
        """Load ``airflow_settings.yaml`` of the checkout into Airflow; return how many of each kind."""
        layout = self._layout()
        server = layout.postgres
        places: dict[str, dict[str, Any]] = {
            "llmops_postgres": {
                "conn_host": str(server.socket_folder),
                "conn_login": "llmops_worker",
                "conn_password": server.passwords["llmops_worker"],
            },
            "mlflow": {"conn_host": "http://127.0.0.1", "conn_port": layout.ports["mlflow"]},
        }
        found = read_airflow_settings(layout.root / "airflow_settings.yaml").at(places)
        with self.client() as client:
            return load_airflow_settings(found, client)

    def _planned(self) -> Layout:
        return Layout(self._options, {**PORTS, **self._options.ports})

    def _published(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self._run / "stack.json").read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise StackError(f"no stack runs in {self.home}: start it with `llmops stack up`") from error
        return found

    def _layout(self) -> Layout:
        published = self._published()
        return Layout(Options(self.home, dags=Path(published["dags"])), published["ports"])

    def _runs_this_code(self) -> bool:
        """Tell whether the running stack was started with the code that is there now."""
        from llmops.release import code_digest

        try:
            return bool(self._published().get("code") == code_digest())
        except StackError:
            return False

    def _running(self) -> Snapshot | None:
        snapshot = read_state(self._run / "processes.json")
        return snapshot if snapshot and snapshot.supervisor.alive() else None

    @contextlib.contextmanager
    def _exclusively(self) -> Iterator[None]:
        """Keep two commands from starting and stopping one stack at the same time."""
        for folder in (self._run, self.home / "logs"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._run / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StackError(
                    f"another `llmops stack` command is at work in {self.home}: wait until it has ended"
                ) from error
            yield

    def _start(self, progress: Callable[[str], None], began: float, only: tuple[str, ...]) -> None:
        """Start everything; stop what came up when something did not."""
        try:
            self._launch(only)
            if not self._follow(progress, began):
                raise StackError(f"the supervisor ended: see {self.home / 'logs' / 'supervisor.log'}")
        except BaseException:
            self._stop()
            raise

    def _launch(self, only: tuple[str, ...]) -> None:
        """Start the supervisor in the background and wait until it has published the addresses."""
        for name in ("stack.json", "error.txt"):
            (self._run / name).unlink(missing_ok=True)
        given = {
            "home": str(self.home),
            "only": only,
            "ports": dict(self._options.ports),
            "dags": str(self._options.dags or ""),
        }
        log_file = self.home / "logs" / "supervisor.log"
        environment = {
            **settings.inherited(),
            "PYTHONPATH": str(settings.include_root()),
            SUPERVISOR_MARK: str(self.home),
        }
        with log_file.open("ab") as output:
            child = subprocess.Popen(
                [sys.executable, "-m", "llmops.stack", json.dumps(given)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.home,
                env=environment,
                start_new_session=True,
            )
        deadline = time.monotonic() + 180
        while not (self._run / "stack.json").exists():
            if child.poll() is not None or time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
                said = self._run / "error.txt"
                unsaid = f"the supervisor did not start: see {log_file}"
                raise StackError(said.read_text() if said.exists() else unsaid)
            time.sleep(0.05)
        threading.Thread(target=child.wait, daemon=True).start()

    def _follow(self, progress: Callable[[str], None], began: float) -> bool:
        """Report each process as it becomes ready; return whether all are, False if the supervisor ended."""
        told: set[str] = set()
        loading: _Loading | None = None
        while True:
            snapshot = self._running()
            if snapshot is None:
                return False
            for name, process in snapshot.processes.items():
                if process.state.works and name not in told:
                    told.add(name)
                    progress(_line(process))
                if name == "airflow-api-server" and process.state is State.READY and loading is None:
                    loading = _Loading(self)
                if process.failures >= _ATTEMPTS:
                    raise StackError(f"{name} does not start: {process.note}. {self._last_words(name)}")
            if all(process.state.works for process in snapshot.processes.values()):
                break
            if time.monotonic() - began > _UP_SECONDS:
                late = [name for name, process in snapshot.processes.items() if not process.state.works]
                raise StackError(f"not ready after {_UP_SECONDS:.0f} s: {late}. {self._last_words(late[0])}")
            time.sleep(0.1)
        if loading is not None:
            progress(loading.result())
        return True

    def _last_words(self, name: str) -> str:
        file = self.home / "logs" / f"{name}.log"
        text = file.read_text(errors="replace") if file.is_file() else ""
        lines = text.rpartition(START_OF_LOG)[2].strip().splitlines()[1:][-12:]
        return "\n".join([f"The end of {file}:", *lines])

    def _stop(self) -> int:
        """End the supervisor, which ends the rest; then end what it could not.

        Supervisors are found by their mark too, also one whose notes are lost or were written by another
        version: one that lives on would start again what is ended here.
        """
        snapshot = read_state(self._run / "processes.json")
        server = EmbeddedPostgres(self.home / "postgres")
        supervisors = set(marked_leaders(SUPERVISOR_MARK, str(self.home)))
        leaders = set(marked_leaders(MARK, str(self.home)))
        if snapshot and snapshot.is_of_this_machine():
            leaders |= {process.leader for process in snapshot.processes.values() if process.leader}
            leaders = {leader for leader in leaders if members(leader)}
            supervisors.add(snapshot.supervisor)
        for supervisor in supervisors:
            end_session(supervisor, grace_seconds=_DOWN_SECONDS)
        with ThreadPoolExecutor(max_workers=16) as pool:
            list(pool.map(end_session, [leader for leader in leaders if not server.owns(leader.pid)]))
        server.clear_leftovers()
        with contextlib.suppress(OSError):
            server.socket_folder.rmdir()
        for name in ("stack.json", "processes.json"):
            (self._run / name).unlink(missing_ok=True)
        return len(leaders)

    def _unseen_passwords(self) -> dict[str, str]:
        mark = self.home / "airflow" / "passwords-shown"
        if mark.exists() or not mark.parent.exists():
            return {}
        mark.touch()
        return {user: self.password(user) for user in USERS if user != "service"}


class _Loading:
    """Loads Airflow's settings, and wakes what would delay the first task, while the rest still starts."""

    def __init__(self, stack: Stack) -> None:
        self._pool = ThreadPoolExecutor(max_workers=2)
        self._loaded = self._pool.submit(self._load, stack)
        self._woken = self._pool.submit(self._wake, f"{stack.addresses['airflow']}/execution/health")
        self._pool.shutdown(wait=False)

    def result(self) -> str:
        """Return the line to show when it is done; raise what went wrong."""
        self._woken.result()
        return self._loaded.result()

    @staticmethod
    def _load(stack: Stack) -> str:
        began = time.monotonic()
        counts = stack.load_airflow_settings()
        named = {kind: kind.removesuffix("s") if number == 1 else kind for kind, number in counts.items()}
        what = ", ".join(f"{number} {named[kind]}" for kind, number in counts.items() if number)
        return f"{'airflow-settings':<22} {what} loaded in {time.monotonic() - began:.1f} s"

    @staticmethod
    def _wake(url: str) -> None:
        """Ask the part of Airflow's API that tasks use: it is built at its first request, for seconds."""
        with contextlib.suppress(httpx.TransportError):
            httpx.get(url, timeout=120, trust_env=False)


def _wished_ports(ports: Mapping[str, int]) -> dict[str, int]:
    """Return the wishes given to the stack over those of the variables LLMOPS_<NAME>_PORT."""
    unknown = sorted(set(ports) - set(PORTS))
    if unknown:
        raise ConfigurationError(f"there are no ports called {unknown!r}; there are: {', '.join(PORTS)}")
    variables = settings.inherited()
    wishes: dict[str, int] = {}
    for name in PORTS:
        variable = f"LLMOPS_{name.upper()}_PORT"
        try:
            if value := variables.get(variable):
                wishes[name] = int(value)
        except ValueError as error:
            raise ConfigurationError(f"{variable} is {value!r}: set it to the number of a port") from error
    return {**wishes, **ports}


def _line(process: ProcessState) -> str:
    did = process.note or ("done" if process.state is State.DONE else "ready")
    seconds = f" in {process.seconds:.1f} s" if process.seconds else ""
    return f"{process.name:<22} {did}{seconds}{f'  {process.address}' if process.address else ''}"
