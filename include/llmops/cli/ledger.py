"""``llmops ledger``: whether the history of releases is what was written."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from llmops.release import check_ledger, kept_heads, ledger, notary_keys
from llmops.settings import load_environment


@click.group()
def command() -> None:
    """Check the ledger of releases."""


@command.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(as_json: bool) -> None:
    """Find any edit, deletion, changed order, rewritten chain or cut tail; exit 1 when there is one.

    Compares every entry with its hash and with the entry before, and the chain with every head that the notary
    signed, in Postgres, MLflow and Delta.
    """
    environment = load_environment()
    entries = ledger(environment.database_url.get_secret_value())
    found = check_ledger(entries, kept_heads(environment), environment.name, notary_keys(environment))
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
    else:
        click.echo(f"{found.entries} entries, {found.heads} signed heads, signed up to entry {found.signed}")
        for fault in found.faults:
            click.secho(f"✗ entry {fault.entry}: {fault.problem}", fg="red")
        if not found.faults:
            click.echo("✓ the ledger is what was written")
    if found.faults:
        sys.exit(1)
