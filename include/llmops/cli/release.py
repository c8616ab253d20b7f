"""``llmops release``: what releases are, how they differ and moved; approving, rolling back, revoking one."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast, get_args

import click

from llmops.cli._who import Who, ask_secret, sign_in
from llmops.database import connect
from llmops.errors import MissingInput
from llmops.release import (
    Alias,
    confirm,
    current_release,
    differences,
    find_release,
    keep_in_delta,
    ledger,
    list_releases,
    read_manifest,
    revoke,
    roll_back,
    sign_release,
    store_signature,
)
from llmops.settings import load_environment
from llmops.signing import SigningKey

_ASSISTANT = click.option(
    "--assistant", default="library_guide", show_default=True, help="Name of the assistant."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_REASON = click.option("--reason", required=True, help="Why; it goes into the ledger.")
_CONFIRM_WAIT = timedelta(seconds=90)


def _moment(text: str) -> datetime:
    """Return a time as ISO 8601 has it, so also one that ``history`` printed; without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a time like 2026-03-02T12:00:00+01:00 or 2026-03-02"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@click.group()
def command() -> None:
    """Look at releases, approve, roll back or revoke one."""


@command.command("list")
@_ASSISTANT
@_JSON
def list_command(assistant: str, as_json: bool) -> None:
    """List releases, newest first, with their verdict, approval and alias."""
    rows = list_releases(_url(), assistant)
    if as_json:
        click.echo(json.dumps([row.as_dict() for row in rows], indent=2))
        return
    click.echo(f"{'release':<14}{'made':<18}{'verdict':<12}{'approval':<26}alias")
    for row in rows:
        marks = [*row.aliases, *(["revoked"] if row.revoked else []), *(["dirty"] if row.dirty else [])]
        click.echo(
            f"{row.release_id[:12]:<14}{row.created_at:%Y-%m-%d %H:%M}  {row.verdict or '-':<12}"
            f"{row.approval or '-':<26}{', '.join(marks) or '-'}"
        )


@command.command()
@click.argument("release")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest alone, as canonical JSON has it.")
def show(release: str, as_json: bool) -> None:
    """Print a release: its manifest and what the ledger says of it."""
    url = _url()
    manifest = read_manifest(url, find_release(url, release))
    values = manifest.model_dump(mode="json")
    if as_json:
        click.echo(json.dumps({"release_id": manifest.release_id, **values}, indent=2))
        return
    click.echo(f"release {manifest.release_id}")
    for key, value in values.items():
        click.echo(f"  {key:<18} {_short(value)}")
    for entry in ledger(url, manifest.assistant):
        if entry.to_release == manifest.release_id:
            click.echo(_line(entry.as_dict()))


@command.command()
@click.argument("before")
@click.argument("after")
@_JSON
def diff(before: str, after: str, as_json: bool) -> None:
    """Print what two releases differ in, field by field.

    A release is named by its id or the beginning of it, or as production or staging.
    """
    url = _url()
    sides = [read_manifest(url, _named(url, name)) for name in (before, after)]
    found = differences(*sides)
    if as_json:
        click.echo(json.dumps([vars(each) for each in found], indent=2, default=str))
        return
    click.echo(f"--- {sides[0].release_id}\n+++ {sides[1].release_id}")
    for each in found:
        click.echo(f"{each.field}\n  - {_short(each.before)}\n  + {_short(each.after)}")
    if not found:
        click.echo("the same release")


@command.command()
@_ASSISTANT
@click.option(
    "--at",
    type=_moment,
    metavar="TIME",
    help="Say what was in production at this time (ISO 8601, UTC without a zone).",
)
@_JSON
def history(assistant: str, at: datetime | None, as_json: bool) -> None:
    """Print the ledger, oldest first: moves of the aliases and decisions; or what was in production at a time."""
    url = _url()
    if at is not None:
        with connect(url) as connection:
            aliases = {a: current_release(connection, assistant, a, at) for a in ("production", "staging")}
        if as_json:
            click.echo(json.dumps({"at": at.isoformat(), **aliases}, indent=2))
            return
        for alias, release in aliases.items():
            click.echo(f"{alias:<11} {release or 'none'}")
        return
    entries = [entry.as_dict() for entry in ledger(url, assistant)]
    click.echo(json.dumps(entries, indent=2) if as_json else "\n".join(map(_line, entries)))


@command.command()
@click.argument("release")
@click.option("--key", "key_file", type=click.Path(path_type=Path), help="Your SSH private key.")
@click.option(
    "--signature",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A signature that you made yourself, with a hardware key for instance.",
)
def approve(release: str, key_file: Path | None, signature: Path | None) -> None:
    """Sign a release id with your own SSH key, where its gate asks for that or two approvers are needed.

    The same as `printf %s <whole id> | ssh-keygen -Y sign -n llmops-release -f <key>`, whose output --signature
    takes. It counts together with the answer in Airflow.
    """
    if (key_file is None) == (signature is None):
        raise click.UsageError("give either --key or --signature")
    environment = load_environment()
    release_id = find_release(environment.database_url.get_secret_value(), release)
    if signature is not None:
        personal = store_signature(environment, release_id, signature.read_text("utf-8"))
    else:
        assert key_file is not None
        key = SigningKey.load(key_file, lambda: ask_secret("Passphrase").encode())
        personal = sign_release(environment, release_id, key)
    click.echo(f"{personal.principal} signed release {release_id} with key {personal.fingerprint}")
    click.echo("It counts once you have answered the request in Airflow too.")


@command.command()
@_ASSISTANT
@click.option("--to", help="Release to go back to; by default the one that the present one replaced.")
@_REASON
@sign_in
def rollback(assistant: str, to: str | None, reason: str, who: Who) -> None:
    """Put an earlier production release back, whole, and wait until every replica answers with it.

    Where no service is running nobody can confirm it: the release is back all the same, and a warning says so.
    """
    environment = load_environment()
    release_id = roll_back(environment, assistant, to, who.actor(environment), reason)
    replicas = confirm(environment, release_id, _CONFIRM_WAIT, await_service=False)
    if replicas:
        click.echo(f"release {release_id} is in production on {replicas} replica(s)")
    else:
        click.echo(f"release {release_id} is in production, on no replica")
        click.echo(
            f"Warning: no service that answers for {assistant!r} is running here (none was heard of in the last 20 s), "
            "so nobody confirmed the release. The service will serve it when it starts; look at its /readyz then.",
            err=True,
        )
    keep_in_delta(environment)


@command.command("revoke")
@click.argument("release")
@_REASON
@sign_in
def revoke_command(release: str, reason: str, who: Who) -> None:
    """Enter that a release must never come to production again. It cannot be taken back."""
    environment = load_environment()
    release_id = revoke(environment, release, who.actor(environment), reason)
    click.echo(f"release {release_id} is revoked")


def _url() -> str:
    return load_environment().database_url.get_secret_value()


def _named(url: str, name: str) -> str:
    """Return the release that an alias of its assistant, or the beginning of its id, stands for."""
    if name not in get_args(Alias):
        return find_release(url, name)
    alias = cast(Alias, name)
    with connect(url) as connection:
        found = {current_release(connection, assistant, alias) for assistant in _assistants(url)} - {None}
    if len(found) != 1:
        raise MissingInput(
            f"{name!r} fits {len(found)} releases: name one by its id, `llmops release list` shows them"
        )
    return str(found.pop())


def _assistants(url: str) -> set[str]:
    return {entry.assistant for entry in ledger(url)}


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:199] + "…"


def _line(entry: dict[str, object]) -> str:
    moved = entry["alias"] is not None
    before = str(entry["from_release"] or "none")[:12] + " -> " if moved else ""
    return (
        f"{entry['entry']:>5}  {str(entry['at'])[:19]}  {entry['action']:<10}{entry['alias'] or '':<11}"
        f"{before}{str(entry['to_release'] or 'none')[:12]}  by {entry['actor']}: {entry['reason']}"
    )
