"""``llmops stack``: start, stop and look at every process on this machine."""

from __future__ import annotations

import time
from pathlib import Path

import click

from llmops.errors import StackError
from llmops.stack import Stack


@click.group()
def command() -> None:
    """Run Postgres, MLflow, Airflow and the services on this machine."""


@command.command()
@click.option("--only", multiple=True, metavar="PROCESS", help="Start this process and what it requires.")
@click.option("--port", "ports", multiple=True, metavar="NAME=NUMBER", help="Such as airflow=9090; 0: any.")
def up(only: tuple[str, ...], ports: tuple[str, ...]) -> None:
    """Start what is not running and wait until all of it works."""
    stack = Stack(only=only, ports=dict(map(_port, ports)))
    started = stack.up(click.echo)
    click.echo(f"the stack {'was already' if started.already_up else 'is'} up ({started.seconds:.0f} s)")
    if not only:
        click.echo(f"Airflow's UI: {stack.addresses['airflow']}")
    if started.new_passwords:
        click.echo("Airflow's users, shown this once (kept in a file only you can read):")
        for user, password in started.new_passwords.items():
            click.echo(f"  {user:<10} {password}")


@command.command()
def down() -> None:
    """Stop every process, also those that a killed supervisor left behind."""
    count = Stack().down()
    click.echo(f"stopped {count} processes" if count else "nothing was running")


@command.command()
def status() -> None:
    """Show every process; exit with 1 when one of them does not work."""
    processes = Stack().status()
    if not processes:
        raise StackError("no stack is running here: start it with `llmops stack up`")
    for process in processes:
        pid = str(process.leader.pid) if process.leader else "-"
        again = f"started {process.starts} times" if process.starts > 1 else ""
        columns = f"{process.name:<22} {process.state:<11} {pid:>8}  {process.address or '':<24}"
        click.echo(f"{columns} {again} {process.note}".rstrip())
    if not all(process.state.works for process in processes):
        raise SystemExit(1)


@command.command()
@click.argument("process")
@click.option("-n", "--lines", default=100, show_default=True, help="How many of the latest lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on printing what is written, until Ctrl-C.")
def logs(process: str, lines: int, follow: bool) -> None:
    """Print the log of PROCESS (or of the `supervisor`)."""
    _print_log(Stack().log_file(process), lines, follow)


@command.command(
    add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def airflow(arguments: tuple[str, ...]) -> None:
    """Run Airflow's own command line on the stack: `llmops stack airflow dags list`."""
    raise SystemExit(Stack().airflow(*arguments))


def _print_log(file: Path, lines: int, follow: bool) -> None:
    with file.open(errors="replace") as stream:
        for line in stream.readlines()[-lines:]:
            click.echo(line, nl=False)
        while follow:
            click.echo(stream.read(), nl=False)
            time.sleep(0.5)


def _port(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if not number.isdigit():
        raise click.BadParameter(f"{text!r} is not NAME=NUMBER", param_hint="--port")
    return name, int(number)
