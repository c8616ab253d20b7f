"""``llmops doctor``: what would keep the stack from working on this machine."""

from __future__ import annotations

import click

from llmops.stack import Stack
from llmops.stack.doctor import Verdict, diagnose

_COLOURS = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.PROBLEM: "red"}


@click.command()
def command() -> None:
    """Check this machine; exit with 1 when something would not work."""
    problems = 0
    for finding in diagnose(Stack()):
        problems += finding.verdict is Verdict.PROBLEM
        mark = click.style(f"{finding.verdict:<8}", fg=_COLOURS[finding.verdict])
        click.echo(f"{mark} {finding.check:<14} {finding.message}")
    if problems:
        raise SystemExit(1)
