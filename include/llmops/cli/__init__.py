"""The command ``llmops``: one module per noun, imported only when that noun is called."""

from __future__ import annotations

import importlib
import logging
import pkgutil
import sys
import traceback

import click

from llmops.errors import LlmopsError
from llmops.settings import masked

__all__ = ["main"]

log = logging.getLogger(__name__)


class _Nouns(click.Group):
    """Finds commands by module name, so that ``llmops --help`` imports nothing heavy."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__) if m.name[0] != "_")

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"{__name__}.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command


@click.command(cls=_Nouns, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    help="Show what happens inside (INFO lines on stderr), and where an error came from.",
)
@click.version_option(package_name="llmops")
def command(verbose: bool) -> None:
    """Run the whole life of an LLM application as Airflow DAGs."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every look of those who poll


def main() -> None:
    """Run the command line; an error of ours, a file or Postgres is ``error: …`` on stderr and exit code 1."""
    try:
        command(standalone_mode=True)
    except Exception as error:
        from psycopg import Error as PostgresError  # only now: most commands never need it

        if not isinstance(error, LlmopsError | OSError | PostgresError):
            raise
        log.info("Where the error came from:\n%s", masked(traceback.format_exc()))
        text = str(error) if isinstance(error, LlmopsError) else " ".join(str(error).split())
        click.secho(f"error: {masked(text) or type(error).__name__}", fg="red", err=True)
        sys.exit(1)
