"""The release as MLflow and Databricks see it: an agent from code, and the files it is about."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib import metadata, resources
from pathlib import Path

__all__ = ["write_agent"]


def write_agent(scratch: Path, files: Mapping[str, str]) -> Path:
    """Write a loadable agent with ``files`` among its artifacts below ``scratch`` and return its folder.

    Logging runs the agent once with ``dry_run``, which needs neither model nor index.
    """
    from mlflow.pyfunc import save_model

    inputs = scratch / "files"
    inputs.mkdir()
    for name, text in files.items():
        (inputs / name).write_text(text, encoding="utf-8")
    code = scratch / "assistant_agent.py"
    code.write_text(
        (resources.files("llmops.registry") / "agent_code" / "assistant_agent.py").read_text("utf-8")
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save_model(
            path=str(scratch / "model"),
            python_model=str(code),
            artifacts={name: str(inputs / name) for name in files},
            input_example={
                "input": [{"role": "user", "content": "How do I start?"}],
                "custom_inputs": {"dry_run": True},
            },
            pip_requirements=[_requirement()],
        )
    return scratch / "model"


def _requirement() -> str:
    """Return what to install for the agent to run: this package, in this version where it is installed."""
    try:
        return f"llmops=={metadata.version('llmops')}"
    except metadata.PackageNotFoundError:
        return "llmops"
