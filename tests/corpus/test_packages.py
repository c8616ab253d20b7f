"""Documents from installed packages: the public API, read without importing anything."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from llmops.corpus import PackagesSource
from llmops.corpus._api import Api
from llmops.errors import MissingInput

NOW = datetime(2024, 1, 1, tzinfo=UTC)


def texts(*packages: str, exclude: tuple[str, ...] = ()) -> dict[str, str]:
    source = PackagesSource(kind="packages", name="libraries", packages=list(packages), exclude=list(exclude))
    return {file.path: file.read().decode() for file in source.discover(NOW)}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that would fail if anybody imported it."""
    folder = tmp_path / "sample"
    (folder / "_hidden").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    (folder / "__init__.py").write_text(
        '"""A sample."""\n'
        "from ._hidden.core import Engine\nfrom .tools import helper\n"
        '__all__ = ["Engine", "helper"]\n'
        'def unlisted():\n    """Not exported."""\n'
        'raise RuntimeError("imported")\n'
    )
    (folder / "tools.py").write_text(
        'def helper(a: int, *, b: str = "x") -> bool:\n    """Help.\n\n    :param a: how much\n'
        '    :raises ValueError: if it cannot\n    """\n'
        'def _private():\n    """Secret."""\n'
    )
    (folder / "_hidden" / "__init__.py").write_text("")
    (folder / "_hidden" / "core.py").write_text(
        "class Base:\n"
        '    def shared(self):\n        """Everybody has it."""\n'
        "class Engine(Base):\n"
        '    """Runs things.\n\n    Args:\n        speed: How fast.\n    """\n'
        "    def __init__(self, speed: float = 1.0): ...\n"
        '    async def start(self):\n        """Start it.\n\n        Like this::\n\n'
        '            await engine.start()\n        """\n'
        '    @property\n    def state(self) -> str:\n        """What it does now."""\n'
        "    def undocumented(self): ...\n"
        '    def _inner(self):\n        """Secret."""\n'
    )
    return folder


def test_public_things_are_documented_once_under_their_shortest_name(package: Path) -> None:
    documents = {document.path: document.text for document in Api.of("sample").documents()}
    assert sorted(documents) == ["sample", "sample.Engine"]
    assert "## sample.helper" in documents["sample"]
    assert "Secret" not in "".join(documents.values())
    assert "Not exported" not in "".join(documents.values())


def test_a_class_has_its_signature_and_its_members_as_sections(package: Path) -> None:
    text = {document.path: document.text for document in Api.of("sample").documents()}["sample.Engine"]
    assert text.startswith(
        "# sample.Engine\n\n```python\nclass Engine(speed: float = 1.0)\n```\n\nRuns things.\n"
    )
    assert "**Parameters:**\n\n- `speed` (`float`): How fast." in text
    assert (
        "```python\nasync def start()\n```\n\nStart it.\n\nLike this:\n\n```\nawait engine.start()\n```"
        in text
    )
    assert "## sample.Engine.state\n\n```python\nstate: str\n```" in text
    assert "undocumented" not in text


def test_members_of_a_private_base_class_belong_to_the_public_one(package: Path) -> None:
    text = {document.path: document.text for document in Api.of("sample").documents()}["sample.Engine"]
    assert "## sample.Engine.shared\n\n```python\ndef shared()\n```\n\nEverybody has it." in text


def test_sphinx_fields_become_lists(package: Path) -> None:
    text = {document.path: document.text for document in Api.of("sample").documents()}["sample"]
    assert "def helper(a: int, *, b: str = 'x') -> bool" in text
    assert "**Parameters:**\n\n- `a`: how much" in text
    assert "**Raises:**\n\n- `ValueError`: if it cannot" in text


def test_an_excluded_name_gives_no_document() -> None:
    assert "psycopg_pool.sched.Scheduler" in texts("psycopg_pool")
    assert not any(
        path.startswith("psycopg_pool.sched") for path in texts("psycopg_pool", exclude=("*.sched*",))
    )


def test_the_connection_pool_explains_how_to_open_it() -> None:
    found = texts("psycopg_pool")
    text = found["psycopg_pool.ConnectionPool"]
    assert text.startswith("# psycopg_pool.ConnectionPool\n")
    assert "open: bool | None = None," in text
    assert "Open the pool by starting connecting and and accepting clients." in text
    assert "Context manager to obtain a connection from the pool." in text
    assert 'pip install "psycopg[pool]"' in found["psycopg-pool/README"]


def test_the_default_packages_are_a_real_corpus() -> None:
    found = texts(
        "psycopg", "psycopg_pool", "pgvector", "deltalake", "airflow.sdk", "airflow.providers.standard",
        "airflow.providers.databricks",
        exclude=("airflow.sdk.execution_time*",),
    )  # fmt: skip
    assert len(found) > 450
    assert sum(len(text.split()) for text in found.values()) > 60_000
    assert sum(text.count("\n## ") for text in found.values()) > 700
    for path in ("deltalake.DeltaTable", "airflow.sdk.DAG", "psycopg.Connection", "pgvector/README"):
        assert found[path].startswith("# ")
    assert not any(str(Path(sys.prefix)) in text for text in found.values())


def test_nothing_is_imported_and_two_processes_read_the_same(tmp_path: Path) -> None:
    code = (
        "import sys, hashlib, datetime as d\nfrom llmops.corpus import PackagesSource\n"
        "s = PackagesSource(kind='packages', name='s', packages=['airflow.sdk', 'deltalake'])\n"
        "h = hashlib.sha256()\n"
        "for f in s.discover(d.datetime(2024, 1, 1, tzinfo=d.timezone.utc)):\n"
        "    h.update(f.path.encode() + f.read())\n"
        "assert not {'airflow', 'deltalake', 'pandas'} & set(sys.modules), 'imported'\nprint(h.hexdigest())\n"
    )
    include = Path(__file__).parents[2] / "include"
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path,
            env={"PYTHONPATH": str(include), "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(digests) == 1


@pytest.mark.parametrize("name", ["not_installed_anywhere", "../etc", "os"])
def test_a_package_that_is_not_installed_is_named(name: str) -> None:
    with pytest.raises(MissingInput, match="is not installed"):
        texts(name)
