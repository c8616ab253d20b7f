"""A small project that ``tools/bootstrap.py`` can set up with the real uv and no network."""

from __future__ import annotations

import importlib.util
import os
import sys
import textwrap
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]

BACKEND = """
import zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "llmops-0.1.0-py3-none-any.whl"
    info = "llmops-0.1.0.dist-info"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: llmops\\nVersion: 0.1.0\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/entry_points.txt", "[console_scripts]\\nllmops = textwrap:dedent\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""

PYPROJECT = """
    [build-system]
    requires = []
    build-backend = "backend"
    backend-path = ["."]

    [project]
    name = "llmops"
    version = "0.1.0"

    [tool.ruff]
    line-length = 110
"""


@pytest.fixture(scope="session")
def bootstrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "tools" / "bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bootstrap"] = module
    spec.loader.exec_module(module)
    return module


@dataclass
class Project:
    """The project, and the wheels that its package index would have."""

    root: Path
    wheels: Path
    environment: dict[str, str]

    def lock(self, *lines: str) -> None:
        (self.root / "requirements.txt").write_text("\n".join(lines) + "\n")

    def wheel(self, name: str, version: str = "1.0", requires: str = "") -> None:
        plain = name.replace("-", "_")
        info = f"{plain}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        metadata += f"Requires-Dist: {requires}\n" if requires else ""
        with zipfile.ZipFile(self.wheels / f"{plain}-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{plain}.py", f"VERSION = {version!r}\n")
            wheel.writestr(f"{info}/METADATA", metadata)
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")

    def installed(self) -> set[str]:
        folder = self.root / ".venv" / "lib" / "python3.11" / "site-packages"
        return {path.name.split("-")[0] for path in folder.glob("*.dist-info")}


@pytest.fixture
def project(tmp_path: Path, bootstrap: ModuleType) -> Project:
    root, wheels = tmp_path / "checkout", tmp_path / "wheels"
    root.mkdir()
    wheels.mkdir()
    (root / "pyproject.toml").write_text(textwrap.dedent(PYPROJECT))
    (root / "backend.py").write_text(BACKEND)
    (root / "requirements-dev.txt").write_text("# Download: 7 MB with the runtime.\n-r requirements.txt\n")
    environment = {
        "UV": bootstrap.find_uv(ROOT, os.environ),
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path / "home"),
        "LLMOPS_PYTHON": sys.executable,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "UV_OFFLINE": "1",
    }
    made = Project(root, wheels, environment)
    made.wheel("leaf")
    made.lock("leaf==1.0")
    return made
