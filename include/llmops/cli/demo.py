"""``llmops demo``: from real documents to a cited answer from an approved production release."""

from __future__ import annotations

from pathlib import Path

import click

from llmops.cli._story import Story, Wishes


@click.command()
@click.option(
    "--docs", type=click.Path(path_type=Path), help="A folder of your documents instead of the libraries'."
)
@click.option("--llm", help="URL of an OpenAI-compatible server, for the second release.")
@click.option("--model", help="Model that this server is asked for.")
@click.option("--llm-key-file", type=click.Path(path_type=Path), help="File with the server's key.")
@click.option("--exit", "leave", is_flag=True, help="Shut the stack down at the end.")
def command(
    docs: Path | None, llm: str | None, model: str | None, llm_key_file: Path | None, leave: bool
) -> None:
    """Run the whole loop on this machine and watch it."""
    if (llm is None) != (model is None):
        raise click.UsageError("give the LLM's URL and the model's name together: LLM=<url> MODEL=<name>")
    Story(Wishes(docs, llm, model, llm_key_file, leave)).tell()
