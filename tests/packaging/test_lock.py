"""The lock agrees with pyproject.toml, on paper: no network is needed to say so."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.txt", "requirements-dev.txt")


def _requirements(name: str) -> list[Requirement]:
    lines = (ROOT / name).read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.lstrip().startswith(("#", "-r"))]


def _pins(*names: str) -> dict[str, str]:
    """Return what the lock installs on this platform."""
    pins = {}
    for requirement in (r for name in names for r in _requirements(name)):
        if requirement.marker is None or requirement.marker.evaluate():
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", f"{requirement} is not pinned"
            pins[canonicalize_name(requirement.name)] = specifier.version
    return pins


def test_the_lock_holds_what_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {
        "requirements.txt": project["dependencies"],
        "requirements-dev.txt": project["optional-dependencies"]["dev"],
    }
    for name, lines in asked.items():
        pins = _pins(name) if name == LOCKS[0] else _pins(*LOCKS)
        assert len(lines) > 5
        for requirement in map(Requirement, lines):
            pinned = pins.get(canonicalize_name(requirement.name))
            assert pinned, f"{requirement} is not in {name}: run `make lock`"
            assert requirement.specifier.contains(pinned), f"{requirement.name} {pinned}: run `make lock`"


def test_no_requirement_is_locked_that_nothing_asks_for() -> None:
    """Every pin says who wants it; an edited file does not."""
    for name in LOCKS:
        blocks = re.split(r"(?m)^(?=[a-z0-9])", (ROOT / name).read_text())[1:]
        assert len(blocks) > 10
        assert [block for block in blocks if "# via" not in block] == []


def test_this_environment_is_what_the_lock_says() -> None:
    pins = _pins(*LOCKS)
    installed = {
        canonicalize_name(d.name): d.version.split("+")[0] for d in importlib.metadata.distributions()
    }
    assert {name: installed.get(name) for name in pins} == pins


def test_tests_need_nothing_that_the_runtime_pins_otherwise() -> None:
    both = _pins(LOCKS[0]).keys() & _pins(LOCKS[1]).keys()
    assert both == set()


@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_is_the_same_for_every_machine(name: str) -> None:
    text = (ROOT / name).read_text()
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        assert not re.search(r"://|--find-links|--index-url|--extra-index|file:|\s/\S|@ ", line), line
        assert not re.match(r"(nvidia|cuda|triton)", line), line
        assert not re.match(r"[a-z0-9-]+==\S*\+", line), (
            f"{line}: a local version is known to one machine only"
        )
    assert "make lock" in text.splitlines()[0]


def test_the_environment_is_python_3_11() -> None:
    assert default_environment()["python_version"] == "3.11"
