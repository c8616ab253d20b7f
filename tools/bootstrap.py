"""Make ``.venv`` hold exactly what the lock says, and nothing else to install by hand.

``make demo``, ``make test`` and the others run this first. It does nothing when the environment is
current. It runs on any Python 3.8 or newer with the standard library alone, because it is what
brings everything else: uv through pip or straight from the package index, and Python 3.11 through uv.

Variables that people may set: ``LLMOPS_TORCH`` (a torch backend of uv: cpu, auto, cu130, ...),
``LLMOPS_PYTHON`` (the Python 3.11 to use), ``UV`` (the uv to use), and pip's own ``PIP_INDEX_URL``,
``PIP_EXTRA_INDEX_URL``, ``PIP_FIND_LINKS``, ``PIP_NO_INDEX``, ``PIP_CERT`` and ``PIP_TRUSTED_HOST``.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urljoin

UV_VERSION = "0.13.9"
OLDEST_UV = (0, 8)
PYTHON_VERSION = "3.11"
LOCKS = ("requirements.txt", "requirements-dev.txt")
CUDA_PACKAGE = re.compile(r"^(nvidia[-_]|cuda[-_]|(pytorch[-_])?triton$)")
DISK_NEEDED_GB = 4.5
LINE_SPEED_MB = 10
UNPACKING_MINUTES = 2


class BootstrapError(Exception):
    """Something a person has to change; the message says what."""


class Plan(NamedTuple):
    """How to install the lock: the options for uv, and what it would install."""

    options: tuple[str, ...]
    packages: tuple[str, ...]
    to_download: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    parser = argparse.ArgumentParser(description="Make .venv hold exactly what the lock says.")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("setup", help="create or renew .venv when it is missing or stale (the default)")
    commands.add_parser("uv", help="print the path of a usable uv, fetching it when there is none")
    install = commands.add_parser("install", help="install the runtime lock into an existing Python")
    install.add_argument("--python", required=True, help="the interpreter to install into")
    chosen = parser.parse_args(arguments)
    root = chosen.root.resolve()
    try:
        if chosen.command == "uv":
            print(find_uv(root, os.environ))
        elif chosen.command == "install":
            install_into(root, chosen.python, os.environ)
        else:
            setup(root, os.environ)
    except BootstrapError as error:
        print(f"\nset-up failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up interrupted: the next `make` starts it again", file=sys.stderr)
        return 130
    return 0


def setup(root: Path, environment: Mapping[str, str]) -> bool:
    """Create or renew ``.venv`` when needed; return whether anything was done."""
    if is_current(root):
        return False
    with _alone(root):
        if is_current(root):  # another `make` did it while this one waited
            return False
        started = time.monotonic()
        _announce(root)
        venv = root / ".venv"
        uv = find_uv(root, environment)
        variables = uv_environment(environment)
        _prepare_venv(uv, venv, variables)
        locks = [root / name for name in LOCKS]
        plan = choose_plan(uv, venv / "bin" / "python", locks, variables)
        cached = len(plan.packages) - plan.to_download
        print(f"Installing {len(plan.packages)} packages, {cached} of them from uv's cache ...", flush=True)
        unfinished = venv / ".installing"
        unfinished.touch()
        target = ["--python", str(venv / "bin" / "python"), "--compile-bytecode"]
        _install(uv, [*target, "--exact", *plan.options, *_requirements(locks)], variables)
        _install(uv, [*target, "--no-deps", "--editable", str(root)], variables)
        _stamp(root).write_text(json.dumps({"fingerprint": fingerprint(root)}) + "\n")
        unfinished.unlink()
    print(f"Environment ready in .venv after {time.monotonic() - started:.0f} s.\n", flush=True)
    return True


def install_into(root: Path, python: str, environment: Mapping[str, str]) -> None:
    """Install the runtime lock and this package into an interpreter that exists, as images do."""
    uv = find_uv(root, environment)
    variables = uv_environment(environment)
    locks = [root / LOCKS[0]]
    plan = choose_plan(uv, Path(python), locks, variables)
    _install(uv, ["--python", python, "--compile-bytecode", *plan.options, *_requirements(locks)], variables)
    _install(uv, ["--python", python, "--no-deps", "--editable", str(root)], variables)


# --- What is there ---------------------------------------------------------------------------------


def fingerprint(root: Path) -> str:
    """Return a digest of all that decides what ``.venv`` holds, its place included.

    File times play no part (a checkout changes them), nor do the settings of tools in pyproject.toml.
    """
    digest = hashlib.sha256(f"{root}\0{PYTHON_VERSION}\0".encode())
    for name in LOCKS:
        digest.update((root / name).read_bytes() + b"\0")
    sections = re.split(r"(?m)^(?=\[)", (root / "pyproject.toml").read_text(encoding="utf-8"))
    for section in sections:
        if section.startswith(("[project", "[build-system", "[tool.hatch")):
            digest.update(section.encode())
    return digest.hexdigest()


def is_current(root: Path) -> bool:
    """Return whether ``.venv`` is complete and was made from the lock as it is now."""
    venv = root / ".venv"
    present = (venv / "bin" / "python").exists() and (venv / "bin" / "llmops").exists()
    if not present or (venv / ".installing").exists():
        return False
    try:
        stamp = json.loads(_stamp(root).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return bool(stamp.get("fingerprint") == fingerprint(root))


def has_gpu(environment: Mapping[str, str]) -> bool:
    """Return whether this machine has an NVIDIA GPU with a working driver."""
    command = shutil.which("nvidia-smi", path=environment.get("PATH"))
    if command is None:
        return False
    try:
        listed = subprocess.run([command, "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU" in listed.stdout


def uv_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for uv: pip's settings in uv's words, because uv reads none of pip's."""
    variables = dict(environment)
    for name in ("PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"):
        variables.pop(name, None)
    translations = {
        "PIP_INDEX_URL": ("UV_DEFAULT_INDEX", " "),
        "PIP_EXTRA_INDEX_URL": ("UV_INDEX", " "),
        "PIP_FIND_LINKS": ("UV_FIND_LINKS", ","),
        "PIP_TRUSTED_HOST": ("UV_INSECURE_HOST", " "),
        "PIP_NO_INDEX": ("UV_NO_INDEX", " "),
        "PIP_CERT": ("SSL_CERT_FILE", " "),
    }
    for theirs, (ours, separator) in translations.items():
        if environment.get(theirs) and not environment.get(ours):
            variables[ours] = separator.join(environment[theirs].split())
    if environment.get("PIP_EXTRA_INDEX_URL"):
        # pip takes the best version of all its indexes; uv would stop at the first that knows the name.
        variables.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    return variables


# --- uv --------------------------------------------------------------------------------------------


def find_uv(root: Path, environment: Mapping[str, str]) -> str:
    """Return a usable uv: ``UV``, one on the path, one fetched before, or one fetched now."""
    fetched = root / ".tools" / f"uv-{UV_VERSION}" / "bin" / "uv"
    for candidate in (environment.get("UV"), shutil.which("uv", path=environment.get("PATH")), str(fetched)):
        if candidate and _uv_version(candidate) >= OLDEST_UV:
            return candidate
    partial = fetched.parent.parent.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    (root / ".tools" / ".gitignore").write_text("*\n")
    print(f"Fetching uv {UV_VERSION} (20 MB), the installer ...", file=sys.stderr, flush=True)
    problem = _fetch_with_pip(partial) or ""
    if not (partial / "bin" / "uv").exists():
        try:
            _fetch_from_index(partial, environment)
        except (OSError, ValueError, KeyError) as error:
            raise BootstrapError(
                f"uv could not be fetched: {problem}; straight from the package index: {error}. Check the "
                "network (PIP_INDEX_URL names a mirror), or install uv yourself (docs.astral.sh/uv)"
            ) from error
    shutil.rmtree(fetched.parent.parent, ignore_errors=True)
    partial.rename(fetched.parent.parent)
    return str(fetched)


def _uv_version(command: str) -> tuple[int, ...]:
    try:
        shown = subprocess.run([command, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return ()
    found = re.match(r"uv (\d+)\.(\d+)", shown)
    return tuple(int(part) for part in found.groups()) if found else ()


def _fetch_with_pip(folder: Path) -> str | None:
    """Install uv into ``folder`` with pip, which knows this machine's indexes; return what went wrong."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
    command += ["--target", str(folder), f"uv=={UV_VERSION}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    return f"with pip: {last}"


def _fetch_from_index(folder: Path, environment: Mapping[str, str]) -> None:
    """Unpack uv's wheel from the package index, for a Python that has no pip (Debian's has none)."""
    index = environment.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")
    page = f"{index}/uv/"
    request = urllib.request.Request(page, headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        files = json.load(answer)["files"]
    system = {"Linux": "manylinux", "Darwin": "macosx"}.get(platform.system(), platform.system())
    for file in files:
        name = file["filename"]
        if name.startswith(f"uv-{UV_VERSION}-") and system in name and f"{platform.machine()}.whl" in name:
            break
    else:
        raise ValueError(f"{page} has no wheel of uv {UV_VERSION} for {system} on {platform.machine()}")
    wheel = folder / name
    with urllib.request.urlopen(urljoin(page, file["url"]), timeout=300) as answer, wheel.open("wb") as out:
        shutil.copyfileobj(answer, out)
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != file["hashes"]["sha256"]:
        raise ValueError(f"{name} does not have the sha-256 that the index names")
    (folder / "bin").mkdir()
    with zipfile.ZipFile(wheel) as archive:
        (folder / "bin" / "uv").write_bytes(archive.read(f"uv-{UV_VERSION}.data/scripts/uv"))
    (folder / "bin" / "uv").chmod(0o755)
    wheel.unlink()


# --- Installing ------------------------------------------------------------------------------------


def choose_plan(uv: str, python: Path, locks: Sequence[Path], variables: Mapping[str, str]) -> Plan:
    """Return the first way to install that works and brings CUDA only where it was asked for or fits.

    Every way is tried as a dry run, so nothing is downloaded before the answer is known.
    """
    wanted, backend = variables.get("LLMOPS_TORCH"), "--torch-backend="
    cuda_fits = bool(wanted and wanted != "cpu") or has_gpu(variables)
    if wanted:
        ways = [[backend + wanted], []] if wanted == "cpu" else [[backend + wanted]]
    elif cuda_fits:
        ways = [[backend + "auto"], []]
    elif platform.system() == "Darwin" or variables.get("UV_FIND_LINKS"):
        ways = [[], [backend + "cpu"]]
    else:
        ways = [[backend + "cpu"], []]
    problems = []
    for options in ways:
        plan, problem = _dry_run(uv, python, locks, options, variables)
        cuda = [name for name in plan.packages if CUDA_PACKAGE.match(name)] if plan else []
        if plan and (cuda_fits or not cuda):
            return plan
        if cuda:
            problem = (
                f"torch would bring {len(cuda)} CUDA packages ({cuda[0]}, ...), gigabytes of them, "
                "and this machine has no NVIDIA GPU"
            )
        problems.append(f"{' '.join(options) or 'from the configured indexes'}: {problem}")
    listed = "\n  - ".join(problems)
    raise BootstrapError(
        f"no way to install the lock was found, and nothing was installed.\n  - {listed}\n"
        "Make uv's PyTorch index reachable, or put a CPU wheel of torch (the lock's version, Python 3.11) "
        "into a folder and set PIP_FIND_LINKS to it; LLMOPS_TORCH=cu130 asks for CUDA on purpose."
    )


def _dry_run(
    uv: str, python: Path, locks: Sequence[Path], options: Sequence[str], variables: Mapping[str, str]
) -> tuple[Plan | None, str]:
    """Resolve without installing; return the plan, or what went wrong."""
    command = [uv, "pip", "install", "--dry-run", "--python", str(python), *options, *_requirements(locks)]
    patience = {"UV_HTTP_TIMEOUT": "15", "UV_HTTP_RETRIES": "1"} if options else {}
    done = subprocess.run(command, env={**variables, **patience}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        return None, " ".join(lines)[-600:] or "uv said nothing"
    output = done.stdout + done.stderr
    packages = tuple(re.findall(r"(?m)^ *\+ ([A-Za-z0-9._-]+)==", output))
    downloads = re.search(r"Would download (\d+)", output)
    return Plan(tuple(options), packages, int(downloads.group(1)) if downloads else 0), ""


def _prepare_venv(uv: str, venv: Path, variables: Mapping[str, str]) -> None:
    """Create ``.venv`` with Python 3.11 unless there is a sound one of this checkout to renew."""
    if _is_sound(venv):
        return
    python = variables.get("LLMOPS_PYTHON", PYTHON_VERSION)
    command = [uv, "venv", "--quiet", "--clear", "--python", python, "--prompt", "llmops", str(venv)]
    done = subprocess.run(command, env=dict(variables), stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise BootstrapError(
            f"no Python {PYTHON_VERSION} for .venv: {done.stderr.strip()}. Install it (Debian, Ubuntu: apt "
            "install python3.11; macOS: brew install python@3.11), or set LLMOPS_PYTHON=/path/to/python3.11"
        )


def _is_sound(venv: Path) -> bool:
    """Return whether an environment can be renewed in place: right Python, not moved, not half-installed."""
    python = venv / "bin" / "python"
    if (venv / ".installing").exists() or not python.exists():
        return False
    program = "import sys; print('%d.%d' % sys.version_info[:2]); print(sys.prefix)"
    shown = subprocess.run([str(python), "-c", program], capture_output=True, text=True, check=False)
    if shown.stdout.split("\n")[:2] != [PYTHON_VERSION, str(venv)]:
        return False
    command = venv / "bin" / "llmops"
    return not command.exists() or str(venv) in command.read_text(errors="replace")


def _install(uv: str, arguments: Sequence[str], variables: Mapping[str, str]) -> None:
    """Run uv and pass on its progress with the seconds gone by, without its line per package."""
    started = time.monotonic()
    command = [uv, "pip", "install", *arguments]
    with subprocess.Popen(command, env=dict(variables), stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr or ():
            if re.match(r" *[-+~] ", line):
                continue
            print(f"{time.monotonic() - started:4.0f} s  {line.strip()}", flush=True)
            if re.match(r"Installed \d{2,} packages", line):
                print("        compiling them to bytecode: a minute for all, on two cores ...", flush=True)
    if process.returncode != 0:
        raise BootstrapError(
            f"uv could not install (exit status {process.returncode}; its message is above). "
            "Run the same command again: what was downloaded is kept"
        )


def _requirements(locks: Sequence[Path]) -> list[str]:
    return [argument for lock in locks for argument in ("--requirements", str(lock))]


def _announce(root: Path) -> None:
    """Say what set-up will cost before it starts; stop when the disk has no room for it."""
    if (root / ".venv").exists():
        print("Set-up: renewing .venv, because the lock changed or it is not complete.", flush=True)
        return
    found = re.search(r"(?m)^# Download: (\d+) MB", (root / LOCKS[1]).read_text(encoding="utf-8"))
    size = int(found.group(1)) if found else 1000
    minutes = UNPACKING_MINUTES + size / LINE_SPEED_MB / 60
    print(
        f"Set-up, once: it downloads at most {size} MB into .venv (less what uv's cache holds), takes about "
        f"{minutes:.0f} minutes at {LINE_SPEED_MB} MB/s, and needs {DISK_NEEDED_GB} GB of disk.",
        flush=True,
    )
    free = shutil.disk_usage(root).free / 1e9
    if free < DISK_NEEDED_GB:
        raise BootstrapError(
            f"{root} has {free:.1f} GB free and set-up needs {DISK_NEEDED_GB} GB: make room first"
        )


def _stamp(root: Path) -> Path:
    return root / ".venv" / ".llmops-stamp"


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Let one set-up run at a time in this checkout; the lock goes with the process."""
    folder = root / ".tools"
    folder.mkdir(exist_ok=True)
    (folder / ".gitignore").write_text("*\n")
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    raise SystemExit(main())
