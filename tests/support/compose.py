"""The services of ``docker-compose.yaml`` as processes of this machine, for want of Docker.

What an image and Compose give a service is given here in the same way: the environment of the Dockerfile and
of the service and nothing else, the files that the Dockerfile copies, folders that only those share who mount
the same volume, and the order and health that ``depends_on`` asks for.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml

from llmops.stack import EmbeddedPostgres
from llmops.stack._ports import PortHolder
from llmops.stack._sessions import Leader, end_session
from llmops.stack._spawn import spawn

ROOT = Path(__file__).resolve().parents[2]
STATE = "/var/lib/llmops"

_PORT = re.compile(r"(?:(?<=:)|^)(5432|5000|6379|80\d\d)(?=[/,]|$)")
_REFERENCE = re.compile(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}")
_BIN = Path(sys.executable).parent
_DATABASE = ("postgres", "initdb", "pg_isready")
_BROKER = ("redis-server", "redis-cli")


class Compose:
    """All services of one Compose file below ``folder``, at free ports of loopback."""

    def __init__(self, folder: Path, file: Path, secrets: Mapping[str, str]) -> None:
        self.folder = folder
        described = yaml.safe_load(file.read_text("utf-8"))
        self.services: dict[str, Any] = described["services"]
        self.configs: dict[str, Any] = described["configs"]
        self._secrets = secrets
        self._holder = PortHolder()
        self._ports: dict[str, str] = {}
        self._server = EmbeddedPostgres(folder / "postgres")
        self._leaders: dict[str, tuple[Leader, subprocess.Popen[bytes]]] = {}
        self.healthy: set[str] = set()
        self._build()
        for name in self.services:
            self._lay_out(name)

    def address(self, port: int) -> str:
        """Return where a port of the file is on this machine, as a URL."""
        return f"http://127.0.0.1:{self._port(str(port))}"

    def home(self, name: str) -> Path:
        """Return what ``/var/lib/llmops/home`` is for a service."""
        return Path(self.local(name, f"{STATE}/home"))

    def local(self, name: str, text: str) -> str:
        """Return a text of the file with this machine's ports, addresses and folders for a service."""
        text = _PORT.sub(lambda match: self._port(match[1]), text)
        text = re.sub(rf"(?<![\w.-])(?:{'|'.join(self.services)})(?=:\d)", "127.0.0.1", text)
        text = re.sub(r"^0\.0\.0\.0$", "127.0.0.1", text)
        for volume in self.services[name].get("volumes", ()):
            source, target = volume.split(":")[:2]
            text = re.sub(rf"{re.escape(target)}(?=/|$)", str(self.folder / "volumes" / source), text)
        for config in self.services[name].get("configs", ()):
            text = text.replace(config["target"], str(ROOT / self.configs[config["source"]]["file"]))
        text = re.sub(rf"{STATE}(?=/|$)", str(self.folder / "containers" / name), text)
        return _REFERENCE.sub(self._value, text)

    def environment(self, name: str) -> dict[str, str]:
        """Return the whole environment of a service's process."""
        airflow_home = str(self._airflow_home(name))
        image = {
            key: value.replace("${AIRFLOW_HOME}", airflow_home) for key, value in _image_environment().items()
        }
        own = self.services[name]["environment"]
        return {
            "AIRFLOW_HOME": airflow_home,
            "HOME": airflow_home,
            "PATH": f"{_BIN}:{os.defpath}",
            "PYTHONPATH": str(self.folder / "image" / "include"),
            **{key: self.local(name, str(value)) for key, value in {**image, **own}.items()},
        }

    def up(self) -> None:
        """Start everything in its order; return when all services are healthy and all steps ended with 0."""
        begun: dict[str, float] = {}
        while len(self.healthy) < len(self.services):
            for name in self.services:
                if name not in begun and self._may_start(name):
                    self._start(name)
                    begun[name] = time.monotonic()
                elif name in begun and name not in self.healthy and self._works(name, begun[name]):
                    self.healthy.add(name)
            self.check()
            time.sleep(1)

    def check(self) -> None:
        """Fail with the end of its log when a process ended that should run, or a step ended badly."""
        for name, (_, process) in self._leaders.items():
            status = process.poll()
            if status is not None and (status != 0 or "healthcheck" in self.services[name]):
                raise AssertionError(f"{name} ended with {status}:\n{self.log(name)}")

    def log(self, name: str, lines: int = 40) -> str:
        """Return the end of a service's output."""
        text = (self.folder / "logs" / name).read_text("utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def down(self) -> None:
        """End everything that was started, the database last and by its image's signal."""
        started = list(self._leaders.values())
        for _, process in started[1:]:
            process.terminate()
        for _, process in started[1:]:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
        for leader, process in reversed(started):
            end_session(leader, first=signal.SIGINT, grace_seconds=20)
            process.wait()
        self._server.destroy()

    def leftovers(self) -> list[str]:
        """Return the living processes that work below the folder."""
        found = []
        for process in psutil.process_iter(["cmdline", "cwd", "status"]):
            alive = process.info["status"] != psutil.STATUS_ZOMBIE
            if alive and (process.info["cwd"] or "").startswith(str(self.folder)):
                found.append(f"{process.pid} {process.info['cmdline']}")
        return found

    def secrets_seen_by(self, name: str) -> set[str]:
        """Return the secrets in a service's environment, which its processes inherit, and in its container's files."""
        targets = [volume.split(":")[1] for volume in self.services[name].get("volumes", ())]
        folders = [
            self._airflow_home(name),
            *(Path(self.local(name, target)) for target in (STATE, *targets)),
        ]
        files = {file for folder in folders for file in folder.rglob("*") if file.is_file()}
        texts = ["\0".join(self.environment(name).values()).encode(), *(file.read_bytes() for file in files)]
        return {key for key, value in self._secrets.items() if any(value.encode() in text for text in texts)}

    def _port(self, wanted: str) -> str:
        """Return the port that stands for one of the file; below those that the system gives to clients."""
        if wanted not in self._ports:
            self._ports[wanted] = str(self._holder.claim(random.randrange(20_000, 30_000)))
        return self._ports[wanted]

    def _value(self, match: re.Match[str]) -> str:
        name, operator, operand = match.groups()
        if found := self._secrets.get(name):
            return found
        assert operator != ":?", f"{name}: {operand}"
        return operand or ""

    def _airflow_home(self, name: str) -> Path:
        return self.folder / "images" / name

    def _build(self) -> None:
        """Copy what the Dockerfile copies: a change of the checkout does not reach what runs already."""
        for source in _copied_files():
            copy = self.folder / "image" / source
            copy.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, copy, dirs_exist_ok=True)
            else:
                shutil.copy2(ROOT / source, copy)

    def _lay_out(self, name: str) -> None:
        """Make the folders that the image has for a service."""
        image = self._airflow_home(name)
        image.mkdir(parents=True)
        for source in (self.folder / "image").iterdir():
            (image / source.name).symlink_to(source)
        for folder in ("home", "lake", "mlflow", "logs", "notary", "notary-keys", "users"):
            Path(self.local(name, f"{STATE}/{folder}")).mkdir(parents=True, exist_ok=True)

    def _may_start(self, name: str) -> bool:
        needs = self.services[name].get("depends_on", {})
        for need, value in needs.items():
            asked = value["condition"] == "service_healthy"
            assert asked == ("healthcheck" in self.services[need]), f"{name} waits for {need} in vain"
        return self.healthy.issuperset(needs)

    def _works(self, name: str, begun: float) -> bool:
        """Tell whether a step has ended, or a service's own health check succeeds; fail when that takes too long."""
        check = self.services[name].get("healthcheck")
        if check is None:
            return self._leaders[name][1].poll() == 0
        problem = self._problem(name, check)
        limit = _seconds(check["start_period"]) + check["retries"] * _seconds(check["interval"])
        if problem and time.monotonic() - begun > limit:
            raise AssertionError(f"{name} is not healthy after {limit:.0f} s: {problem}\n{self.log(name)}")
        return not problem

    def _problem(self, name: str, check: Mapping[str, Any]) -> str:
        """Run a health check once; return what is wrong, "" when it succeeded."""
        kind, *command = (self.local(name, part) for part in check["test"])
        assert kind == "CMD"
        try:
            done = subprocess.run(
                self._program(command),
                env=self.environment(name),
                cwd=self._airflow_home(name),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_seconds(check["timeout"]),
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            return str(error)
        return (done.stdout or f"its check ended with {done.returncode}") if done.returncode else ""

    def _start(self, name: str) -> None:
        command = [self.local(name, part) for part in self.services[name]["command"]]
        environment, folder, account = self.environment(name), self._airflow_home(name), None
        if command[0] == "postgres":
            command += self._make_cluster(environment)
            environment, folder, account = self._server.environment, self._server.place, self._server.account
        if command[0] == "redis-server":
            folder = Path(self.local(name, "/data"))
            folder.mkdir(parents=True)
            command += ["--bind", "127.0.0.1"]
        log_file = self.folder / "logs" / name
        log_file.parent.mkdir(exist_ok=True)
        with log_file.open("wb") as output:
            process = spawn(
                self._program(command), output, environment=environment, folder=folder, account=account
            )
        self._leaders[name] = (Leader.of(process.pid), process)

    def _program(self, command: list[str]) -> list[str]:
        """Return a command with the full path of its program: of a store's image, or of Python's environment."""
        if command[0] in _DATABASE:
            return [str(self._server._binary(command[0])), *command[1:]]
        if command[0] in _BROKER:
            found = shutil.which(command[0])
            assert found, f"there is no {command[0]} here"
            return [found, *command[1:]]
        assert (_BIN / command[0]).exists(), f"{command[0]} is not installed in {_BIN}"
        return [str(_BIN / command[0]), *command[1:]]

    def _make_cluster(self, environment: Mapping[str, str]) -> list[str]:
        """Do what the entry point of the Postgres image does; return the options that say where the server is."""
        server = self._server
        for folder in (server.place, server.socket_folder):
            server._claim(folder)
        secret = server.place / "password"
        secret.write_text(environment["POSTGRES_PASSWORD"])
        if server.account:
            os.chown(secret, server.account.uid, server.account.gid)
        options = f"--username=postgres --auth={environment['POSTGRES_HOST_AUTH_METHOD']}"
        options += f" {environment['POSTGRES_INITDB_ARGS']}"
        command = ["initdb", "-D", str(server.data), f"--pwfile={secret}", *options.split()]
        own, folder, account = server.environment, server.place, server.account
        process = spawn(
            self._program(command), subprocess.PIPE, environment=own, folder=folder, account=account
        )
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output.decode(errors="replace")
        secret.unlink()
        sockets = f"unix_socket_directories={server.socket_folder}"
        settings = ("listen_addresses=127.0.0.1", f"port={self._port('5432')}", sockets)
        return ["-D", str(server.data), *(part for setting in settings for part in ("-c", setting))]


def _image_environment() -> dict[str, str]:
    """Return the variables that the Dockerfile sets."""
    text = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    return dict(part.split("=", 1) for line in re.findall(r"(?m)^ENV (.+)$", text) for part in line.split())


def _copied_files() -> set[str]:
    """Return the files and folders of the checkout that the Dockerfile copies, each to its own name."""
    lines = re.findall(r"(?m)^COPY (.+)$", (ROOT / "Dockerfile").read_text("utf-8"))
    return {source for line in lines for source in line.split()[:-1]}


def _seconds(duration: str) -> float:
    assert duration.endswith("s"), duration
    return float(duration.removesuffix("s"))
