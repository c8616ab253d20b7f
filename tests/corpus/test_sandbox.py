"""Hostile bytes end as a reason: nothing leaves the jail, and nobody else notices."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from llmops.corpus import _sandbox
from llmops.corpus._parsing import parse
from llmops.corpus._problems import Unreadable
from llmops.corpus._sandbox import Limits, Sandbox
from llmops.corpus._sandbox_frames import pack
from llmops.corpus._sandbox_nursery import readable_paths
from llmops.corpus._sandbox_tasks import TASKS as TABLE
from llmops.corpus._sandbox_tasks import result_type
from llmops.errors import ConfigurationError, StackError
from support import sandbox_tasks

DATA = Path(os.environ.get("LLMOPS_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
TASKS = sandbox_tasks.HERE
SMALL = Limits(wall_seconds=3, cpu_seconds=1, memory_bytes=128 << 20, output_bytes=1 << 20)

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64",
    reason="the attempts are written for x86-64 Linux",
)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(workers=2, limits=SMALL, _tasks=TASKS) as made:
        yield made


@pytest.fixture(scope="module")
def single() -> Iterator[Sandbox]:
    with Sandbox(workers=1, limits=SMALL, _tasks=TASKS) as made:
        yield made


def outcome(sandbox: Sandbox, task: str, *arguments: Any) -> Any:
    """Return what a call came to: a value, or its problem and reason."""
    try:
        return sandbox.call(task, *arguments)
    except Unreadable as error:
        return error.problem, str(error)


def family() -> set[int]:
    return {process.pid for process in psutil.Process().children(recursive=True)}


def gone(pids: set[int], within: float = 5.0) -> bool:
    """Return whether processes end in time; a zombie that nobody has collected yet has ended."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        if not any(_runs(pid) for pid in pids):
            return True
        time.sleep(0.02)
    return False


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# What a call returns


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("a.md", b"# Title\n\nText \xf0\x9f\x98\x80.\n"),
        ("a.rst", b"Top\n===\n\n.. note:: Careful.\n\n.. code-block:: python\n\n   x = 1\n"),
        ("a.html", b"<meta charset=iso-8859-1><h1>T</h1><p>caf\xe9</p>" + b"<p>more</p>" * 2000),
        ("a.txt", "utf sixteen".encode("utf-16")),
    ],
)
def test_a_file_is_read_as_it_is_outside(sandbox: Sandbox, path: str, content: bytes) -> None:
    assert sandbox.call("parse", path, None, content) == parse(path, None, content)


def test_values_of_all_kinds_cross_the_wall(sandbox: Sandbox) -> None:
    value = {"a": [None, True, 1, -2.5, "x", "\\ud800", "\0text", "ü" * 1000, {"b": []}, ""], "\0bytes": {}}
    assert sandbox.call("echo", value) == value
    assert sandbox.call("echo", [b"", bytes(range(256)) * 40]) == [b"", bytes(range(256)) * 40]


@pytest.mark.parametrize("text", ["\ud800", "\ud800" * 1000])
def test_half_a_character_does_not_come_out(sandbox: Sandbox, text: str) -> None:
    assert sandbox.call("length", text) == len(text)
    assert outcome(sandbox, "echo", text) == failed("UnicodeEncodeError")


def test_a_reason_keeps_its_words_and_its_problem(sandbox: Sandbox) -> None:
    assert outcome(sandbox, "refuse", "it has a password", "encrypted") == ("encrypted", "it has a password")


def test_an_unknown_task_is_a_mistake_of_ours(sandbox: Sandbox) -> None:
    with pytest.raises(LookupError, match="no task 'os:system'"):
        sandbox.call("os:system", "true")


def test_an_argument_that_json_does_not_have_is_a_mistake_of_ours(sandbox: Sandbox) -> None:
    with pytest.raises(TypeError, match="a set cannot cross"):
        sandbox.call("echo", {1})  # type: ignore[arg-type]


# Failures

TIMEOUT = "timeout", "reading it did not end within 1 s of computing, or 3 s in all: split it, or exclude it"
MEMORY = "memory", "reading it takes more than 128 MiB of memory: split it, or exclude it"
TOO_LARGE = "too_large", "what is read from it has more than 1,048,576 bytes: split it, or exclude it"
CRASHED = (
    "crashed",
    "its reader crashed on it: it is damaged, or made to do damage; repair it, or exclude it",
)


def failed(kind: str) -> tuple[str, str]:
    return "unreadable", f"its reader failed on it ({kind}): repair it, or save it in another format"


BAD: dict[str, tuple[tuple[Any, ...], tuple[str, str]]] = {
    "loop": ((), TIMEOUT),
    "regex": ((), TIMEOUT),
    "sleep": ((60,), TIMEOUT),
    "swell": ((), MEMORY),
    "hide_memory_error": ((), MEMORY),
    "grow": ((1 << 21,), TOO_LARGE),
    "end": ((0,), CRASHED),
    "segfault": ((), CRASHED),
    "abort": ((), CRASHED),
    "wrong_type": ((), CRASHED),
    "deep": ((), failed("RecursionError")),
    "fail": ((), failed("ValueError")),
    "exits": ((), failed("SystemExit")),
    "unknown_type": ((), failed("TypeError")),
}


@pytest.mark.parametrize("task", BAD)
def test_a_failure_has_a_problem_and_the_same_reason_each_time(sandbox: Sandbox, task: str) -> None:
    arguments, expected = BAD[task]
    begun = time.monotonic()
    assert outcome(sandbox, task, *arguments) == expected
    assert time.monotonic() - begun < 15
    assert sandbox.call("echo", "after") == "after"


def test_bad_jobs_among_a_hundred_hurt_no_other_one() -> None:
    kinds = [task for task in BAD if task != "wrong_type"]
    bad = {7 * n + 3: task for n, task in enumerate(kinds)}
    jobs = [(n, (bad[n], list(BAD[bad[n]][0])) if n in bad else ("echo", [f"job {n}"])) for n in range(100)]
    begun = time.monotonic()
    with Sandbox(workers=2, limits=SMALL, _tasks=TASKS) as sandbox:
        found = list(sandbox.map("mixed", jobs))
    assert time.monotonic() - begun < 60
    assert [key for key, _ in found] == list(range(100))
    for key, value in found:
        if key in bad:
            assert isinstance(value, Unreadable)
            assert (value.problem, str(value)) == BAD[bad[key]][1]
        else:
            assert value == f"job {key}"


def test_what_a_call_leaves_behind_does_not_fail_the_next(single: Sandbox) -> None:
    single.call("leak", 80)
    assert single.call("leak", 80)
    single.call("poison")
    jobs = ["echo", "leak", "echo", "end", "echo"]
    arguments: dict[str, list[Any]] = {"echo": ["fine"], "leak": [80], "end": [1]}
    found = list(single.map("mixed", ((n, (task, arguments[task])) for n, task in enumerate(jobs))))
    assert [found[n][1] for n in (0, 2, 4)] == ["fine"] * 3
    assert isinstance(found[1][1], int)
    assert found[3][1].problem == "crashed"


@pytest.mark.parametrize("task", ["loop", "regex"])
def test_endless_computing_ends_long_before_the_clock_runs_out(task: str) -> None:
    begun = time.monotonic()
    with Sandbox(workers=1, limits=Limits(wall_seconds=60, cpu_seconds=1), _tasks=TASKS) as sandbox:
        assert outcome(sandbox, task)[0] == "timeout"
    assert time.monotonic() - begun < 30


def test_threads_take_turns(sandbox: Sandbox) -> None:
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda n: sandbox.call("echo", n), range(200))) == list(range(200))


def test_the_limit_of_computing_is_each_calls_own(single: Sandbox) -> None:
    assert len({single.call("compute", 0.4) for _ in range(3)}) == 1


def test_a_slow_consumer_is_no_reason_to_end_a_reader() -> None:
    with Sandbox(workers=1, limits=Limits(wall_seconds=0.4), _tasks=TASKS) as single:
        results = single.map("grow", ((n, (1 << 20,)) for n in range(3)))
        for _, value in results:
            time.sleep(0.5)
            assert len(value) == 1 << 20


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"garbage of any kind that is long enough", "crashed"),
        (struct.pack("!QI", 8, 0), "crashed"),
        (struct.pack("!QI", 8, 1 << 31), "crashed"),
        (struct.pack("!QI", 1 << 40, 1), "crashed"),
        (struct.pack("!QIQ", 10, 1, 2) + b"[[", "crashed"),
        (struct.pack("!QIQ", 11, 1, 9) + b"[1]", "crashed"),
        (struct.pack("!QIQ", 8 + 40000, 1, 40000) + b"[" * 40000, "crashed"),
        (pack({"value": 1, "more": 2}), "crashed"),
        (pack({"reason": "x", "problem": "solved"}), "crashed"),
        (pack({"reason": ["x"], "problem": "empty"}), "crashed"),
        (pack({"failed": "empty"}), "crashed"),
        (pack(["value"]), "crashed"),
        (pack({"value": "\ud800"}), "crashed"),
        (pack({"value": "\ud800" * 1000}), "crashed"),
        (struct.pack("!QIQ", 27, 1, 19) + b'{"value": "\\uD800"}', "crashed"),
    ],
)
def test_a_child_that_says_what_ours_do_not_is_ended(sandbox: Sandbox, data: bytes, problem: str) -> None:
    begun = time.monotonic()
    assert outcome(sandbox, "answer_garbage", data)[0] == problem
    assert time.monotonic() - begun < 10
    assert sandbox.call("echo", 1) == 1


def test_a_text_that_is_named_twice_is_taken_once(sandbox: Sandbox) -> None:
    tree = json.dumps({"value": [{"\0text": 1}, {"\0text": 1}]}).encode()
    frame = struct.pack("!QIQQ", 16 + len(tree) + 1, 2, len(tree), 1) + tree + b"x"
    assert outcome(sandbox, "answer_garbage", frame)[0] == "crashed"


def test_a_child_that_never_stops_talking_is_ended(sandbox: Sandbox) -> None:
    assert outcome(sandbox, "answer_much")[0] == "crashed"


def test_answers_to_calls_that_were_not_made_end_the_child(single: Sandbox) -> None:
    before = single.call("pid")
    assert single.call("answer_more") == "first"
    assert single.call("echo", "own") == "own"
    assert single.call("pid") != before


# The jail

_UNKNOWN = {"clone3": "ENOSYS"}


@pytest.mark.parametrize("what", sandbox_tasks.ATTEMPTS)
def test_what_no_reader_needs_is_refused(sandbox: Sandbox, what: str, tmp_path: Path) -> None:
    (tmp_path / "held").write_text("content")
    (tmp_path / "empty").mkdir()
    assert sandbox.call("attempt", what, str(tmp_path)) == _UNKNOWN.get(what, "EPERM")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["empty", "held"]
    assert (tmp_path / "held").read_text() == "content"


def test_no_file_of_a_person_can_be_read(sandbox: Sandbox, tmp_path: Path) -> None:
    key = tmp_path / "id_ed25519"
    key.write_text("secret")
    places = [key, "/etc/passwd", "/proc/self/environ", f"/proc/{os.getpid()}/environ", __file__]
    for place in places:
        assert outcome(sandbox, "read", str(place))[1].startswith("its reader failed on it (PermissionError)")


def test_libraries_can_be_read(sandbox: Sandbox) -> None:
    for place in (os.__file__, pytest.__file__, _sandbox.__file__, "/dev/null"):
        assert sandbox.call("read", place) == len(Path(place).read_bytes())


def test_a_home_folder_that_modules_come_from_is_not_readable() -> None:
    allowed = readable_paths(
        ["/home/somebody", "/home/somebody/project", "/home/somebody/.local/lib/site-packages"]
    )
    assert "/home/somebody/.local/lib/site-packages" in allowed
    assert not {"/home/somebody", "/home/somebody/project"} & set(allowed)


def test_the_child_has_none_of_the_environment(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with Sandbox(workers=1, _tasks=TASKS) as fresh:
        names = set(fresh.call("environment"))
    assert names <= {
        "PATH",
        "LANG",
        "TZ",
        "LC_CTYPE",
        "LD_LIBRARY_PATH",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
    }


def test_threads_may_be_started(sandbox: Sandbox) -> None:
    assert sandbox.call("threads") == 3


def test_without_a_filter_of_system_calls_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLMOPS_SANDBOX", raising=False)
    with (
        Sandbox(workers=1, _tasks="support.sandbox_without_seccomp") as unjailed,
        pytest.raises(ConfigurationError, match=r"lacks the filter of system calls \(seccomp\).*limits-only"),
    ):
        unjailed.call("echo", 1)


def test_another_system_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLMOPS_SANDBOX", raising=False)
    monkeypatch.setattr(_sandbox, "supported", lambda: False)
    with pytest.raises(ConfigurationError, match="cannot jail"), Sandbox():
        pass


def test_limits_alone_are_used_where_that_is_asked_for_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LLMOPS_SANDBOX", "limits-only")
    monkeypatch.setattr(_sandbox, "_warned", set())
    for _ in range(2):
        with Sandbox(workers=1, limits=SMALL, _tasks="support.sandbox_without_seccomp") as unjailed:
            assert unjailed.call("echo", 1) == 1
            assert outcome(unjailed, "swell")[0] == "memory"
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "(seccomp)" in warnings[0]


def test_without_landlock_no_file_can_be_opened(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_sandbox, "_warned", set())
    with Sandbox(workers=1, _tasks="support.sandbox_without_landlock") as blind:
        assert outcome(blind, "read", os.__file__)[0] == "unreadable"
        for path, content in (("a.md", b"# T"), ("a.rst", b"T\n=\n"), ("a.html", b"<h1>T</h1>")):
            assert blind.call("parse", path, None, content).text == "# T\n"
    assert ["Landlock" in record.getMessage() for record in caplog.records] == [True]


def test_a_misspelt_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOPS_SANDBOX", "off")
    with pytest.raises(ConfigurationError, match="LLMOPS_SANDBOX='off' is not known"), Sandbox():
        pass


# Processes


def test_jobs_are_pulled_as_there_is_room(sandbox: Sandbox) -> None:
    pulled = []

    def jobs() -> Iterator[tuple[int, tuple[str]]]:
        for n in range(1000):
            pulled.append(n)
            yield n, ("sleep",) if n == 0 else ("echo",)

    arguments = {"sleep": [0.5], "echo": [1]}
    results = sandbox.map("mixed", ((n, (task, arguments[task])) for n, (task,) in jobs()))
    assert next(results) == (0, 0.5)
    assert len(pulled) <= 40
    results.close()  # type: ignore[attr-defined]
    assert sandbox.call("echo", "after") == "after"


def test_large_jobs_are_not_held_all_at_once(sandbox: Sandbox) -> None:
    pulled = []

    def jobs() -> Iterator[tuple[int, tuple[Any, ...]]]:
        for n in range(12):
            pulled.append(n)
            yield (
                n,
                ("sleep" if n == 0 else "pid", [0.5] if n == 0 else [], *([bytes(45 << 20)] if n else [])),
            )

    results = sandbox.map("mixed", jobs())
    assert next(results)[1] == 0.5
    assert len(pulled) <= 5
    results.close()  # type: ignore[attr-defined]


def test_a_source_of_jobs_may_use_the_sandbox_itself(sandbox: Sandbox) -> None:
    jobs = ((n, (sandbox.call("echo", n) + 1,)) for n in range(50))
    assert list(sandbox.map("echo", jobs)) == [(n, n + 1) for n in range(50)]


def test_two_maps_at_once_give_each_its_own(sandbox: Sandbox) -> None:
    first = sandbox.map("echo", ((n, (n,)) for n in range(60)))
    second = sandbox.map("echo", ((n, (-n,)) for n in range(60)))
    assert [(a, b) for (_, a), (_, b) in zip(first, second, strict=True)] == [(n, -n) for n in range(60)]


def test_a_worker_is_replaced_after_some_hundred_calls() -> None:
    with Sandbox(workers=1, _tasks=TASKS) as single:
        found = [value for _, value in single.map("pid", ((n, ()) for n in range(700)))]
    assert len(set(found)) == 3
    assert max(found.count(pid) for pid in set(found)) < 320


def test_a_worker_whose_memory_grew_is_replaced() -> None:
    with Sandbox(workers=1, _tasks=TASKS) as single:
        assert single.call("leak", 300) != single.call("pid")


def test_the_end_of_the_process_that_forks_is_repaired() -> None:
    before = {process.pid for process in psutil.Process().children()}
    with Sandbox(workers=2, limits=SMALL, _tasks=TASKS) as sandbox:
        results = sandbox.map("echo", ((n, (n,)) for n in range(200)))
        next(results)
        (nursery,) = (child for child in psutil.Process().children() if child.pid not in before)
        assert nursery.num_threads() == 1  # It forks: what another thread holds would be held for ever.
        nursery.kill()
        assert [value for _, value in results] == list(range(1, 200))


def test_workers_end_with_the_process_that_forked_them() -> None:
    before = {process.pid for process in psutil.Process().children()}
    with Sandbox(workers=2, _tasks=TASKS) as sandbox:
        next(sandbox.map("mixed", [(0, ("echo", [1])), (1, ("sleep", [60])), (2, ("loop", []))]))
        (nursery,) = (child for child in psutil.Process().children() if child.pid not in before)
        workers = {child.pid for child in nursery.children()}
        assert len(workers) == 2
        nursery.kill()
        assert gone(workers)


def test_every_task_says_what_it_returns() -> None:
    assert "parse" in TABLE
    assert all(result_type(place) for place in TABLE.values())


def test_leaving_with_jobs_running_ends_every_process_at_once() -> None:
    before = family()
    begun = time.monotonic()
    with contextlib.suppress(KeyboardInterrupt), Sandbox(workers=2, _tasks=TASKS) as sandbox:
        results = sandbox.map("mixed", [(0, ("echo", [1])), (1, ("sleep", [60])), (2, ("loop", []))])
        assert next(results) == (0, 1)
        started = family() - before
        assert len(started) == 3
        raise KeyboardInterrupt
    assert not family() - before
    assert gone(started, within=0.5)
    assert time.monotonic() - begun < 15
    with pytest.raises(StackError, match="closed"):
        next(results)


PARENT = """
import os, sys, time
import psutil
from llmops.corpus._sandbox import Sandbox
sandbox = Sandbox(workers=2, _tasks="support.sandbox_tasks")
results = sandbox.map("mixed", [(0, ("echo", [1])), (1, ("sleep", [60])), (2, ("loop", []))])
next(results)
if sys.argv[1] == "held":
    if os.fork() == 0:  # It holds the parent's ends of all pipes open.
        time.sleep(10)
        os._exit(0)
children = [p.pid for p in psutil.Process().children(recursive=True) if p.status() != "zombie"]
print(*[p for p in children if "sandbox" in " ".join(psutil.Process(p).cmdline()[-1:])], flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("pipes", ["closed", "held"])
def test_when_the_parent_is_killed_its_children_end(pipes: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, pipes], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert parent.stdout is not None
    children = {int(pid) for pid in parent.stdout.readline().split()}
    assert len(children) >= 3
    assert all(map(_runs, children))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert gone(children, within=5)


# Files in the wild


def test_every_hostile_file_ends_as_a_document_or_a_reason() -> None:
    folder = DATA / "malformed" / "files"
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}: set LLMOPS_TEST_DATA")
    files = sorted(folder.iterdir())
    with Sandbox(workers=2) as sandbox:
        found = dict(
            sandbox.map("parse", ((file.name, (file.name, None, file.read_bytes())) for file in files))
        )
    assert list(found) == [file.name for file in files]
    refused = [value for value in found.values() if isinstance(value, Unreadable)]
    assert all(value.text for value in found.values() if not isinstance(value, Unreadable))
    assert len(refused) > 30
    assert all(str(value) for value in refused)
