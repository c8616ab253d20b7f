"""``llmops config``: what an assistant's file says, and whether it is right."""

from __future__ import annotations

from typing import Any

import click
import yaml

from llmops.assistant import load_assistant
from llmops.chain import PromptTemplate
from llmops.errors import LlmopsError
from llmops.settings import Environment, assistant_names, load_environment, masked


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
    values = {"environment": environment.model_dump(mode="json"), "assistant": chosen.model_dump(mode="json")}
    click.echo(yaml.safe_dump(_without_secrets(values), sort_keys=False, allow_unicode=True), nl=False)


@command.command()
@click.option("--env", "environment_name", help="Name of the environment, by default LLMOPS_ENV or dev.")
def check(environment_name: str | None) -> None:
    """Check the environment and every assistant: its file, its prompt and its evaluation cases.

    Prints one line for each assistant, and exits with 1 when any of them is wrong.
    """
    environment = load_environment(environment_name)
    wrong = False
    for name in assistant_names():
        try:
            _check(name, environment)
        except LlmopsError as error:
            wrong = True
            click.echo(f"{name}: error: {masked(' '.join(str(error).split()))}")
        else:
            click.echo(f"{name}: ok (environment {environment.name})")
    if wrong:
        raise SystemExit(1)


def _check(name: str, environment: Environment) -> None:
    assistant = load_assistant(name, environment)
    PromptTemplate(assistant.prompt, with_context=assistant.retrieval.kind != "none")
    assistant.cases()


def _without_secrets(value: Any) -> Any:
    """Return a copy of nested mappings and lists with credentials in their texts masked."""
    if isinstance(value, dict):
        return {key: _without_secrets(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    return masked(value) if isinstance(value, str) else value
