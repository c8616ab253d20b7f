"""``llmops model``: the embedders and generators of an assistant in the registry."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from llmops.assistant import load_assistant
from llmops.release import registry_of
from llmops.settings import load_environment

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
@_assistant
@_environment
def import_model(folder: Path | None, assistant: str, environment_name: str | None) -> None:
    """Export an embedder and register it: the packaged base model, or the one in --folder."""
    import tempfile

    from llmops.training import ensure_base_embedder, export_embedder

    environment = load_environment(environment_name)
    chosen = load_assistant(assistant, environment)
    registry = registry_of(environment, assistant)
    if folder is None:
        pin = ensure_base_embedder(registry, chosen.base_embedder)
    else:
        source = folder.expanduser().resolve()
        with tempfile.TemporaryDirectory() as scratch:
            exported = export_embedder(source, Path(scratch) / "embedder", name=source.name)
            pin = registry.register_model(
                "embedder",
                exported,
                params={"imported_from": source.name},
                metrics={},
                tags={"base_model": source.name},
            )
    click.echo(f"{pin.uri}  fingerprint {pin.fingerprint[:12]}")


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
