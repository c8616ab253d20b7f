"""``llmops drill``: attack the running system's releases and see every attack refused."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
    with _ended_in_order():
        drill.run()
    if report is not None:
        write_report(report, drill.results())
    if drill.surprises:
        sys.exit(1)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Put back what is damaged for an attack when somebody ends the drill with SIGTERM, too."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
