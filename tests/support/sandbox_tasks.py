"""What hostile files would have their readers do, as tasks of a sandbox in tests."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from llmops.corpus._parsing import Parsed
from llmops.corpus._problems import Unreadable

HERE = "support.sandbox_tasks"
TASKS = {
    name: f"{HERE}:{name}"
    for name in (
        "abort", "answer_garbage", "answer_more", "answer_much", "attempt", "exits", "compute", "deep", "echo",
        "end", "environment", "fail", "grow", "hide_memory_error", "leak", "length", "loop", "mixed", "pid",
        "poison", "read", "refuse", "regex", "segfault", "sleep", "stat", "swell", "threads", "unknown_type",
        "wrong_type",
    )
}  # fmt: skip

_held: list[bytearray] = []
_poisoned = False


def echo(value: Any) -> Any:
    if _poisoned:
        os._exit(3)
    return value


def mixed(task: str, arguments: list[Any], ballast: bytes = b"") -> Any:
    return globals()[task](*arguments)


def length(text: str) -> int:
    return len(text)


def pid() -> int:
    return os.getpid()


def poison() -> None:
    """Make the next call in this process end it."""
    global _poisoned
    _poisoned = True


def fail() -> None:
    raise ValueError(f"secret at {id(object()):#x}")


def refuse(message: str, problem: Any) -> None:
    raise Unreadable(message, problem)


def exits() -> None:
    raise SystemExit(0)


def loop() -> None:
    while True:
        pass


def regex() -> bool:
    """Run C code that holds the interpreter for hours."""
    return bool(re.match(r"(a|a)*b", "a" * 64))


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def compute(seconds: float) -> int:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass
    return os.getpid()


def swell() -> int:
    held = []
    while True:
        held.append(bytearray(8 << 20))


def hide_memory_error() -> None:
    try:
        swell()
    except MemoryError as error:
        raise Unreadable("its reader failed") from error


def leak(mebibytes: int) -> int:
    _held.append(bytearray(mebibytes << 20))
    return os.getpid()


def grow(size: int) -> str:
    return "x" * size


def deep(level: int = 0) -> int:
    return deep(level + 1) + 1


def end(status: int) -> None:
    os._exit(status)


def segfault() -> bytes:
    return ctypes.string_at(0)


def abort() -> None:
    os.abort()


def unknown_type() -> Any:
    return {1, 2}


def wrong_type() -> Parsed:
    return {"text": ["no", "text"], "title": "t", "media_type": "m"}  # type: ignore[return-value]


def answer_garbage(data: bytes) -> Any:
    """Write to the parent what no worker of ours writes."""
    os.write(3, data)
    time.sleep(60)


def answer_more() -> str:
    """Write an answer of one's own before the true one."""
    from llmops.corpus._sandbox_frames import pack

    os.write(3, pack({"value": "first"}) + pack({"value": "second"}))
    return "third"


def answer_much() -> Any:
    """Announce the largest frame there is, and go on for ever."""
    os.write(3, struct.pack("!QI", 1 << 62, 1))
    while True:
        os.write(3, b"x" * 65536)


def environment() -> dict[str, str]:
    return dict(os.environ)


def read(path: str) -> int:
    return len(Path(path).read_bytes())


def stat(path: str) -> int:
    return os.stat(path).st_size


def threads() -> int:
    found: list[int] = []
    started = [threading.Thread(target=found.append, args=(n,)) for n in range(3)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join(5)
    return len(found)


def attempt(what: str, place: str) -> str:
    """Try something that no reader needs; return how the system answered."""
    try:
        found = ATTEMPTS[what](place)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return f"done ({found!r})"


def _system_call(number: int, *arguments: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    found = int(libc.syscall(number, *map(ctypes.c_long, arguments)))
    if found < 0:
        raise OSError(ctypes.get_errno(), "")
    return found


def _clone(flags: int) -> int:
    child = _system_call(56, flags, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    return child


def _fork() -> int:
    child = os.fork()
    if child == 0:
        os._exit(0)
    return child


ATTEMPTS: dict[str, Any] = {
    "connect": lambda _: socket.create_connection(("127.0.0.1", 9), timeout=1),
    "unix socket": lambda _: socket.socket(socket.AF_UNIX),
    "datagram": lambda _: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "netlink": lambda _: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "socket pair": lambda _: socket.socketpair(),
    "exec": lambda _: os.execv("/bin/true", ["true"]),
    "subprocess": lambda _: subprocess.run(["/bin/true"], check=True),
    "fork": lambda _: _fork(),
    "clone": lambda _: _clone(signal.SIGCHLD),
    "clone with a thread's flag and a new name space": lambda _: _clone(0x00010000 | 0x10000000),
    "vfork": lambda _: _system_call(58),
    "clone3": lambda _: _system_call(435, 0, 0),
    "unshare": lambda _: _system_call(272, 0x10000000),
    "create": lambda place: Path(place, "new").write_text("x"),
    "append": lambda place: os.open(place + "/held", os.O_WRONLY | os.O_APPEND),
    "update": lambda place: os.open(place + "/held", os.O_RDWR),
    "truncate on open": lambda place: os.open(place + "/held", os.O_RDONLY | os.O_TRUNC),
    "nameless file": lambda place: os.open(place, os.O_TMPFILE | os.O_WRONLY),
    "temporary file": lambda _: tempfile.mkstemp(dir="/dev/shm"),
    "write a device": lambda _: os.open("/dev/null", os.O_WRONLY),
    "openat2": lambda place: _system_call(437, 0, 0, 0, 24),
    "creat": lambda place: _system_call(85, 0, 0),
    "truncate": lambda place: os.truncate(place + "/held", 0),
    "unlink": lambda place: os.unlink(place + "/held"),
    "rename": lambda place: os.rename(place + "/held", place + "/moved"),
    "mkdir": lambda place: os.mkdir(place + "/folder"),
    "rmdir": lambda place: os.rmdir(place + "/empty"),
    "link": lambda place: os.link(place + "/held", place + "/second"),
    "symlink": lambda place: os.symlink("/etc", place + "/shortcut"),
    "mkfifo": lambda place: os.mkfifo(place + "/pipe"),
    "chmod": lambda place: os.chmod(place + "/held", 0o777),
    "chown": lambda place: os.chown(place + "/held", os.getuid(), os.getgid()),
    "utime": lambda place: os.utime(place + "/held"),
    "setxattr": lambda place: os.setxattr(place + "/held", "user.a", b"b"),
    "chdir": lambda place: os.chdir(place),
    "memfd": lambda _: os.memfd_create("memory"),
    "ptrace": lambda _: _system_call(101, 0, 0, 0, 0),
    "read another's memory": lambda _: _system_call(310, os.getppid(), 0, 0, 0, 0, 0),
    "write another's memory": lambda _: _system_call(311, os.getppid(), 0, 0, 0, 0, 0),
    "signal the parent": lambda _: os.kill(os.getppid(), 0),
    "signal everybody": lambda _: os.kill(-1, 0),
    "signal by another's thread": lambda _: _system_call(234, os.getppid(), os.getppid(), 0),
    "signal by thread alone": lambda _: _system_call(200, os.getppid(), 0),
    "signal by pidfd": lambda _: _system_call(424, 0, 0, 0, 0),
    "signal by an open file": lambda _: __import__("fcntl").fcntl(3, 8, os.getppid()),
    "limits of the parent": lambda _: __import__("resource").prlimit(os.getppid(), 7),
    "mount": lambda place: _system_call(165, 0, 0, 0, 0, 0),
    "bpf": lambda _: _system_call(321, 0, 0, 0),
    "io_uring": lambda _: _system_call(425, 1, 0),
    "keyctl": lambda _: _system_call(250, 0, -3, 0),
    "userfaultfd": lambda _: _system_call(323, 0),
    "perf_event_open": lambda _: _system_call(298, 0, 0, -1, -1, 0),
    "shared memory": lambda _: _system_call(29, 0, 4096, 0o1600),
    "setuid": lambda _: os.setuid(os.getuid()),
    "priority": lambda _: os.nice(0),
    "session": lambda _: os.setsid(),
    "name space of another": lambda _: _system_call(308, 0, 0),
    "x32 table": lambda _: _system_call(0x40000000 | 41, 2, 1, 0),
}
