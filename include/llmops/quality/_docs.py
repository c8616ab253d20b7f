"""Data Docs: what the gate found, as pages that need nothing but themselves."""

from __future__ import annotations

import hashlib
import html
import os
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from llmops.quality._check import SourceVerdict
from llmops.quality._expectations import Outcome
from llmops.settings import home

__all__ = ["docs_folder", "publish"]

_KEPT = 30
_ROWS = 20
_STALE_SECONDS = 24 * 3600
_HEADINGS = ("The source as a whole", "New and changed documents")
_UNSAFE = re.compile(r"[^A-Za-z0-9.-]")


def docs_folder(assistant: str, run_id: str) -> Path:
    """Return the folder of the Data Docs of one run, ``<home>/data_docs/<assistant>/<run>``."""
    digest = hashlib.sha256(run_id.encode()).hexdigest()[:8]
    readable = _UNSAFE.sub("_", run_id).lstrip(".-")[:80] or "run"
    return home() / "data_docs" / assistant / f"{readable}-{digest}"


def publish(verdicts: Sequence[SourceVerdict], folder: Path, *, run_id: str, as_of: datetime) -> Path:
    """Write pages about verdicts into a folder and return its ``index.html``.

    The tables are those of Great Expectations' own renderers; everything a page loads is in the folder. The folder is
    there whole or not at all, also when it is published again; beside it the folders of 30 runs are kept.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    try:
        for name, text in _pages(verdicts, run_id, as_of).items():
            (building / name).write_text(text, encoding="utf-8")
        if folder.exists():
            folder.rename(tempfile.mkdtemp(prefix=".", dir=folder.parent))
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    os.utime(folder)
    _clear(folder)
    return folder / "index.html"


def _clear(newest: Path) -> None:
    """Remove the folders of all but the last runs, and what a run that died left behind."""
    others = [path for path in newest.parent.iterdir() if path.is_dir() and path != newest]
    runs = sorted((path for path in others if not path.name.startswith(".")), key=_written, reverse=True)
    left = [p for p in others if p.name.startswith(".") and time.time() - _written(p) > _STALE_SECONDS]
    for path in [*runs[_KEPT - 1 :], *left]:
        shutil.rmtree(path, ignore_errors=True)


def _written(path: Path) -> float:
    return path.stat().st_mtime


def _pages(verdicts: Sequence[SourceVerdict], run_id: str, as_of: datetime) -> dict[str, str]:
    """Return the name and the text of every file."""
    import great_expectations as gx
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup

    with resources.as_file(resources.files("llmops.quality") / "data_docs") as templates:
        environment = Environment(loader=FileSystemLoader(templates), autoescape=True)
        environment.globals.update(
            run=run_id, as_of=f"{as_of.astimezone(UTC):%Y-%m-%d %H:%M} UTC", version=gx.__version__
        )
        rows = [_summary(verdict) for verdict in verdicts]
        failed = sum(not row["passed"] for row in rows)
        index = environment.get_template("index.html")
        source = environment.get_template("source.html")
        pages = {
            "style.css": (templates / "style.css").read_text("utf-8"),
            "index.html": index.render(title="All sources", rows=rows, failed=failed),
        }
        for row, verdict in zip(rows, verdicts, strict=True):
            sections = Markup(_sections(verdict, templates))  # rows are escaped in _item
            pages[row["page"]] = source.render(title=row["source"], row=row, sections=sections)
    return pages


def _summary(verdict: SourceVerdict) -> dict[str, Any]:
    figures = [
        f"{value:,}" if isinstance(value, int) else f"{value:.1%}" for value in verdict.figures.values()
    ]
    return {
        "source": verdict.source,
        "page": f"source-{verdict.source}.html",
        "passed": verdict.passed,
        "failed": len(verdict.failures),
        "expectations": verdict.expectations,
        "judged": verdict.judged,
        "figures": figures,
        "suite": verdict.suite,
    }


def _sections(verdict: SourceVerdict, templates: Path) -> str:
    """Return what Great Expectations renders of a source's outcomes, column by column."""
    from great_expectations.render import RenderedDocumentContent
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    renderer = ValidationResultsPageRenderer()
    sections: list[Any] = []
    headings: dict[int, str] = {}
    for heading, outcomes in zip(_HEADINGS, (verdict.run, verdict.documents), strict=True):
        if outcomes:
            headings[len(sections)] = heading
            # The first section is an overview with links into a site that there is not; the pages have their own.
            sections += renderer.render(_result(verdict, outcomes)).sections[1:]
    document = RenderedDocumentContent(sections=sections, renderer_type="ValidationResultsPageRenderer")
    view = DefaultJinjaPageView(custom_views_directory=str(templates))
    return str(view.render(document, template="sections.j2", headings=headings))


def _result(verdict: SourceVerdict, outcomes: Sequence[Outcome]) -> Any:
    """Return outcomes in the form that the renderers take, with nothing in it that must not be shown."""
    from great_expectations.core import ExpectationSuiteValidationResult

    succeeded = sum(outcome.success for outcome in outcomes)
    return ExpectationSuiteValidationResult(
        success=succeeded == len(outcomes),
        results=[_item(outcome) for outcome in outcomes],
        suite_name=verdict.suite,
        statistics={
            "evaluated_expectations": len(outcomes),
            "successful_expectations": succeeded,
            "unsuccessful_expectations": len(outcomes) - succeeded,
            "success_percent": 100 * succeeded / len(outcomes),
        },
    )


def _item(outcome: Outcome) -> Any:
    from great_expectations.core import ExpectationValidationResult

    # Great Expectations escapes the arguments of an expectation, but neither rows nor observed values.
    rows = [html.escape(_visible(str(found))) for found in outcome.found[:_ROWS]]
    more = len(outcome.found) - len(rows)
    result = {
        "element_count": outcome.checked,
        "unexpected_count": outcome.unexpected,
        "unexpected_percent": None if outcome.error else 100 * outcome.unexpected / max(outcome.checked, 1),
        "partial_unexpected_list": [*rows, f"and {more:,} more"] if more else rows,
        "observed_value": _shown(outcome.observed),
    }
    return ExpectationValidationResult(
        success=outcome.success,
        expectation_config=outcome.configuration,
        result=result,
        exception_info={
            "raised_exception": outcome.error is not None,
            "exception_message": _visible(outcome.error or ""),
            "exception_traceback": "It is not kept: it may quote documents.",
        },
    )


def _shown(observed: Any) -> Any:
    if observed is None or isinstance(observed, bool | int):
        return observed
    return round(observed, 4) if isinstance(observed, float) else html.escape(_visible(str(observed)))


def _visible(text: str) -> str:
    """Return text with every character that has no shape as its code."""
    return "".join(c if c.isprintable() else f"⟨U+{ord(c):04X}⟩" for c in text)
