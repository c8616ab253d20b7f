"""``llmops notary``: the process that records approvals."""

from __future__ import annotations

import click

from llmops.errors import ConfigurationError
from llmops.release import AirflowReader, Notary
from llmops.settings import environ, load_environment


@click.group()
def command() -> None:
    """Record how approval requests ended."""


@command.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of the health endpoint.")
@click.option("--health-port", default=8012, show_default=True, help="Port of the health endpoint.")
def run(host: str, health_port: int) -> None:
    """Watch open requests until stopped; reads Airflow as LLMOPS_AIRFLOW_USER."""
    variables = environ()
    try:
        user, password = variables["LLMOPS_AIRFLOW_USER"], variables["LLMOPS_AIRFLOW_PASSWORD"]
    except KeyError as error:
        raise ConfigurationError(
            f"{error.args[0]} is not set: the notary needs an account that may read Airflow"
        ) from error
    environment = load_environment()
    Notary(environment, AirflowReader(environment.airflow_url, user, password)).run(host, health_port)
