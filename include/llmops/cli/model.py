"""``llmops model``: the embedders and generators of an assistant in the registry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from llmops.assistant import load_assistant
from llmops.manifest import ArtifactPin
from llmops.registry import Registry
from llmops.release import registry_of
from llmops.settings import load_environment

if TYPE_CHECKING:
    from llmops.training import DatabricksEmbedder, OpenAIEmbedder

_assistant = click.option(
    "--assistant", default="library_guide", show_default=True, help="Name of the assistant."
)
_environment = click.option(
    "--env", "environment_name", help="Name of the environment, by default LLMOPS_ENV or dev."
)


@click.group()
def command() -> None:
    """Import, list and show models."""


@command.command("import")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="A sentence-transformers model with safetensors."
)
@click.option(
    "--kind", type=click.Choice(["openai", "databricks"]), help="Register a model behind an endpoint instead."
)
@click.option("--url", help="Base URL of the endpoint (openai), or of the workspace (databricks).")
@click.option("--endpoint", help="Name of the serving endpoint (databricks).")
@click.option("--model", help="Name of the model, as requests carry it.")
@click.option("--dimension", type=int, help="How many numbers a vector has.")
@click.option("--max-tokens", type=int, help="Where longer texts are cut.")
@_assistant
@_environment
def import_model(
    folder: Path | None, assistant: str, environment_name: str | None, kind: str | None, **options: Any
) -> None:
    """Register an embedder: the one of the assistant's file, the model in --folder, or one behind an endpoint.

    A remote one is asked what it computes now: run this again when its model was changed on purpose. Keys are
    never given here: `endpoints` in the environment's file says where they are.
    """
    environment = load_environment(environment_name)
    chosen = load_assistant(assistant, environment)
    registry = registry_of(environment, assistant)
    given = {key: value for key, value in options.items() if value is not None}
    if folder is not None and (kind or given):
        raise click.UsageError("--folder is a local model: give it alone")
    if folder is not None:
        pin = _import_folder(registry, folder)
    else:
        choice = _choice(kind, given) if kind or given else chosen.embedder
        pin = choice.register(registry, environment.endpoints)
        if choice.identity != chosen.embedder.identity:
            click.echo(
                f"{assistant} is configured with another embedder: releases take this one when its `embedder` is "
                f"written as registered here, or when a release run names {pin.uri}",
                err=True,
            )
    click.echo(f"{pin.uri}  fingerprint {pin.fingerprint[:12]}")


def _import_folder(registry: Registry, folder: Path) -> ArtifactPin:
    """Export a sentence-transformers model and register it."""
    import tempfile

    from llmops.training import export_embedder

    source = folder.expanduser().resolve()
    with tempfile.TemporaryDirectory() as scratch:
        exported = export_embedder(source, Path(scratch) / "embedder", name=source.name)
        return registry.register_model(
            "embedder",
            exported,
            params={"imported_from": source.name},
            metrics={},
            tags={"base_model": source.name},
        )


def _choice(kind: str | None, given: Mapping[str, Any]) -> OpenAIEmbedder | DatabricksEmbedder:
    """Return the remote embedder that the options describe."""
    from pydantic import ValidationError

    from llmops.training import DatabricksEmbedder, OpenAIEmbedder

    if kind is None:
        raise click.UsageError("say with --kind what is behind the endpoint")
    values = dict(given)
    if kind == "databricks" and "url" in values:
        values["host"] = values.pop("url")
    try:
        if kind == "databricks":
            return DatabricksEmbedder.model_validate({"kind": kind, **values})
        return OpenAIEmbedder.model_validate({"kind": kind, **values})
    except ValidationError as error:
        problems = "; ".join(
            f"--{'-'.join(map(str, each['loc'])).replace('_', '-')}: {each['msg']}"
            for each in error.errors(include_url=False, include_input=False)
        )
        raise click.UsageError(problems) from error


@command.command("list")
@click.option("--kind", type=click.Choice(["embedder", "generator"]), default="embedder", show_default=True)
@_assistant
@_environment
def list_models(kind: Literal["embedder", "generator"], assistant: str, environment_name: str | None) -> None:
    """Print every registered version, the newest first."""
    environment = load_environment(environment_name)
    models = registry_of(environment, load_assistant(assistant, environment).name).models(kind)
    for model in models:
        origin = model.tags.get("base_model") or f"trained from {model.tags.get('base', 'an unknown base')}"
        click.echo(f"{model.uri}  {model.tags.get('fingerprint', '')[:12]}  {origin}")
    if not models:
        click.echo(f"no {kind} of {assistant} is registered")


@command.command()
@click.argument("uri")
@_assistant
@_environment
def show(uri: str, assistant: str, environment_name: str | None) -> None:
    """Print the pin of models:/<name>/<number>: its fingerprint and the sha-256 of every file."""
    environment = load_environment(environment_name)
    pin = registry_of(environment, load_assistant(assistant, environment).name).pin(uri)
    click.echo(f"{pin.uri}\nfingerprint {pin.fingerprint}")
    for name, digest in sorted(pin.files.items()):
        click.echo(f"{digest}  {name}")
