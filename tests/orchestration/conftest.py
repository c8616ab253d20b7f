"""The real stores of the tests about releases, for steps that promote."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from release.conftest import ask, environment, notary_key, record, release, report, url

__all__ = ["ask", "environment", "notary_key", "record", "release", "report", "url"]


@pytest.fixture(scope="session", autouse=True)
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let Airflow, once a test imports it, write its configuration where nobody else looks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow_home")))
        yield
