"""A folder of configuration for commands and tasks that find their environment by its file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from llmops.settings import Environment


def configured(environment: Environment, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every command find an environment by its file, as it does anywhere."""
    for name in [name for name in os.environ if name.startswith("LLMOPS_") and name != "LLMOPS_HOME"]:
        monkeypatch.delenv(name)
    values = environment.model_dump(mode="json", exclude={"name"})
    values["database_url"] = environment.database_url.get_secret_value()
    file = folder / "include" / "environments" / "dev.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(yaml.safe_dump(values))
    monkeypatch.setenv("LLMOPS_INCLUDE", str(folder / "include"))
