"""``llmops notary``: the process that signs approvals, and its key."""

from __future__ import annotations

from pathlib import Path

import click

from llmops.errors import ConfigurationError
from llmops.release import AirflowReader, MlflowCopies, Notary, check_key_is_private, make_notary_key
from llmops.settings import environ, load_environment
from llmops.signing import SigningKey


@click.group()
def command() -> None:
    """Sign how approval requests ended."""


@command.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of the health endpoint.")
@click.option("--health-port", default=8012, show_default=True, help="Port of the health endpoint.")
def run(host: str, health_port: int) -> None:
    """Watch open requests until stopped.

    Reads Airflow as LLMOPS_AIRFLOW_USER and signs with the key in LLMOPS_NOTARY_KEY. Outside dev it does not start
    with a key that LLMOPS_WORKER_USER, who runs tasks, can read.
    """
    variables = environ()
    try:
        user, password = variables["LLMOPS_AIRFLOW_USER"], variables["LLMOPS_AIRFLOW_PASSWORD"]
        file = Path(variables["LLMOPS_NOTARY_KEY"])
    except KeyError as error:
        raise ConfigurationError(
            f"{error.args[0]} is not set: the notary needs an account that may read Airflow, and a key to sign with "
            "(`llmops notary key` makes one)"
        ) from error
    environment = load_environment()
    key = SigningKey.load(file)
    check_key_is_private(environment, file, variables.get("LLMOPS_WORKER_USER"))
    reader = AirflowReader(environment.airflow_url, user, password)
    Notary(environment, reader, key, MlflowCopies(environment)).run(host, health_port)


@command.command()
@click.option("--private", type=click.Path(path_type=Path), required=True, help="File of the private key.")
@click.option("--public", type=click.Path(path_type=Path), required=True, help="File of allowed signers.")
def key(private: Path, public: Path) -> None:
    """Make the notary's key if there is none, and add its public half to the file that services pin."""
    click.echo(f"The notary signs with key {make_notary_key(private, public)}")
