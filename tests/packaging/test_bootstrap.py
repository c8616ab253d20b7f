"""Set-up, run with the real uv on a project of one small package."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def test_set_up_installs_the_lock_and_the_project_and_then_does_nothing(
    bootstrap: ModuleType, project: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bootstrap.setup(project.root, project.environment) is True
    assert project.installed() == {"leaf", "llmops"}
    assert (project.root / ".venv" / "bin" / "llmops").exists()
    lines = capsys.readouterr().out.splitlines()
    assert "at most 7 MB" in lines[0]
    assert "minutes" in lines[0]
    assert any(" s  Installed 1 package" in line for line in lines)

    assert bootstrap.setup(project.root, project.environment) is False
    assert capsys.readouterr().out == ""


def test_modules_are_compiled_during_set_up(bootstrap: ModuleType, project: Any) -> None:
    bootstrap.setup(project.root, {**project.environment, "PYTHONDONTWRITEBYTECODE": "1"})
    assert list((project.root / ".venv").rglob("leaf.cpython-311.pyc"))


def test_a_changed_lock_is_followed_exactly(bootstrap: ModuleType, project: Any) -> None:
    project.wheel("extra")
    project.lock("leaf==1.0", "extra==1.0")
    bootstrap.setup(project.root, project.environment)
    assert project.installed() == {"leaf", "extra", "llmops"}
    project.lock("leaf==1.0")
    assert not bootstrap.is_current(project.root)
    assert bootstrap.setup(project.root, project.environment) is True
    assert project.installed() == {"leaf", "llmops"}


def test_new_file_times_and_tool_settings_leave_the_environment_current(
    bootstrap: ModuleType, project: Any
) -> None:
    bootstrap.setup(project.root, project.environment)
    for file in project.root.glob("*.t*"):
        os.utime(file, (0, 2_000_000_000))
    pyproject = project.root / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace("line-length = 110", "line-length = 99"))
    assert bootstrap.is_current(project.root)
    pyproject.write_text(pyproject.read_text().replace('version = "0.1.0"', 'version = "0.2.0"'))
    assert not bootstrap.is_current(project.root)


def test_an_environment_that_was_copied_with_its_checkout_is_made_again(
    bootstrap: ModuleType, project: Any, tmp_path: Path
) -> None:
    bootstrap.setup(project.root, project.environment)
    copy = tmp_path / "copy"
    shutil.copytree(project.root, copy, symlinks=True)
    assert not bootstrap.is_current(copy)
    assert bootstrap.setup(copy, project.environment) is True
    assert str(copy) in (copy / ".venv" / "bin" / "llmops").read_text()


def test_an_interrupted_installation_is_made_again_from_scratch(bootstrap: ModuleType, project: Any) -> None:
    backend = project.root / "backend.py"
    sound = backend.read_text()
    backend.write_text("raise SystemExit('the power went')")
    with pytest.raises(bootstrap.BootstrapError, match="uv could not install"):
        bootstrap.setup(project.root, project.environment)
    assert not bootstrap.is_current(project.root)
    half_written = project.root / ".venv" / "lib" / "python3.11" / "site-packages" / "leaf.py"
    half_written.unlink()

    backend.write_text(sound)
    assert bootstrap.setup(project.root, project.environment) is True
    assert half_written.exists()


def test_an_environment_whose_renewal_was_interrupted_is_not_trusted(
    bootstrap: ModuleType, project: Any
) -> None:
    """Also when the lock is put back to what the environment was made from."""
    bootstrap.setup(project.root, project.environment)
    (project.root / ".venv" / ".installing").touch()
    assert not bootstrap.is_current(project.root)
    assert bootstrap.setup(project.root, project.environment) is True
    assert bootstrap.is_current(project.root)


def test_cuda_never_reaches_a_machine_without_a_gpu(bootstrap: ModuleType, project: Any) -> None:
    project.wheel("torch", requires="nvidia-cublas")
    project.wheel("nvidia-cublas")
    project.lock("torch==1.0")
    with pytest.raises(bootstrap.BootstrapError, match=r"1 CUDA packages \(nvidia-cublas") as caught:
        bootstrap.setup(project.root, project.environment)
    assert "PIP_FIND_LINKS" in str(caught.value)
    assert project.installed() == set()
    assert not bootstrap.is_current(project.root)


def test_cuda_is_installed_where_it_was_asked_for_by_name(bootstrap: ModuleType, project: Any) -> None:
    project.wheel("torch", requires="nvidia-cublas")
    project.wheel("nvidia-cublas")
    project.lock("torch==1.0")
    bootstrap.setup(project.root, {**project.environment, "LLMOPS_TORCH": "cu130"})
    assert project.installed() == {"torch", "nvidia_cublas", "llmops"}


@pytest.mark.parametrize(
    ("gpu", "find_links", "expected"),
    [
        (False, "", ["--torch-backend=cpu", ""]),
        (False, "/wheels", ["", "--torch-backend=cpu"]),
        (True, "/wheels", ["--torch-backend=auto", ""]),
    ],
)
def test_ways_to_get_torch_are_tried_in_the_order_that_fits_the_machine(
    bootstrap: ModuleType, tmp_path: Path, gpu: bool, find_links: str, expected: list[str]
) -> None:
    tried = tmp_path / "tried"
    _script(tmp_path / "uv", f'echo "$*" >> {tried}; echo "no route to the index" >&2; exit 2')
    if gpu:
        _script(tmp_path / "nvidia-smi", 'echo "GPU 0: something (UUID: GPU-1)"')
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "UV_FIND_LINKS": find_links}
    with pytest.raises(bootstrap.BootstrapError, match="no route to the index"):
        bootstrap.choose_plan(str(tmp_path / "uv"), Path(".venv/bin/python"), [Path("lock")], environment)
    options = [line.partition("--python .venv/bin/python")[2] for line in tried.read_text().splitlines()]
    assert [option.partition("--requirements")[0].strip() for option in options] == expected


def test_a_gpu_whose_driver_does_not_answer_is_none(bootstrap: ModuleType, tmp_path: Path) -> None:
    _script(tmp_path / "nvidia-smi", 'echo "No GPU: the driver does not answer"; exit 9')
    assert not bootstrap.has_gpu({"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert not bootstrap.has_gpu({"PATH": "/nowhere"})


def test_a_missing_python_is_named_with_what_to_do(
    bootstrap: ModuleType, project: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**project.environment, "LLMOPS_PYTHON": "/no/such/python3.11"}.items():
        monkeypatch.setenv(name, value)
    assert bootstrap.main(["--root", str(project.root)]) == 1
    message = capsys.readouterr().err
    assert "no Python 3.11" in message
    assert "/no/such/python3.11" in message
    assert "apt install python3.11" in message
    assert "Traceback" not in message


def test_pips_settings_reach_uv_and_its_own_come_first(bootstrap: ModuleType) -> None:
    variables = bootstrap.uv_environment(
        {
            "PIP_INDEX_URL": "https://mirror.example/simple",
            "PIP_EXTRA_INDEX_URL": "https://one.example  https://two.example",
            "PIP_FIND_LINKS": "/wheels /more",
            "PIP_CERT": "/ca.pem",
            "UV_DEFAULT_INDEX": "https://chosen.example/simple",
            "PYTHONDONTWRITEBYTECODE": "1",
            "VIRTUAL_ENV": "/elsewhere",
        }
    )
    assert variables["UV_DEFAULT_INDEX"] == "https://chosen.example/simple"
    assert variables["UV_INDEX"] == "https://one.example https://two.example"
    assert variables["UV_FIND_LINKS"] == "/wheels,/more"
    assert variables["SSL_CERT_FILE"] == "/ca.pem"
    assert variables["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    assert "PYTHONDONTWRITEBYTECODE" not in variables
    assert "VIRTUAL_ENV" not in variables


def test_an_old_uv_on_the_path_is_passed_over(bootstrap: ModuleType, tmp_path: Path) -> None:
    _script(tmp_path / "old" / "uv", 'echo "uv 0.4.30"')
    _script(tmp_path / ".tools" / f"uv-{bootstrap.UV_VERSION}" / "bin" / "uv", 'echo "uv 0.13.9"')
    found = bootstrap.find_uv(tmp_path, {"PATH": str(tmp_path / "old")})
    assert found == str(tmp_path / ".tools" / f"uv-{bootstrap.UV_VERSION}" / "bin" / "uv")


def test_uv_comes_from_the_index_when_there_is_no_pip(
    bootstrap: ModuleType, tmp_path: Path, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap.sys, "executable", "/bin/false")
    found = bootstrap.find_uv(tmp_path, {"PIP_INDEX_URL": index, "PATH": "/nowhere"})
    assert bootstrap._uv_version(found) == (0, 13)
    assert (tmp_path / ".tools" / ".gitignore").read_text() == "*\n"


def test_a_uv_that_is_not_what_the_index_names_is_refused(
    bootstrap: ModuleType, tmp_path: Path, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap.sys, "executable", "/bin/false")
    page = tmp_path / "index" / "simple" / "uv" / "index.html"
    page.write_text(page.read_text().replace('"sha256": "', '"sha256": "0'))
    with pytest.raises(bootstrap.BootstrapError, match="sha-256"):
        bootstrap.find_uv(tmp_path, {"PIP_INDEX_URL": index, "PATH": "/nowhere"})
    assert bootstrap._uv_version(str(tmp_path / ".tools" / "uv-0.13.9" / "bin" / "uv")) == ()


@pytest.fixture
def index(tmp_path: Path, bootstrap: ModuleType) -> Iterator[str]:
    """A package index on loopback that has one wheel, of uv."""
    page = tmp_path / "index" / "simple" / "uv"
    page.mkdir(parents=True)
    system = {"Linux": "manylinux_2_17", "Darwin": "macosx_11_0"}[bootstrap.platform.system()]
    name = f"uv-{bootstrap.UV_VERSION}-py3-none-{system}_{bootstrap.platform.machine()}.whl"
    with zipfile.ZipFile(page / name, "w") as wheel:
        wheel.writestr(f"uv-{bootstrap.UV_VERSION}.data/scripts/uv", "#!/bin/sh\necho uv 0.13.9\n")
    digest = hashlib.sha256((page / name).read_bytes()).hexdigest()
    file = {"filename": name, "url": name, "hashes": {"sha256": digest}}
    (page / "index.html").write_text(json.dumps({"files": [file]}))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path / "index")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/simple"
    server.shutdown()
    server.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def _script(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
