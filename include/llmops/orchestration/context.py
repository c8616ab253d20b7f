"""What a task needs to know of its run, as plain values."""

from __future__ import annotations

import functools
import importlib
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from llmops.errors import ConfigurationError
from llmops.settings import Environment, load_environment

__all__ = ["Run", "run_of", "step"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """One run of a DAG for one assistant.

    ``as_of`` is the date the run is about: the end of its data interval, or when it was asked for.
    ``authors`` are the people behind it; ``user`` is the one who started it in Airflow, if a person did.
    """

    assistant: str
    environment: Environment
    dag_id: str
    run_id: str
    as_of: datetime
    authors: tuple[str, ...]
    user: str | None
    params: Mapping[str, Any]

    @property
    def database_url(self) -> str:
        """Return the URL of the ``llmops`` database as this process's role."""
        return self.environment.database_url.get_secret_value()

    @property
    def table_root(self) -> str:
        """Return the folder of the assistant's Delta tables."""
        return self.environment.table_root(self.assistant)

    @property
    def staging(self) -> Path:
        """Return a folder of this run's own, for what one task hands to the next."""
        return (
            Path(self.table_root)
            / "_staging"
            / re.sub(r"[^A-Za-z0-9.-]", "_", f"{self.dag_id}.{self.run_id}")
        )

    @property
    def actor(self) -> tuple[str, str]:
        """Return who moves things in this run, and how that is known, for the ledger."""
        return ", ".join(self.authors) or "nobody known", f"Airflow run {self.dag_id} {self.run_id}"


def run_of(context: Mapping[str, Any]) -> Run:
    """Return the run of an Airflow task context.

    The assistant is the one that the triggering asset events name, otherwise the parameter's; their authors
    are authors of this run too. The date of a manual run, which has no data interval, is when it was asked for.
    """
    dag_run, params = context["dag_run"], context["params"]
    triggering = (context.get("triggering_asset_events") or {}).values()
    extras = [event.extra or {} for events in triggering for event in events]
    named = [extra["assistant"] for extra in extras if "assistant" in extra]
    if len(set(named)) > 1 and not params.get("all_assistants"):
        raise ConfigurationError(
            f"run {dag_run.run_id!r} was started by events of several assistants, {sorted(set(named))}: "
            "trigger this DAG once for each of them"
        )
    authors = [dag_run.triggering_user_name, *(extra.get("author") for extra in extras)]
    return Run(
        assistant=named[-1] if named else params["assistant"],
        environment=load_environment(),
        dag_id=dag_run.dag_id,
        run_id=dag_run.run_id,
        as_of=dag_run.data_interval_end or dag_run.run_after,
        user=(dag_run.triggering_user_name or "").strip() or None,
        authors=tuple(sorted({name.strip() for names in authors if names for name in names.split(",")})),
        params=params,
    )


def step(*modules: str) -> Callable[[Callable[..., dict[str, Any]]], Callable[..., dict[str, Any]]]:
    """Make a function a step: ``modules`` are imported first, and its result says how long both took.

    The result gains ``seconds``: ``imports`` and ``work``, so that a run can be split into what it did, what
    Python loaded, and what was orchestration.
    """

    def decorate(function: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        @functools.wraps(function)
        def measured(*args: Any, **kwargs: Any) -> dict[str, Any]:
            start = time.perf_counter()
            for module in modules:
                importlib.import_module(module)
            imported = time.perf_counter()
            result = function(*args, **kwargs)
            done = time.perf_counter()
            seconds = {"imports": round(imported - start, 3), "work": round(done - imported, 3)}
            log.info("%s: %s (%s)", function.__name__, result, seconds)
            return {**result, "seconds": seconds}

        return measured

    return decorate
