"""``llmops index``: what the index holds, and the process that keeps it in step."""

from __future__ import annotations

import functools
import signal
import threading
from types import FrameType

import click

from llmops.assistant import load_assistant
from llmops.embedding import Embedder
from llmops.errors import MissingInput
from llmops.heartbeat import Heartbeat
from llmops.index import BuildPlan, Generation, dump, follow, generations, index_progress, plan
from llmops.lakehouse import LakeTable
from llmops.registry import Registry
from llmops.settings import Environment, home, load_environment

_assistant = click.option("--assistant", help="Name of an assistant, by default all of them.")
_environment = click.option(
    "--env", "environment_name", help="Name of the environment, by default LLMOPS_ENV or dev."
)


@click.group()
def command() -> None:
    """Look at the index generations, and follow the documents."""


@command.command()
@_assistant
@_environment
def status(assistant: str | None, environment_name: str | None) -> None:
    """Print every generation: state, chunks, and how far it is behind its chunks table."""
    environment = load_environment(environment_name)
    found = generations(environment.database_url.get_secret_value(), assistant)
    if not found:
        click.echo("no index generation yet: run release_assistant to build one")
    for generation in found:
        click.echo(
            f"{generation.id}  {generation.state:<8}  {generation.chunks:>8} chunks  "
            f"{_distance(environment, generation)}  embedder {generation.embedder.uri}"
        )
        for line in _progress(environment, generation):
            click.echo(f"    {line}")


@command.command(name="plan")
@click.option("--assistant", default="library_guide", show_default=True, help="Name of the assistant.")
@click.option(
    "--embedder", "uri", help="URI of a registered embedder, by default the newest of the assistant's own."
)
@_environment
def plan_command(assistant: str, uri: str | None, environment_name: str | None) -> None:
    """Print what a generation of the assistant's chunker and an embedder will cost, before it is built.

    Embeds a sample of what is to be embedded, for some seconds, to measure how fast this machine is; an endpoint is
    really asked for that, up to 256 texts.
    """
    from llmops.training import newest_embedder

    environment = load_environment(environment_name)
    chosen = load_assistant(assistant, environment)
    registry = Registry(environment.mlflow_url, environment.catalog, assistant, home() / "models")
    pin = registry.pin(uri) if uri else newest_embedder(registry, chosen.embedder)
    if pin is None:
        raise MissingInput(f"assistant {assistant!r} has no embedder yet: run ingest_documents")
    embedder = Embedder.load(registry.fetch(pin), endpoints=environment.endpoints)
    chunker = chosen.chunker.digest(embedder.tokenizer_file)
    table = LakeTable(environment.table_root(assistant), "chunks")
    made = plan(environment.database_url.get_secret_value(), table, chunker, embedder)
    for line in _described(made, pin.uri, chunker):
        click.echo(line)


@command.command(name="dump")
@click.option(
    "--generation", "generation_id", help="Id of one generation, by default all that are not retired."
)
@click.option(
    "--canonical",
    is_flag=True,
    required=True,
    help="One sorted JSON line per chunk, equal for equal content.",
)
@_assistant
@_environment
def dump_command(
    generation_id: str | None, canonical: bool, assistant: str | None, environment_name: str | None
) -> None:
    """Print the content of the index so that two builds can be compared with ``diff``."""
    url = load_environment(environment_name).database_url.get_secret_value()
    known = [g.id for g in generations(url, assistant) if g.state != "retired"]
    if not generation_id and not known:
        raise MissingInput("there is no index generation to dump: run release_assistant to build one")
    for name in [generation_id] if generation_id else sorted(known):
        for line in dump(url, name):
            click.echo(line)


@command.command(name="follow")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of the health endpoint.")
@click.option("--health-port", default=8011, show_default=True, help="Port of the health endpoint.")
def follow_command(host: str, health_port: int) -> None:
    """Embed and write what changes in the documents, within seconds, until stopped."""
    environment = load_environment()
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    with Heartbeat(host, health_port, limit_seconds=300) as heartbeat:
        follow(
            environment.database_url.get_secret_value(),
            lambda generation: LakeTable(environment.table_root(generation.assistant), "chunks"),
            functools.partial(_load_embedder, environment),
            stop=stop,
            beat=heartbeat.beat,
        )


def _load_embedder(environment: Environment, generation: Generation) -> Embedder:
    """Fetch a generation's embedder from the registry, every file checked against its pin, and load it."""
    registry = Registry(environment.mlflow_url, environment.catalog, generation.assistant, home() / "models")
    return Embedder.load(registry.fetch(generation.embedder), endpoints=environment.endpoints)


def _described(made: BuildPlan, uri: str, chunker: str) -> list[str]:
    if not made.chunks:
        return [f"no chunks of chunker {chunker}: ingest_documents writes them, then this can be planned"]
    speed = f" at {made.tokens_per_second:,.0f} tokens/s" if made.tokens_per_second else ""
    return [
        f"embedder   {uri}",
        f"chunks     {made.chunks:,}, of which {made.cached:,} have vectors",
        f"to embed   {made.texts:,} texts, {made.tokens:,} tokens",
        f"time       {made.minutes:.1f} minutes on this machine{speed}",
        f"disk       {made.bytes / 1e6:,.0f} MB ({made.table_bytes / 1e6:,.0f} table, "
        f"{made.index_bytes / 1e6:,.0f} indexes)",
    ]


def _progress(environment: Environment, generation: Generation) -> list[str]:
    """Return how far a load or the index of vectors is, none when neither is under way."""
    lines = []
    if generation.target is not None and generation.chunks_planned:
        done, planned = generation.chunks_done, generation.chunks_planned
        line = f"loading version {generation.target}: {done:,} of {planned:,} chunks ({done / planned:.0%})"
        if rate := generation.chunks_per_second:
            line += f", {rate:,.1f}/s, {(planned - done) / rate / 60:.1f} minutes left"
        lines.append(line)
    part = index_progress(environment.database_url.get_secret_value(), generation.id)
    if part is not None:
        lines.append(f"building the index of vectors: {part:.0%}")
    elif generation.chunks and not generation.vector_index and generation.target is None:
        lines.append("no index of vectors yet: the next sync builds it")
    return lines


def _distance(environment: Environment, generation: Generation) -> str:
    head = LakeTable(environment.table_root(generation.assistant), "chunks").version()
    if head is None:
        return "no chunks table"
    if generation.watermark is None:
        return "not loaded yet"
    return "up to date" if head == generation.watermark else f"version {generation.watermark} of {head}"
