"""``llmops drill``: attack the running system's releases and see every attack refused."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from llmops.cli._drill import Drill
from llmops.cli._drill_report import write_report
from llmops.settings import home


@click.command()
@click.option(
    "--kills", default=1, show_default=True, type=click.IntRange(1, 10_000), help="How often per class."
)
@click.option("--seed", default=7, show_default=True, help="Chooses where promotions are killed.")
@click.option(
    "--report", type=click.Path(path_type=Path, dir_okay=False), help="Write counts and bounds as Markdown."
)
def command(kills: int, seed: int, report: Path | None) -> None:
    """Attack releases on the running local stack, while questions are asked; exit 1 on any surprise.

    An assistant called drill, with documents of its own, is released and attacked; no other assistant is touched,
    but questions go to all of them. Each line says what was tried, what refused it, and the line of the ledger that
    remembers it.
    """
    drill = Drill(home(), kills=kills, seed=seed)
    drill.run()
    if report is not None:
        write_report(report, drill.results())
    if drill.surprises:
        sys.exit(1)
