"""MLflow's client: imported on first use, quiet, and with this package's errors."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from llmops.errors import MissingInput, ServiceUnavailable, TerminalError
from llmops.settings import masked

__all__ = ["answering", "client_of", "model_version", "note", "noted", "place"]

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
}
_MISSING = {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"}
_UNAVAILABLE = {
    "ABORTED",
    "BAD_GATEWAY",
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "INTERNAL_ERROR",
    "REQUEST_LIMIT_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "TEMPORARILY_UNAVAILABLE",
}


def client_of(url: str) -> Any:
    """Return a client for the tracking server and registry at ``url``."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking.client import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=url, registry_uri=url)


def place(url: str) -> str:
    """Describe where ``url`` points without its credentials."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else url


@contextlib.contextmanager
def answering(url: str, what: str) -> Iterator[None]:
    """Turn MLflow's errors into ours.

    MissingInput for what is not there, ServiceUnavailable for silence and overload, TerminalError for a
    request that MLflow refuses.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code in _MISSING:
            raise MissingInput(f"MLflow at {place(url)} has no {what}: {masked(error.message)}") from error
        if error.error_code in _UNAVAILABLE:
            raise ServiceUnavailable(
                f"MLflow at {place(url)} does not answer for {what}. Is it running? "
                "On a laptop: `llmops stack status`"
            ) from error
        raise TerminalError(
            f"MLflow at {place(url)} refused what was asked about {what} ({error.error_code}): "
            f"{masked(error.message)}"
        ) from error


def model_version(uri: str) -> tuple[str, str]:
    """Return name and version of ``models:/<name>/<version>``; raise MissingInput for anything else."""
    name, _, version = uri.removeprefix("models:/").rpartition("/")
    if not uri.startswith("models:/") or not name or not version.isdigit():
        raise MissingInput(f"{uri!r} names no model version: use models:/<name>/<number>")
    return name, version


def note(url: str, experiment: str, key: str, text: str) -> None:
    """Keep a short text as a tag of an experiment, which is created if it is not there."""
    from mlflow.exceptions import MlflowException

    client = client_of(url)
    with answering(url, f"experiment {experiment!r}"):
        found = client.get_experiment_by_name(experiment)
        if found is None:
            try:
                client.create_experiment(experiment)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            found = client.get_experiment_by_name(experiment)
        client.set_experiment_tag(found.experiment_id, key, text)


def noted(url: str, experiment: str, key: str) -> str | None:
    """Return the text that ``note`` kept, or None."""
    client = client_of(url)
    with answering(url, f"experiment {experiment!r}"):
        found = client.get_experiment_by_name(experiment)
    return found.tags.get(key) if found else None
