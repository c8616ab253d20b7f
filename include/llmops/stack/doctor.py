"""Looks for what would keep the stack from starting or working on this machine."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from llmops import settings
from llmops.errors import LlmopsError
from llmops.stack._airflow_settings import read_airflow_settings
from llmops.stack._layout import PORTS
from llmops.stack._ports import PortHolder
from llmops.stack.postgres import EmbeddedPostgres
from llmops.stack.stack import Stack

__all__ = ["Finding", "Verdict", "diagnose"]

_DISK_GB = 5
_MEMORY_GB = 4
_PIN = re.compile(r"^[A-Za-z0-9][^#\\\n]*", re.MULTILINE)


class Verdict(StrEnum):
    """How serious a finding is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """What one check found, and what to do about it."""

    check: str
    verdict: Verdict
    message: str


def diagnose(stack: Stack) -> Iterator[Finding]:
    """Run every check, cheap ones first; a check that fails itself is a problem."""
    checks: dict[str, Callable[[Stack], tuple[Verdict, str]]] = {
        "python": _python,
        "packages": _packages,
        "git": _git,
        "disk": _disk,
        "memory": _memory,
        "configuration": _configuration,
        "ports": _ports,
        "postgres": _postgres,
        "stack": _stack,
    }
    for name, check in checks.items():
        try:
            verdict, message = check(stack)
        except (LlmopsError, OSError) as error:
            verdict, message = Verdict.PROBLEM, str(error)
        yield Finding(name, verdict, message)


def _python(_: Stack) -> tuple[Verdict, str]:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] != (3, 11):
        return Verdict.PROBLEM, f"this is Python {found}: install 3.11, remove .venv, run `make setup`"
    return Verdict.OK, f"Python {found}"


def _packages(_: Stack) -> tuple[Verdict, str]:
    lock = settings.include_root().parent / "requirements.txt"
    if not lock.is_file():
        return Verdict.WARNING, f"{lock} does not exist: versions cannot be compared"
    wrong, right = [], 0
    for line in _PIN.findall(lock.read_text("utf-8")):
        pin = Requirement(line)
        if pin.marker and not pin.marker.evaluate():
            continue
        try:
            installed = importlib.metadata.version(pin.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{pin.name} is missing")
            continue
        if pin.specifier.contains(installed, prereleases=True):
            right += 1
        else:
            wrong.append(f"{pin.name} is {installed}, not {pin.specifier}")
    if wrong or not right:
        return Verdict.PROBLEM, f"{'; '.join(wrong[:5]) or 'nothing is installed'}: run `make setup`"
    return Verdict.OK, f"{right} packages are those of requirements.txt"


def _git(_: Stack) -> tuple[Verdict, str]:
    found = shutil.which("git")
    if found is None:
        return Verdict.WARNING, "git is not installed: sources of kind `git` will not work"
    return Verdict.OK, found


def _disk(stack: Stack) -> tuple[Verdict, str]:
    there = next(folder for folder in (stack.home, *stack.home.parents) if folder.exists())
    free = {folder: shutil.disk_usage(folder).free / 2**30 for folder in (there, Path(tempfile.gettempdir()))}
    said = ", ".join(f"{gigabytes:.1f} GB free in {folder}" for folder, gigabytes in free.items())
    if free[there] < _DISK_GB:
        return Verdict.PROBLEM, f"{said}: {_DISK_GB} GB are needed; set LLMOPS_HOME to a larger disk"
    return Verdict.OK, said


def _memory(_: Stack) -> tuple[Verdict, str]:
    free = psutil.virtual_memory().available / 2**30
    if free < _MEMORY_GB:
        return Verdict.WARNING, f"{free:.1f} GB available: {_MEMORY_GB} GB are needed; end other programs"
    return Verdict.OK, f"{free:.1f} GB available, {psutil.cpu_count()} processors"


def _configuration(stack: Stack) -> tuple[Verdict, str]:
    include = settings.include_root()
    files = sorted([*(include / "assistants").glob("*.yaml"), *(include / "environments").glob("*.yaml")])
    for file in files:
        settings.read_yaml(file)
    read_airflow_settings(include.parent / "airflow_settings.yaml")
    if stack.status():
        settings.load_environment()
    return Verdict.OK, f"{len(files)} files and airflow_settings.yaml can be read"


def _ports(stack: Stack) -> tuple[Verdict, str]:
    if stack.status():
        return Verdict.OK, "; ".join(f"{name} has {url}" for name, url in stack.addresses.items())
    holder = PortHolder()
    wished = {name: stack.wished_ports.get(name, usual) for name, usual in PORTS.items()}
    moved = {name: port for name, port in wished.items() if port and holder.claim(port) != port}
    if moved:
        said = ", ".join(f"{port} ({name}, LLMOPS_{name.upper()}_PORT)" for name, port in moved.items())
        return Verdict.WARNING, f"taken: {said}; `llmops stack up` will use other ports"
    return Verdict.OK, f"{', '.join(map(str, wished.values()))} are free"


def _postgres(_: Stack) -> tuple[Verdict, str]:
    with tempfile.TemporaryDirectory(prefix="llmops-doctor-") as folder:
        server = EmbeddedPostgres(Path(folder) / "postgres")
        try:
            server.start()
            account = server.account.name if server.account else "this user"
            return Verdict.OK, f"{server.version()} starts as {account}"
        finally:
            server.destroy()


def _stack(stack: Stack) -> tuple[Verdict, str]:
    states = stack.status()
    broken = [f"{state.name} is {state.state} ({state.note})" for state in states if not state.state.works]
    if broken:
        return Verdict.PROBLEM, f"{'; '.join(broken)}: see `llmops stack logs <process>`"
    return Verdict.OK, f"{len(states)} processes work" if states else "not running"
