"""``llmops corpus``: the documents of an assistant, where they come from and what became of them."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from llmops.corpus import DOCUMENTS, QUARANTINE, dump, history
from llmops.errors import MissingInput
from llmops.lakehouse import LakeTable
from llmops.settings import Environment, load_environment

_assistant = click.option(
    "--assistant", default="library_guide", show_default=True, help="Name of the assistant."
)
_environment = click.option(
    "--env", "environment_name", help="Name of the environment, by default LLMOPS_ENV or dev."
)


class _Moment(click.ParamType[datetime]):
    """A date, which means its end in UTC as a daily run of that date does, or a point in time."""

    name = "date"

    def convert(
        self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is neither a date like 2024-05-31 nor a time like 2024-05-31T12:00+00:00")
        if len(value) == len("2024-05-31"):
            moment += timedelta(days=1)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@click.group()
def command() -> None:
    """Ingest documents, and look at them, at what was refused, and at what happened to each."""


@command.command()
@click.option("--as-of", type=_Moment(), help="Take the sources as they were then; by default as they are.")
@_assistant
@_environment
def ingest(as_of: datetime | None, assistant: str, environment_name: str | None) -> None:
    """Read the sources, check their quality, merge documents and chunks: what the DAG does, in this process."""
    from llmops.assistant import load_assistant
    from llmops.corpus import check_quality, merge_chunks, merge_documents, read_sources, report_sources
    from llmops.release import chunkers_in_use, ensure_embedder

    environment = load_environment(environment_name)
    chosen = load_assistant(assistant, environment)
    root, url = environment.table_root(assistant), environment.database_url.get_secret_value()
    ensure_embedder(environment, chosen)
    with tempfile.TemporaryDirectory(prefix="llmops-ingest-") as folder:
        staging = Path(folder) / "staging"
        moment = as_of or datetime.now(UTC)
        read = read_sources(chosen.sources, chosen.quality, as_of=moment, staging=staging, table_root=root)
        click.echo(f"read       {read['documents']} documents, {read['quarantined']} in quarantine")
        checked = check_quality(chosen.sources, staging, root, chosen.quality)
        click.echo(f"checked    {checked['expectations']} expectations on {checked['documents']} documents")
        click.echo(f"documents  {_counts(merge_documents(staging, root, url))}")
        click.echo(f"chunks     {_counts(merge_chunks(root, chunkers_in_use(environment, chosen), url))}")
        report_sources(staging)


@command.command("list")
@click.option("--source", help="Only the documents of this source.")
@_assistant
@_environment
def list_documents(source: str | None, assistant: str, environment_name: str | None) -> None:
    """Print every document: its URI, version, date at the source and title."""
    table = LakeTable(_root(environment_name, assistant), DOCUMENTS)
    columns = ["source", "path", "version", "source_date", "title"]
    for row in table.read(columns).sort_by([("source", "ascending"), ("path", "ascending")]).to_pylist():
        if source in (None, row["source"]):
            date = row["source_date"].date().isoformat() if row["source_date"] else "-"
            click.echo(
                f"{row['source']}:{row['path']}  {row['version'][:12]}  {date:<10}  {_shown(row['title'])}"
            )


@command.command("history")
@click.argument("uri")
@_assistant
@_environment
def history_command(uri: str, assistant: str, environment_name: str | None) -> None:
    """Print the life of one document; URI is source:path, or the path where only one source has it."""
    for event in history(_root(environment_name, assistant), uri):
        version = event.version[:12]
        other = {"created": "from", "moved": "to"}
        where = f"  {other.get(event.event, '')} {event.other_path}".rstrip() if event.other_path else ""
        click.echo(f"{event.merged_at}  {event.event:<11}  {version}  as of {event.as_of or '-'}{where}")


@command.command()
@click.option("--source", help="Only the files of this source.")
@_assistant
@_environment
def quarantine(source: str | None, assistant: str, environment_name: str | None) -> None:
    """Print every file that became no document, and why."""
    table = LakeTable(_root(environment_name, assistant), QUARANTINE)
    rows = table.read().sort_by([("source", "ascending"), ("path", "ascending")]).to_pylist()
    for row in rows:
        if source in (None, row["source"]):
            tries = f" (tried {row['count']} times)" if row["count"] > 1 else ""
            click.echo(f"{row['source']}:{_shown(row['path'])}  {row['problem']}: {row['reason']}{tries}")


@command.command("dump")
@click.option("--canonical", is_flag=True, required=True, help="One sorted JSON line per document and chunk.")
@_assistant
@_environment
def dump_command(canonical: bool, assistant: str, environment_name: str | None) -> None:
    """Print documents and chunks so that two builds can be compared with ``diff``."""
    for line in dump(_root(environment_name, assistant)):
        click.echo(line)


def _root(environment_name: str | None, assistant: str) -> str:
    environment: Environment = load_environment(environment_name)
    root = environment.table_root(assistant)
    if not LakeTable(root, DOCUMENTS).exists():
        raise MissingInput(f"assistant {assistant!r} has no documents yet: run `llmops corpus ingest`")
    return root


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {what}" for what, number in counts.items())


def _shown(text: str) -> str:
    """Return a text of a document as a terminal may show it: without control characters."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
