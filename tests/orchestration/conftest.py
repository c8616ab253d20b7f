"""The real stores of the tests about releases, for steps that promote."""

from __future__ import annotations

from release.conftest import ask, environment, notary_key, record, release, report, url

__all__ = ["ask", "environment", "notary_key", "record", "release", "report", "url"]
