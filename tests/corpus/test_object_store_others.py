"""Object stores of Azure, Google and Databricks as sources."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from corpus.bucket import listed
from corpus.conftest import day
from llmops.corpus import ObjectStoreSource, _fsspec, _volumes
from llmops.corpus._problems import Unreadable
from llmops.errors import ConfigurationError, MissingInput, ServiceUnavailable
from support.http import FakeService, listening


def test_a_package_that_is_not_installed_is_named_with_how_to_install_it() -> None:
    for url, extra in (("abfss://con@acc.dfs.core.windows.net/x", "azure"), ("gs://bucket/x", "google")):
        source = ObjectStoreSource(kind="object_store", name="s", url=url)
        with pytest.raises(MissingInput, match=rf"install llmops\[{extra}\]"):
            source.discover(day(9))


class Memory:
    """A file system of fsspec in memory, as gcsfs and adlfs are one: entries have tags, calls can fail."""

    def __init__(self, **files: str) -> None:
        from fsspec.implementations.memory import MemoryFileSystem

        self.fail: Exception | None = None
        self.system = MemoryFileSystem(skip_instance_cache=True)
        self.system.store = {}
        for path, text in files.items():
            self.system.pipe_file(f"/{path.replace('__', '/').replace('_md', '.md')}", text.encode())

    def tagged(self, entry: dict[str, Any]) -> dict[str, Any]:
        if entry["type"] == "file":
            entry = {**entry, "etag": f'"{hash(self.system.cat_file(entry["name"]))}"'}
        return {**entry, "name": entry["name"].removeprefix("/")}

    def ls(self, path: str, detail: bool) -> list[dict[str, Any]]:
        if self.fail:
            raise self.fail
        return [self.tagged(e) for e in self.system.ls(path, detail=detail)]

    def info(self, path: str) -> dict[str, Any]:
        return self.tagged(self.system.info(path))

    def cat_file(self, path: str, start: int, end: int) -> bytes:
        return bytes(self.system.cat_file(path, start=start, end=end))


class Denied(Exception):
    status_code = 403


def azure(monkeypatch: pytest.MonkeyPatch, memory: Memory, **more: Any) -> ObjectStoreSource:
    """Return a source of Azure that reads from memory, and remember how its file system was made."""

    class Module:
        @staticmethod
        def AzureBlobFileSystem(**options: Any) -> Memory:
            memory.options = options  # type: ignore[attr-defined]
            return memory

    monkeypatch.setattr(_fsspec, "import_module", lambda name: Module)
    url = "abfss://con@account.dfs.core.windows.net/docs/"
    return ObjectStoreSource(kind="object_store", name="s", url=url, **more)


def test_a_store_of_fsspec_is_walked_folder_by_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(
        con__docs__b_md="B", con__docs__a__z_md="Z", con__docs__a__y__q_md="Q", con__docs2__x_md="x"
    )
    source = azure(monkeypatch, memory)
    assert listed(source) == {"b.md": "B", "a/z.md": "Z", "a/y/q.md": "Q"}
    assert all(f.revision for f in source.discover(day(9)))
    assert memory.options["account_name"] == "account"  # type: ignore[attr-defined]
    assert memory.options["anon"] is False  # type: ignore[attr-defined]


def test_a_store_of_fsspec_has_dated_folders_too(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory()
    for key in ("2024-01-01/a.md", "2024-01-01/DONE", "2024-01-03/a.md"):
        memory.system.pipe_file(f"/con/docs/{key}", key.encode())
    source = azure(monkeypatch, memory, layout="dated", complete_marker="DONE")
    assert listed(source) == {"a.md": "2024-01-01/a.md"}


def test_errors_of_a_store_of_fsspec_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(con__docs__a_md="A")
    source = azure(monkeypatch, memory)
    for error, raised in (
        (Denied("no"), ConfigurationError),
        (RuntimeError("broken pipe"), ServiceUnavailable),
        (FileNotFoundError("container"), MissingInput),
    ):
        memory.fail = error
        with pytest.raises(raised):
            listed(source)


def test_an_object_of_fsspec_that_changes_or_goes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(con__docs__a_md="A", con__docs__b_md="B")
    files = {f.path: f for f in azure(monkeypatch, memory).discover(day(9))}
    memory.system.pipe_file("/con/docs/a.md", b"C")
    memory.system.rm_file("/con/docs/b.md")
    with pytest.raises(ServiceUnavailable, match="changed while"):
        files["a.md"].read()
    with pytest.raises(Unreadable, match="was removed"):
        files["b.md"].read()


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The Files API of Databricks over a folder, with pages of two entries."""
    root, state = tmp_path / "server", {"status": 200, "root": tmp_path / "server", "lock": threading.Lock()}

    class FilesApi(FakeService):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            kind, _, path = parts.path.removeprefix("/api/2.0/fs/").partition("/")
            file = root / unquote(path)
            if state["status"] != 200 or not file.exists():
                status = state["status"] if state["status"] != 200 else 404
                body = json.dumps({"error_code": state.get("code", "NOT_FOUND"), "message": "because"})
                return self.reply(status, body.encode())
            if kind == "files":
                return self.reply(200, file.read_bytes())
            names = sorted(file.iterdir())
            at = int(parse_qs(parts.query).get("page_token", ["0"])[0])
            contents = [
                {
                    "path": "/" + entry.relative_to(root).as_posix(), "name": entry.name,
                    "is_directory": entry.is_dir(), "file_size": entry.stat().st_size,
                    "last_modified": 1_700_000_000_000,
                }
                for entry in names[at : at + 2]
            ]  # fmt: skip
            more = {"next_page_token": str(at + 2)} if at + 2 < len(names) else {}
            return self.reply(200, json.dumps({"contents": contents, **more}).encode())

        do_HEAD = do_GET

    monkeypatch.setattr(_volumes, "_RETRY_SECONDS", 1)
    monkeypatch.setattr(_volumes, "MOUNT", tmp_path / "nowhere")
    with listening(FilesApi) as url:
        monkeypatch.setenv("DATABRICKS_HOST", url)
        monkeypatch.setenv("DATABRICKS_TOKEN", "t")
        yield state


def of_volume(**more: Any) -> ObjectStoreSource:
    return ObjectStoreSource(kind="object_store", name="s", url="dbfs:/Volumes/cat/sch/vol/docs", **more)


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_a_volume_is_read_through_the_files_api(volume: dict[str, Any]) -> None:
    fill(volume["root"] / "Volumes/cat/sch/vol/docs", "a.md", "b.md", "c.md", "x/d e.md")
    found = list(of_volume().discover(day(9)))
    assert [(f.path, f.read().decode()) for f in found] == [
        (n, n) for n in ("a.md", "b.md", "c.md", "x/d e.md")
    ]
    assert {f.revision for f in found} == {None}


def test_errors_of_a_volume_are_told_apart(volume: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingInput):
        listed(of_volume())
    for status, code, raised in (
        (403, "PERMISSION_DENIED", ConfigurationError),
        (500, "INTERNAL_ERROR", ServiceUnavailable),
    ):
        volume |= {"status": status, "code": code}
        with pytest.raises(raised, match="because"):
            listed(of_volume())
    monkeypatch.delenv("DATABRICKS_HOST")
    monkeypatch.delenv("DATABRICKS_TOKEN")
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(ConfigurationError, match="credentials"):
        of_volume().discover(day(9))


def test_a_volume_file_that_goes_or_grows_is_noticed(volume: dict[str, Any]) -> None:
    folder = volume["root"] / "Volumes/cat/sch/vol/docs"
    fill(folder, "a.md", "b.md")
    files = {f.path: f for f in of_volume().discover(day(9))}
    (folder / "a.md").unlink()
    (folder / "b.md").write_text("longer than before")
    with pytest.raises(Unreadable, match="was removed"):
        files["a.md"].read()
    with pytest.raises(ServiceUnavailable, match="changed while"):
        files["b.md"].read()


def test_a_volume_that_is_mounted_is_read_as_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_volumes, "MOUNT", tmp_path)
    fill(tmp_path / "cat/sch/vol/docs", "2024-01-01/a.md", "2024-01-02/a.md", "2024-01-02/b.txt")
    source = of_volume(layout="dated", include=["**/*.md"])
    assert listed(source, 2) == {"a.md": "2024-01-01/a.md"}
    assert listed(source, 9) == {"a.md": "2024-01-02/a.md"}
    assert source.pinned(day(9)) == "2024-01-02"
