"""``llmops receipt``: what stands behind one answer."""

from __future__ import annotations

import json
import sys

import click

from llmops.cli.ask import harmless
from llmops.release import Receipt, receipt
from llmops.settings import load_environment


@click.command()
@click.argument("answer_id")
@click.option("--verify", is_flag=True, help="Exit 1 when any line names a fault.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--env", "environment_name", help="Name of the environment, by default LLMOPS_ENV or dev.")
def command(answer_id: str, verify: bool, as_json: bool, environment_name: str | None) -> None:
    """Walk from an answer over its chunks, documents, release, report and approval to the ledger, offline.

    A tick means that the line was verified now: by digest, by signature, or by its place in the ledger. Every line is
    there; one that cannot be checked because another does not hold is a fault that names it.
    """
    found = receipt(load_environment(environment_name), answer_id)
    click.echo(json.dumps(found.as_dict(), indent=2) if as_json else show_receipt(found))
    if verify and found.faults:
        sys.exit(1)


def show_receipt(found: Receipt) -> str:
    """Return a receipt as text for a terminal, a tick or a named fault per line."""
    lines = [f"Receipt of answer {found.answer_id}", f"  ? {found.question}"]
    for check in found.checks:
        lines.append(f"  {'✗' if check.fault else '✓'} {check.name:<12} {check.detail}")
        if check.fault:
            lines.append(f"    {'':<12} {check.fault}")
    return harmless("\n".join(lines))
