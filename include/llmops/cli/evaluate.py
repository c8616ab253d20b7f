"""``llmops evaluate``: figures on any BEIR folder, and evaluation cases to edit."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmops.errors import ConfigurationError, MissingInput
from llmops.settings import home, load_environment

if TYPE_CHECKING:
    from llmops.embedding import Embedder
    from llmops.evaluation import BeirDataset, BeirRow
    from llmops.index import Mode

_CANDIDATES = 50
_GENERATION = "beir"
_UNSAFE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""Settings of a server that nobody needs after a crash."""


@click.group(invoke_without_command=True)
@click.option("--beir", "folder", type=click.Path(path_type=Path), help="Folder in the layout of BEIR.")
@click.option("--split", default="test", show_default=True, help="Name of the file below qrels/.")
@click.option(
    "--embedder", type=click.Path(path_type=Path), help="Folder of an embedder, by default the base one."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@click.pass_context
def command(
    context: click.Context, folder: Path | None, split: str, embedder: Path | None, as_json: bool
) -> None:
    """Measure search on a BEIR folder, or work with evaluation cases.

    With --beir it prints nDCG@10, recall@10, MRR@10 and documents per second of three ways to search:
    exact over whole documents, and the product's own path (chunks, index) by vectors and hybrid. That
    runs on a Postgres of its own, which is gone afterwards; a running stack is not touched.
    """
    if context.invoked_subcommand is not None:
        return
    if folder is None:
        click.echo(context.get_help())
        return
    from llmops.evaluation import load_beir

    dataset = load_beir(folder, split)
    say = _teller(quiet=as_json)
    say(f"{dataset.name}/{split}: {len(dataset.documents):,} documents, {len(dataset.questions):,} questions")
    rows = list(_measure(dataset, _embedder(embedder, say), say))
    if as_json:
        click.echo(
            json.dumps(
                {"dataset": dataset.name, "split": split, "rows": [r.as_dict() for r in rows]}, indent=2
            )
        )
        return
    click.echo(table(rows))


def table(rows: Sequence[BeirRow]) -> str:
    """Return the rows as a table for a terminal."""
    lines = [f"{'':24} nDCG@10  recall@10  MRR@10  documents/s"]
    for row in rows:
        scores = f"{row.ndcg_at_10:7.4f}  {row.recall_at_10:9.4f}  {row.mrr_at_10:6.4f}"
        lines.append(f"{row.name:24} {scores}  {row.documents_per_second:11.1f}")
    return "\n".join(lines)


@command.group()
def cases() -> None:
    """Work with the questions that releases are evaluated on."""


@cases.command()
@click.option("--assistant", default="library_guide", show_default=True, help="Name of the assistant.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="File to write, JSONL."
)
@click.option(
    "--limit", default=60, show_default=True, type=click.IntRange(2, 5000), help="The most cases to derive."
)
@click.option("--seed", default=7, show_default=True, help="Another seed picks other sections.")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@click.option("--env", "environment_name", help="Name of the environment, by default LLMOPS_ENV or dev.")
def export(
    assistant: str, out: Path, limit: int, seed: int, force: bool, environment_name: str | None
) -> None:
    """Derive cases from the headings of an assistant's documents and write them as a file to edit.

    Edit questions and facts, set "synthetic" to false where a person has, and name the file under
    evaluation_cases in the assistant's configuration.
    """
    from llmops.evaluation import derive_cases, save_cases
    from llmops.lakehouse import LakeTable
    from llmops.settings import assistant_files

    if out.exists() and not force:
        raise ConfigurationError(
            f"{out} is there already: choose another --out, or give --force to replace it"
        )
    environment = load_environment(environment_name)
    assistant_files(assistant)
    chunks = LakeTable(environment.table_root(assistant), "chunks")
    if not chunks.exists():
        raise MissingInput(
            f"assistant {assistant!r} has no chunks yet ({chunks.uri}): run the DAG ingest_documents"
        )
    derived = derive_cases(chunks.read(), limit=limit, seed=seed)
    save_cases(derived, out)
    refusals = sum(case.unanswerable for case in derived)
    click.echo(f"{out}: {len(derived)} synthetic cases, {refusals} of them unanswerable")


def _measure(dataset: BeirDataset, embedder: Embedder, say: Callable[[str], None]) -> Iterator[BeirRow]:
    """Yield the row of each way to search."""
    from llmops.evaluation import evaluate_exact, evaluate_search

    yield evaluate_exact(dataset, embedder)
    say("exact dense, unchunked: done")
    with _product_path(dataset, embedder, say) as (search, seconds):
        modes: tuple[Mode, ...] = ("dense", "hybrid")
        for mode in modes:
            name = f"product path {mode}"
            yield evaluate_search(name, dataset, partial(search, mode=mode), seconds)
            say(f"{name}: done")


@contextmanager
def _product_path(
    dataset: BeirDataset, embedder: Embedder, say: Callable[[str], None]
) -> Iterator[tuple[Callable[..., list[str]], float]]:
    """Ingest, chunk and index the corpus as the product does; give a search and how many seconds it took."""
    from llmops.corpus import CHUNKS, Chunker, DirectorySource, merge_chunks, merge_documents, read_sources
    from llmops.database import connect
    from llmops.index import Generation, create_generation, sync
    from llmops.index import search as search_index
    from llmops.lakehouse import LakeTable
    from llmops.manifest import ArtifactPin

    with tempfile.TemporaryDirectory(prefix="llmops-beir-") as folder, _postgres() as url:
        ids = _write_documents(dataset, Path(folder) / "documents")
        tables, chunker = str(Path(folder) / "tables"), Chunker()
        digest = chunker.digest(embedder.tokenizer_file)
        source = DirectorySource(kind="directory", name="beir", path=str(Path(folder) / "documents"))
        started = time.perf_counter()
        read_sources([source], as_of=datetime.now(UTC), staging=Path(folder) / "staging", table_root=tables)
        merge_documents(Path(folder) / "staging", tables, url)
        chunks = merge_chunks(tables, {digest: (chunker, embedder.tokenizer_file)}, url)
        pin = ArtifactPin(uri=str(embedder.folder), files={}, fingerprint=embedder.fingerprint)
        create_generation(
            url, Generation(_GENERATION, "beir", pin, embedder.fingerprint, embedder.dimension, digest)
        )
        sync(url, _GENERATION, LakeTable(tables, CHUNKS), embedder)
        seconds = time.perf_counter() - started
        say(f"product path: {chunks['inserted']:,} chunks indexed in {seconds:.0f} s")
        with connect(url, autocommit=True) as connection:

            def search(question: str, mode: Mode) -> list[str]:
                hits = search_index(
                    connection,
                    _GENERATION,
                    question,
                    embedder.embed_queries([question])[0],
                    top_k=_CANDIDATES,
                    candidates=_CANDIDATES,
                    mode=mode,
                )
                return [ids[hit.path] for hit in hits]

            yield search, seconds


def _write_documents(dataset: BeirDataset, folder: Path) -> dict[str, str]:
    """Write each document as a file and return its id by path: with its title as heading, if it has one."""
    folder.mkdir()
    ids = {}
    for number, document in enumerate(dataset.documents):
        name = f"{number:07}.{'md' if document.title else 'txt'}"
        heading = f"# {' '.join(document.title.split())}\n\n" if document.title else ""
        (folder / name).write_text(heading + document.text, encoding="utf-8")
        ids[name] = document.id
    return ids


@contextmanager
def _postgres() -> Iterator[str]:
    """Run a Postgres for as long as the block lasts; give the URL of a worker."""
    from llmops.stack import EmbeddedPostgres

    with tempfile.TemporaryDirectory(prefix="llmops-beir-") as folder:
        server = EmbeddedPostgres(Path(folder) / "postgres", settings=_UNSAFE)
        try:
            server.start()
            server.set_up()
            yield server.url("llmops_worker")
        finally:
            server.destroy()


def _embedder(folder: Path | None, say: Callable[[str], None]) -> Embedder:
    from llmops.embedding import Embedder

    if folder is None:
        folder = home() / "models" / "base-embedder"
        if not (folder / "embedder.json").is_file():
            from llmops.training import import_base_embedder

            say("importing the base embedder, once")
            import_base_embedder(folder)
    return Embedder.load(folder, endpoints=load_environment().endpoints)


def _teller(*, quiet: bool) -> Callable[[str], None]:
    """Return what tells how far it is: on stderr, so that stdout stays a table or JSON."""
    return lambda text: None if quiet and not sys.stderr.isatty() else click.echo(text, err=True)
