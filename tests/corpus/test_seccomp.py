"""The filter of system calls, run step by step: also for the machine that this is not."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from llmops.corpus._seccomp import AUDIT_ARCH, program

ALLOWED, KILLED = 0x7FFF0000, 0x80000000
# read, openat, clone, kill, socket, execve, fcntl, prlimit64, openat2, clone3, ioctl
NUMBERS = {
    "x86_64": dict(read=0, openat=257, clone=56, kill=62, socket=41, execve=59, fcntl=72, prlimit64=302),
    "aarch64": dict(read=63, openat=56, clone=220, kill=129, socket=198, execve=221, fcntl=25, prlimit64=261),
}
COMMON = dict(openat2=437, clone3=435)


def run(code: bytes, machine: int, number: int, *arguments: int) -> int:
    """Return what a filter answers to a call: a classic BPF machine with the five steps that are used."""
    data = struct.pack("<IIQ6Q", number, machine, 0, *(arguments + (0,) * 6)[:6])
    steps = list(struct.iter_unpack("=HBBI", code))
    at, held = 0, 0
    while True:
        kind, if_true, if_false, value = steps[at]
        at += 1
        if kind == 0x20:
            (held,) = struct.unpack_from("<I", data, value)
        elif kind == 0x54:
            held &= value
        elif kind == 0x15:
            at += if_true if held == value else if_false
        else:
            assert kind == 0x06
            return int(value)


@pytest.mark.parametrize("machine", AUDIT_ARCH)
@pytest.mark.parametrize(
    ("call", "arguments", "answer"),
    [
        ("read", (3,), ALLOWED),
        ("openat", (0, 0, os.O_RDONLY | os.O_CLOEXEC), ALLOWED),
        ("openat", (0, 0, os.O_WRONLY), errno.EPERM),
        ("openat", (0, 0, os.O_RDWR), errno.EPERM),
        ("openat", (0, 0, os.O_RDONLY | os.O_CREAT), errno.EPERM),
        ("openat", (0, 0, os.O_RDONLY | os.O_TRUNC), errno.EPERM),
        ("openat", (0, 0, 0x400000), errno.EPERM),
        ("openat", (0, 0, (1 << 32) | os.O_WRONLY), errno.EPERM),
        ("openat2", (), errno.EPERM),
        ("clone", (0x3D0F00,), ALLOWED),  # what pthread_create(3) asks for
        ("clone", (17,), errno.EPERM),
        ("clone", (0x3D0F00 | 0x20000000,), errno.EPERM),
        ("clone3", (), errno.ENOSYS),
        ("kill", (4321, 6), ALLOWED),
        ("kill", (1, 9), errno.EPERM),
        ("kill", ((1 << 64) - 1, 9), errno.EPERM),
        ("fcntl", (3, 3), ALLOWED),
        ("fcntl", (3, 8), errno.EPERM),
        ("prlimit64", (0,), ALLOWED),
        ("prlimit64", (1,), errno.EPERM),
        ("socket", (), errno.EPERM),
        ("execve", (), errno.EPERM),
    ],
)
def test_the_filter_answers(machine: str, call: str, arguments: tuple[int, ...], answer: int) -> None:
    code = program(machine, 4321, may_read=True)
    number = {**NUMBERS[machine], **COMMON}[call]
    expected = answer if answer == ALLOWED else 0x00050000 | answer
    assert run(code, AUDIT_ARCH[machine], number, *arguments) == expected


@pytest.mark.parametrize("machine", AUDIT_ARCH)
def test_without_reading_no_file_is_opened(machine: str) -> None:
    code = program(machine, 4321, may_read=False)
    found = run(code, AUDIT_ARCH[machine], NUMBERS[machine]["openat"], 0, 0, os.O_RDONLY)
    assert found == 0x00050000 | errno.EPERM


@pytest.mark.parametrize("machine", AUDIT_ARCH)
def test_a_call_of_another_machines_table_ends_the_process(machine: str) -> None:
    assert run(program(machine, 1, may_read=True), 0x40000003, 0) == KILLED


@pytest.mark.parametrize("machine", AUDIT_ARCH)
def test_every_other_call_is_refused(machine: str) -> None:
    code = program(machine, 4321, may_read=True)
    free = [n for n in range(600) if run(code, AUDIT_ARCH[machine], n, 99, 99, 99) == ALLOWED]
    assert len(free) < 75
    assert not {*range(198, 213), *range(220, 222), *range(267, 275)} & set(free) or machine == "x86_64"
