"""``llmops config``: what an assistant's file says, and whether it is right."""

from __future__ import annotations

import click
import yaml

from llmops.assistant import load_assistant
from llmops.settings import assistant_names, load_environment


@click.group()
def command() -> None:
    """Show and check the configuration files."""


@command.command()
@click.option("--assistant", default="library_guide", show_default=True, help="Name of the assistant.")
@click.option("--env", "environment_name", help="Name of the environment, by default LLMOPS_ENV or dev.")
def show(assistant: str, environment_name: str | None) -> None:
    """Print what is in force after the environment was laid over the assistant's file, without secrets."""
    environment = load_environment(environment_name)
    chosen = load_assistant(assistant, environment)
    click.echo(
        yaml.safe_dump(
            {"environment": environment.model_dump(mode="json"), "assistant": chosen.model_dump(mode="json")},
            sort_keys=False,
            allow_unicode=True,
        ),
        nl=False,
    )


@command.command()
@click.option("--env", "environment_name", help="Name of the environment, by default LLMOPS_ENV or dev.")
def check(environment_name: str | None) -> None:
    """Check the environment and every assistant's file; name every wrong key."""
    environment = load_environment(environment_name)
    for name in assistant_names():
        load_assistant(name, environment)
        click.echo(f"{name}: ok (environment {environment.name})")
