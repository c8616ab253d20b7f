"""The system calls a jailed process may make, as a seccomp filter (seccomp(2)): what is not named is refused."""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

__all__ = ["AUDIT_ARCH", "program"]

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""The machines there is a filter for, as the kernel tells their calls apart (``linux/audit.h``)."""

# Numbers on x86-64 and on aarch64 (``asm/unistd.h``); -1 where a machine does not have the call.
_FREE = {
    "read": (0, 63),
    "readv": (19, 65),
    "pread64": (17, 67),
    "preadv": (295, 69),
    "write": (1, 64),  # nothing but the pipe to the parent is open for it
    "writev": (20, 66),
    "lseek": (8, 62),
    "close": (3, 57),
    "close_range": (436, 436),
    "dup": (32, 23),
    "dup2": (33, -1),
    "dup3": (292, 24),
    "fstat": (5, 80),
    "newfstatat": (262, 79),
    "stat": (4, -1),
    "lstat": (6, -1),
    "statx": (332, 291),
    "access": (21, -1),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "readlink": (89, -1),
    "readlinkat": (267, 78),
    "getdents64": (217, 61),
    "getcwd": (79, 17),
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getppid": (110, 173),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "uname": (63, 160),
    "sysinfo": (99, 179),
    "getrusage": (98, 165),
    "times": (100, 153),
    "getrandom": (318, 278),
    "setitimer": (38, 103),
    "getitimer": (36, 102),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "time": (201, -1),
    "poll": (7, -1),
    "ppoll": (271, 73),
    "select": (23, -1),
    "pselect6": (270, 72),
}

# Calls that read: free where Landlock says what they reach, refused where it cannot.
_OPEN, _OPENAT = (2, -1), (257, 56)
_CLONE, _CLONE3 = (56, 220), (435, 435)
_KILL, _TGKILL = (62, 129), (234, 131)
_FCNTL, _PRLIMIT64, _IOCTL = (72, 25), (302, 261), (16, 29)

# O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND, __O_TMPFILE: the same bits on both machines.
_O_WRITES = 0x3 | 0x40 | 0x200 | 0x400 | 0x400000
_CLONE_THREAD = 0x00010000
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
_CLONE_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC: not F_SETOWN or F_SETFL, which send signals to others.
_FCNTL_COMMANDS = (0, 1, 2, 3, 1030)

_LOAD, _EQUAL, _AND, _RETURN = 0x20, 0x15, 0x54, 0x06
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER_AT, _MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16


@dataclass(frozen=True)
class _Checked:
    """A call allowed where one of its arguments (a C int), under a mask, is one of some values."""

    numbers: tuple[int, int]
    argument: int
    mask: int
    values: tuple[int, ...]


def program(machine: str, pid: int, *, may_read: bool) -> bytes:
    """Return the filter for a process as an array of ``struct sock_filter``.

    ``machine`` is a key of AUDIT_ARCH. ``may_read`` opens files for reading; without it, nothing is opened.
    A call of another machine's table (32-bit on a 64-bit kernel) ends the process.
    """
    column = list(AUDIT_ARCH).index(machine)
    code = [
        _step(_LOAD, _MACHINE_AT),
        _step(_EQUAL, AUDIT_ARCH[machine], 1, 0),
        _step(_RETURN, _KILL_PROCESS),
        _step(_LOAD, _NUMBER_AT),
    ]
    for numbers in _FREE.values():
        if numbers[column] >= 0:
            code += [_step(_EQUAL, numbers[column], 0, 1), _step(_RETURN, _ALLOW)]
    for number, error in ((_CLONE3[column], errno.ENOSYS), (_IOCTL[column], errno.ENOTTY)):
        # glibc then falls back to clone(2), whose flags can be seen; ``isatty`` is false.
        code += [_step(_EQUAL, number, 0, 1), _step(_RETURN, _ERRNO | error)]
    for check in _checks(pid, may_read):
        if check.numbers[column] >= 0:
            code += _block(check, column)
    return b"".join([*code, _step(_RETURN, _ERRNO | errno.EPERM)])


def _checks(pid: int, may_read: bool) -> list[_Checked]:
    reads = [_Checked(_OPEN, 1, _O_WRITES, (0,)), _Checked(_OPENAT, 2, _O_WRITES, (0,))]
    own = [_Checked(call, 0, 0xFFFFFFFF, (pid,)) for call in (_KILL, _TGKILL)]  # abort(3) signals itself
    return [
        *(reads if may_read else []),
        *own,
        _Checked(_CLONE, 0, _CLONE_THREAD | _CLONE_NAMESPACES, (_CLONE_THREAD,)),
        _Checked(_FCNTL, 1, 0xFFFFFFFF, _FCNTL_COMMANDS),
        _Checked(_PRLIMIT64, 0, 0xFFFFFFFF, (0,)),  # its own, which it can only lower
    ]


def _block(check: _Checked, column: int) -> list[bytes]:
    """Return the steps for one checked call; they end in a return, or are skipped for another call."""
    body = [
        _step(_LOAD, _ARGUMENTS_AT + 8 * check.argument),  # the low half: both machines are little-endian
        _step(_AND, check.mask),
    ]
    for value in check.values:
        body += [_step(_EQUAL, value, 0, 1), _step(_RETURN, _ALLOW)]
    body.append(_step(_RETURN, _ERRNO | errno.EPERM))
    return [_step(_EQUAL, check.numbers[column], 0, len(body)), *body]


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
