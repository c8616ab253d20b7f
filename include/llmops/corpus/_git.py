"""Documents from a Git repository as it was at a date, without ever checking it out."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator

from llmops.corpus._files import MAX_BYTES, Globs, Snapshot, SourceFile, SourceSettings, matches
from llmops.errors import MissingInput, ServiceUnavailable
from llmops.settings import environ, home

if TYPE_CHECKING:
    from llmops.corpus._sandbox import Sandbox

__all__ = ["GitSource"]

log = logging.getLogger(__name__)

_BRANCH = re.compile(r"(?!.*(?:\.\.|//|@\{|\.lock$|/$))[A-Za-z0-9_][A-Za-z0-9_./+-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SCP = re.compile(r"[\w.-]+@[\w.-]+:(?!/?/).+")
_URL = re.compile(r"(?:https?|ssh|git|file)://[^\s]+")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
_OURS = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
)
_FETCH_SECONDS = 900
_READ_SECONDS = 120


class GitSource(SourceSettings):
    """A branch of a repository, a local folder or a URL, as of the run's date.

    The state is the branch's newest first-parent commit whose commit date is not after that date, so
    a backfill replays history. ``include`` and ``exclude`` are globs on the path in the tree.
    """

    divisible: ClassVar[bool] = True

    kind: Literal["git"]
    repository: str
    branch: str = "main"
    include: Globs = Field(default=["**/*"])
    exclude: Globs = Field(default=[])

    @field_validator("repository")
    @classmethod
    def _is_a_place(cls, value: str) -> str:
        if value.startswith("-") or "\0" in value or not value.strip():
            raise ValueError("must be a folder or a URL, and must not start with '-'")
        if "://" in value and not _URL.fullmatch(value):
            raise ValueError("must be a folder or an https, ssh, git or file URL")
        if "::" in value.split("/")[0]:
            raise ValueError("must not name a transport helper such as 'ext::'")
        return value

    @field_validator("branch")
    @classmethod
    def _is_a_branch(cls, value: str) -> str:
        if not _BRANCH.fullmatch(value):
            raise ValueError("must be a branch name, and must not start with '-'")
        return value

    def pinned(self, as_of: datetime) -> str:
        """Return the id of the branch's commit as of a date; raises what ``discover`` raises."""
        return self._commit(self._local(), as_of)[0]

    def discover(
        self, as_of: datetime, *, pin: str | None = None, sandbox: Sandbox | None = None
    ) -> Snapshot:
        """Return the files of the branch as of a date, or those of the commit ``pin``.

        Raises MissingInput when the repository, the branch or a commit that old does not exist, and
        ServiceUnavailable when a remote does not answer.
        """
        repository = self._local(pin)
        commit, date = self._pinned(repository, pin) if pin else self._commit(repository, as_of)
        log.info("Source %s is at commit %s of %s", self.name, commit[:12], date.isoformat())
        return Snapshot(date, self._files(repository, commit), dated=True)

    def _local(self, needed: str | None = None) -> Path:
        """Return the folder of the repository; a remote one is fetched into a bare copy of our own.

        A copy that has the ``needed`` commit already is not fetched again.
        """
        if not _URL.fullmatch(self.repository) and not _SCP.fullmatch(self.repository):
            folder = Path(self.repository).expanduser()
            if not folder.is_dir():
                raise MissingInput(
                    f"source {self.name!r}: there is no repository at {str(folder)!r}: correct `repository`"
                )
            return folder.resolve()
        digest = hashlib.sha256(f"{self.repository}\0{self.branch}".encode()).hexdigest()[:24]
        copy = home() / "git" / f"{digest}.git"
        copy.parent.mkdir(parents=True, exist_ok=True)
        with _locked(copy.with_suffix(".lock")):
            if not (copy / "HEAD").is_file():
                _git(None, "init", "--quiet", "--bare", "--", str(copy))
            if needed is None or _date(copy, needed) is None:
                self._fetch(copy)
        return copy

    def _fetch(self, copy: Path) -> None:
        head = f"refs/heads/{self.branch}"
        try:
            _git(
                copy, "fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--force",
                "--", self.repository, f"{head}:{head}", seconds=_FETCH_SECONDS,
            )  # fmt: skip
        except GitFailed as error:
            shown = _CREDENTIALS.sub("", self.repository)
            if "couldn't find remote ref" in error.reason:
                raise self._no_branch(shown) from error
            raise ServiceUnavailable(
                f"source {self.name!r}: git cannot fetch {shown!r}: {error.reason}. "
                "Check the address, the network and this machine's right to read it"
            ) from error

    def _pinned(self, repository: Path, pin: str) -> tuple[str, datetime]:
        date = _date(repository, pin)
        if date is None:
            raise MissingInput(
                f"source {self.name!r}: {_CREDENTIALS.sub('', self.repository)!r} has no commit {pin!r} (any "
                "more): its branch was rewritten while it was being read; run this again from the start"
            )
        return pin, date

    def _commit(self, repository: Path, as_of: datetime) -> tuple[str, datetime]:
        """Return the newest first-parent commit that is not after ``as_of``, and its date."""
        head = f"refs/heads/{self.branch}"
        try:
            known = _git(repository, "for-each-ref", "--format=%(refname)", "--", head)
        except GitFailed as error:
            raise MissingInput(
                f"source {self.name!r}: {str(repository)!r} cannot be read as a Git repository: "
                f"{error.reason}"
            ) from error
        if head.encode() not in known.splitlines():
            raise self._no_branch(_CREDENTIALS.sub("", self.repository))
        newest = f"--min-age={int(as_of.timestamp())}"
        found = _git(repository, "log", "--first-parent", "-1", newest, "--format=%H %ct", head, "--").split()
        if not found:
            raise MissingInput(
                f"source {self.name!r}: branch {self.branch!r} has no commit on or before "
                f"{as_of.isoformat()}: start the backfill later"
            )
        return found[0].decode(), datetime.fromtimestamp(int(found[1]), UTC)

    def _no_branch(self, shown: str) -> MissingInput:
        return MissingInput(
            f"source {self.name!r}: {shown!r} has no branch {self.branch!r}: correct `branch`"
        )

    def _files(self, repository: Path, commit: str) -> Iterator[SourceFile]:
        entries = sorted(e for e in _tree(repository, commit) if self._wants(e.path))
        dates = _changed(repository, commit, {entry.path for entry in entries})
        with _Blobs(repository) as blobs:
            for entry in entries:
                yield SourceFile(
                    path=entry.path.encode("utf-8", "backslashreplace").decode(),
                    size=entry.size,
                    read=lambda entry=entry: blobs.read(entry.blob),  # type: ignore[misc]
                    source_date=dates.get(entry.path),
                    problem=_problem(entry),
                    revision=entry.blob,
                )

    def _wants(self, path: str) -> bool:
        hidden = any(part.startswith(".") for part in path.split("/"))
        return not hidden and matches(path, self.include, self.exclude)


class GitFailed(Exception):
    """A git command that failed; ``reason`` is its last message without credentials."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, order=True)
class _Entry:
    path: str
    mode: str
    blob: str
    size: int


def _problem(entry: _Entry) -> str | None:
    if entry.mode == "120000":
        return "it is a symbolic link: links in a repository are not followed"
    if entry.size > MAX_BYTES:
        return f"it has {entry.size:,} bytes, more than the {MAX_BYTES:,} a document may have: split it"
    if entry.path != entry.path.encode("utf-8", "backslashreplace").decode():
        return "its name is not valid UTF-8: rename it"
    return None


def _date(repository: Path, commit: str) -> datetime | None:
    """Return the date of a commit, None when the repository does not have it."""
    if not _COMMIT.fullmatch(commit):
        return None
    try:
        found = _git(repository, "log", "-1", "--format=%ct", commit, "--")
    except GitFailed:
        return None  # Whatever else is wrong with the repository, the commands that follow say so.
    return datetime.fromtimestamp(int(found), UTC)


def _tree(repository: Path, commit: str) -> Iterator[_Entry]:
    for line in _git(repository, "ls-tree", "-r", "-z", "--long", "--full-tree", commit, "--").split(b"\0"):
        if line:
            head, _, path = line.partition(b"\t")
            mode, kind, blob, size = head.decode().split()
            if kind == "blob":
                yield _Entry(path.decode("utf-8", "surrogateescape"), mode, blob, int(size))


def _changed(repository: Path, commit: str, paths: set[str]) -> dict[str, datetime]:
    """Return when each path last changed on the first-parent history of ``commit``."""
    dates: dict[str, datetime] = {}
    arguments = [
        "log",
        "--first-parent",
        "-m",
        "--no-renames",
        "--name-only",
        "-z",
        "--format=%x01%ct",
        commit,
        "--",
    ]
    with _started(repository, arguments) as process:
        assert process.stdout is not None
        date, rest = datetime.now(UTC), b""
        while len(dates) < len(paths) and (block := process.stdout.read(1 << 16)):
            *fields, rest = (rest + block).split(b"\0")
            for item in fields:
                item = item.lstrip(b"\n")
                if item.startswith(b"\x01"):
                    stamp, _, item = item[1:].partition(b"\n")
                    date = datetime.fromtimestamp(int(stamp), UTC)
                path = item.lstrip(b"\n").decode("utf-8", "surrogateescape")
                if path in paths:
                    dates.setdefault(path, date)
    return dates


@dataclass
class _Blobs:
    """Reads file contents through one ``git cat-file --batch``."""

    repository: Path
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> _Blobs:
        return self

    def __exit__(self, *details: object) -> None:
        self._stack.close()

    def read(self, blob: str) -> bytes:
        if self._process is None:
            self._process = self._stack.enter_context(_started(self.repository, ["cat-file", "--batch"]))
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(blob.encode() + b"\n")
        self._process.stdin.flush()
        head = self._process.stdout.readline().split()
        if len(head) != 3 or head[1] != b"blob":
            raise OSError(
                f"git does not have the object {blob}: the repository is damaged, run `git fsck` in it"
            )
        content = self._process.stdout.read(int(head[2]))
        self._process.stdout.read(1)
        return content


def _environment() -> dict[str, str]:
    variables = {key: value for key, value in environ().items() if key not in _OURS}
    return {
        "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
        **variables,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
        "LC_ALL": "C",
    }


def _command(repository: Path | None, arguments: list[str]) -> list[str]:
    where = ["-C", str(repository)] if repository else []
    return ["git", "--no-pager", "-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0", *where, *arguments]


def _git(repository: Path | None, *arguments: str, seconds: float = _READ_SECONDS) -> bytes:
    """Run one git command without a shell and return what it printed; raises GitFailed."""
    try:
        done = subprocess.run(
            _command(repository, list(arguments)), stdin=subprocess.DEVNULL, capture_output=True,
            timeout=seconds, env=_environment(), check=False,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise MissingInput(
            "the command `git` is not installed: install Git to read sources of kind 'git'"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise GitFailed(f"git {arguments[0]} did not end within {seconds:.0f} s") from error
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no message"]
        reason = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[-1])
        raise GitFailed(_CREDENTIALS.sub("", reason))
    return done.stdout


@contextlib.contextmanager
def _started(repository: Path, arguments: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        _command(repository, arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, env=_environment(),
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time fetch into a copy; the lock goes with the process."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
