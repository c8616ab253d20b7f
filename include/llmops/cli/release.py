"""``llmops release``: which releases there are, what they pin, and how production moved."""

from __future__ import annotations

import json

import click

from llmops.release import find_release, ledger, list_releases, read_manifest
from llmops.settings import load_environment

_ASSISTANT = click.option(
    "--assistant", default="library_guide", show_default=True, help="Name of the assistant."
)


@click.group()
def command() -> None:
    """Look at releases."""


@command.command("list")
@_ASSISTANT
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_command(assistant: str, as_json: bool) -> None:
    """List releases, newest first, with their verdict, approval and alias."""
    rows = list_releases(load_environment().database_url.get_secret_value(), assistant)
    if as_json:
        click.echo(json.dumps([row.as_dict() for row in rows], indent=2))
        return
    click.echo(f"{'release':<14}{'made':<18}{'verdict':<12}{'approval':<26}alias")
    for row in rows:
        click.echo(
            f"{row.release_id[:12]:<14}{row.created_at:%Y-%m-%d %H:%M}  {row.verdict or '-':<12}"
            f"{row.approval or '-':<26}{', '.join(row.aliases) or '-'}"
        )


@command.command()
@click.argument("release_id")
def show(release_id: str) -> None:
    """Print the manifest of a release (an id or its beginning)."""
    url = load_environment().database_url.get_secret_value()
    manifest = read_manifest(url, find_release(url, release_id))
    click.echo(json.dumps({"release_id": manifest.release_id, **manifest.model_dump(mode="json")}, indent=2))


@command.command()
@_ASSISTANT
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def history(assistant: str, as_json: bool) -> None:
    """Print every move of the aliases, oldest first: from, to, who and why."""
    entries = ledger(load_environment().database_url.get_secret_value(), assistant)
    if as_json:
        click.echo(json.dumps([entry.as_dict() for entry in entries], indent=2))
        return
    for entry in entries:
        click.echo(
            f"{entry.entry:>4}  {entry.at:%Y-%m-%d %H:%M:%S}  {entry.alias:<11}{entry.action:<10}"
            f"{(entry.from_release or 'none')[:12]:<13} -> {entry.to_release[:12]}  by {entry.actor}: {entry.reason}"
        )
