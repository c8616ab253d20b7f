"""Close a process in, for good: limits, no new rights, no system call and no file beyond what parsing needs."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from llmops.corpus._seccomp import AUDIT_ARCH, program

__all__ = ["SYSCALL_FILTER", "Limits", "close_jail", "die_with_parent", "supported"]

SYSCALL_FILTER = "the filter of system calls (seccomp)"
FILE_RULES = "the rules for reading files (Landlock)"
MEMORY_LIMIT = "the limit of memory (RLIMIT_AS)"

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SECCOMP_MODE_FILTER = 2
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every machine
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # bits of rights on files per version of Landlock
_CAPABILITY_VERSION, _CAP_DAC_READ_SEARCH = 0x20080522, 1 << 2


@dataclass(frozen=True)
class Limits:
    """What one call may use: seconds, seconds of computing, bytes above the start, bytes of its result."""

    wall_seconds: float = 30
    cpu_seconds: int = 20
    memory_bytes: int = 1 << 30
    output_bytes: int = 64 << 20


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_void_p))


class _Path(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("rights", ctypes.c_uint64), ("folder", ctypes.c_int32))


def supported() -> bool:
    """Return whether there is a filter of system calls for this machine at all."""
    return sys.platform == "linux" and platform.machine() in AUDIT_ARCH


def die_with_parent(parent: int) -> None:
    """Have the kernel end this process when the thread that started it ends; end now if it has."""
    if sys.platform == "linux":
        _libc().prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def close_jail(limits: Limits, readable: Sequence[str]) -> list[str]:
    """Close this process in; return the names of the protections that are missing here.

    ``readable`` are the files and folders that can still be read; where Landlock is missing, none can. Call
    it in a process with one thread. Without SYSCALL_FILTER in the result, the process can neither write,
    connect, start another process nor touch one, whatever code it runs.
    """
    missing = _limit(limits)
    if not supported():
        return [*missing, SYSCALL_FILTER, FILE_RULES]
    _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _drop_capabilities()
    confined = _confine(readable)
    if not confined:
        missing.append(FILE_RULES)
    if not _filter(may_read=confined):
        missing.append(SYSCALL_FILTER)
    return missing


def _limit(limits: Limits) -> list[str]:
    """Set the limits of the process; those of time are per call, and set by who runs the calls."""
    for what, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_NOFILE, 64)):
        resource.setrlimit(what, (most, most))
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + limits.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    except (OSError, ValueError):
        return [MEMORY_LIMIT]
    with suppress(OSError):  # A preference: where memory runs out, the kernel ends this process, not ours.
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    return []


def _drop_capabilities() -> None:
    """Give up what root may, but for reading: packages may belong to another account."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    rights = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    if _libc().capget(header, rights) == 0:
        kept = rights[1] & _CAP_DAC_READ_SEARCH
        _libc().capset(header, (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0))


def _confine(readable: Sequence[str]) -> bool:
    """Allow reading beneath some paths and nothing else (landlock(7)); False where the kernel cannot."""
    libc = _libc()
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    files = (1 << _FILE_RIGHTS.get(version, 16)) - 1
    network = 0b11 if version >= 4 else 0  # bind, connect
    scopes = 0b11 if version >= 6 else 0  # abstract sockets and processes outside
    handled = (ctypes.c_uint64 * 3)(files, network, scopes)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = libc.syscall(_CREATE_RULESET, handled, ctypes.c_size_t(size), 0)
    if rules < 0:
        return False
    for path in readable:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # Not there, so there is nothing to allow.
        rights = _READ_FILE | (_READ_DIR if os.path.isdir(path) else 0)
        libc.syscall(_ADD_RULE, rules, 1, ctypes.byref(_Path(rights, place)), 0)
        os.close(place)
    done = bool(libc.syscall(_RESTRICT_SELF, rules, 0) == 0)
    os.close(rules)
    return done


def _filter(*, may_read: bool) -> bool:
    """Install the filter of system calls and see that it holds."""
    steps = program(platform.machine(), os.getpid(), may_read=may_read)
    buffer = ctypes.create_string_buffer(steps, len(steps))
    rules = _Program(len(steps) // 8, ctypes.addressof(buffer))
    if _libc().prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(rules), 0, 0) != 0:
        return False
    try:
        os.close(os.open("/dev/null", os.O_WRONLY))
    except PermissionError:
        return True
    return False


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
