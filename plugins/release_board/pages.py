"""The pages: each reads what it shows, and nothing else happens."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from llmops.errors import IntegrityError, MissingInput
from llmops.manifest import Manifest
from llmops.release import (
    attempts_of,
    board_assistants,
    differences,
    faults_of,
    find_release,
    ledger_coverage,
    ledger_lines,
    newest_move,
    open_questions,
    questions_of,
    read_manifest,
    read_report,
    receipt,
    release_lines,
    report_texts,
    reports_of,
)
from llmops.settings import Environment, load_environment
from release_board.rendering import render
from release_board.report import read_gate

__all__ = ["environment", "pages"]

pages = APIRouter(default_response_class=HTMLResponse)

_shown = partial(pages.api_route, methods=["GET", "HEAD"])

_NO_REPORT = (ValueError, LookupError, TypeError, RecursionError)
_PAGE = 25
_LINES = 50
_GROUPS = {
    "Code": ("schema_version", "code_digest", "commit", "dirty"),
    "Prompt and generator": ("prompt", "generator", "guardrails"),
    "Retrieval": ("embedder", "index", "retrieval"),
    "Evaluation": ("evaluation_digest", "gate_digest"),
    "People": ("authors", "committers"),
}


def environment() -> Environment:
    """Return the environment of this process."""
    return load_environment()


Here = Annotated[Environment, Depends(environment)]
Name = Annotated[str | None, Query(max_length=200)]
Digest = Annotated[str, Path(pattern="^[0-9a-f]{8,64}$")]


@_shown("/")
def releases(
    request: Request, here: Here, assistant: Name = None, page: Annotated[int, Query(ge=1, le=10_000)] = 1
) -> HTMLResponse:
    """Show the releases of one assistant, and which one is in production."""
    url = here.database_url.get_secret_value()
    names = board_assistants(url)
    chosen = assistant or (names[0] if names else None)
    if chosen is not None and chosen not in names:
        raise HTTPException(404, f"No release of an assistant {chosen!r}.")
    listing = release_lines(url, chosen, offset=(page - 1) * _PAGE, limit=_PAGE) if chosen else None
    return render(
        request,
        "releases.html",
        names=names,
        assistant=chosen,
        production=newest_move(url, chosen, "production") if chosen else None,
        listing=listing,
        page=page,
        environment=here.name,
    )


@_shown("/releases/{release_id}")
def release(
    request: Request,
    here: Here,
    release_id: Digest,
    report: Annotated[str | None, Query(pattern="^[0-9a-f]{64}$")] = None,
) -> HTMLResponse:
    """Show one release: what it is, how it was judged, who approved it, what became of it."""
    url = here.database_url.get_secret_value()
    full = find_release(url, release_id)
    manifest, fault = _manifest(url, full)
    reports = reports_of(url, full)
    if report is not None and report not in {line.report_hash for line in reports}:
        raise HTTPException(404, f"Release {full[:12]} has no gate report {report[:12]}.")
    chosen = report or (reports[0].report_hash if reports else None)
    lines = ledger_lines(url, release_id=full, limit=_LINES)
    return render(
        request,
        "release.html",
        release_id=full,
        manifest=_grouped(manifest),
        assistant=manifest.assistant if manifest else None,
        dirty=manifest is not None and manifest.dirty,
        fault=fault,
        revocations=[line for line in lines.items if line.action == "revoke" and line.to_release == full],
        reports=reports,
        gate=_gate(url, chosen),
        compared=_compared(url, full, manifest),
        questions=questions_of(here, full),
        attempts=attempts_of(url, full),
        lines=lines,
        faults=faults_of(lines.items),
        now=datetime.now(UTC),
    )


@_shown("/approvals")
def approvals(request: Request, here: Here) -> HTMLResponse:
    """Show the requests that wait for an answer."""
    listing = open_questions(here.database_url.get_secret_value())
    return render(request, "approvals.html", listing=listing, now=datetime.now(UTC))


@_shown("/receipts")
def receipts(
    request: Request, here: Here, answer: Annotated[str | None, Query(max_length=100)] = None
) -> HTMLResponse:
    """Show what stands behind one answer, line by line; without an id only the form for it."""
    wanted = (answer or "").strip()
    try:
        found = receipt(here, wanted) if wanted else None
    except MissingInput:
        return render(request, "receipt.html", status=404, answer=wanted, found=None)
    return render(request, "receipt.html", answer=wanted, found=found)


@_shown("/ledger")
def ledger(
    request: Request,
    here: Here,
    assistant: Name = None,
    before: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
) -> HTMLResponse:
    """Show the ledger, newest line first."""
    url = here.database_url.get_secret_value()
    listing = ledger_lines(url, assistant or None, before=before, limit=_LINES)
    return render(
        request,
        "ledger.html",
        names=board_assistants(url),
        assistant=assistant or None,
        before=before,
        listing=listing,
        faults=faults_of(listing.items),
        coverage=ledger_coverage(here),
    )


@pages.api_route("/{anything:path}", methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def nothing(request: Request, anything: str) -> HTMLResponse:
    """Answer every other address, so that nobody learns without a login which ones there are."""
    if request.method not in ("GET", "HEAD"):
        raise HTTPException(
            405, "This page changes nothing. Releases are approved in Airflow's required actions."
        )
    raise HTTPException(404, f"The board has no page {anything!r}.")


def _manifest(url: str, release_id: str) -> tuple[Manifest | None, str | None]:
    try:
        return read_manifest(url, release_id), None
    except IntegrityError as error:
        return None, str(error)


def _gate(url: str, report_hash: str | None) -> dict[str, Any] | None:
    """Return a report with the view of it; no view of one with another layout, and only the fault of a damaged one."""
    if report_hash is None:
        return None
    try:
        report = read_report(url, report_hash)
    except IntegrityError as error:
        return {"hash": report_hash, "fault": str(error), "report": None, "view": None}
    except _NO_REPORT as error:
        fault = f"the text stored as gate report {report_hash[:12]} is no report: {error!r}"
        return {"hash": report_hash, "fault": fault, "report": None, "view": None}
    view = read_gate(report.report)
    worse, better = view.examples(report_texts(url, view.digests)) if view else ((), ())
    return {
        "hash": report_hash,
        "fault": None,
        "report": report,
        "view": view,
        "examples": [("worse", worse), ("better", better)],
    }


def _compared(url: str, release_id: str, manifest: Manifest | None) -> dict[str, Any] | None:
    """Return how a release differs from production, or from the one before it if it is production itself."""
    if manifest is None:
        return None
    move = newest_move(url, manifest.assistant, "production")
    own = move is not None and move.to_release == release_id
    other = None if move is None else move.from_release if own else move.to_release
    if other is None:
        return {"own": own, "other": None, "fields": (), "fault": None}
    before, fault = _manifest(url, other)
    fields = differences(before, manifest) if before else ()
    return {"own": own, "other": other, "fields": fields, "fault": fault}


def _grouped(manifest: Manifest | None) -> list[tuple[str, list[tuple[str, Any]]]]:
    """Return the manifest's values under headings, nested ones by their dotted names."""
    if manifest is None:
        return []
    values = manifest.model_dump(mode="json")
    groups = [
        (title, [leaf for name in names for leaf in _leaves(name, values.pop(name))])
        for title, names in _GROUPS.items()
    ]
    rest = [leaf for name, value in values.items() for leaf in _leaves(name, value)]
    return [("Name", rest), *groups]


def _leaves(name: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        return [leaf for key, inner in value.items() for leaf in _leaves(f"{name}.{key}", inner)]
    if isinstance(value, list):
        return [(name, ", ".join(map(str, value)) or "none")]
    return [(name, value if value != {} else "none")]
