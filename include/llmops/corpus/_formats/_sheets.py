"""Sheets (.xlsx, .csv, .tsv): one section per sheet, its cells as Markdown tables that repeat their header."""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from itertools import islice, zip_longest
from typing import Any

from llmops.corpus._formats._markdown import blocks, plain, tables
from llmops.corpus._formats._package import Package, PackageKind, open_package
from llmops.corpus._formats._reading import MAX_CHARACTERS, Reading, listed, real_title, within
from llmops.corpus._problems import Unreadable

__all__ = ["read_csv", "read_tsv", "read_workbook"]

_MAIN = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_MACROS = "application/vnd.ms-excel"
_KIND = PackageKind(
    label="workbook",
    suffix=".xlsx",
    main_types=(
        f"{_MAIN}.sheet.main+xml",
        f"{_MAIN}.template.main+xml",
        f"{_MACROS}.sheet.macroEnabled.main+xml",
        f"{_MACROS}.template.macroEnabled.main+xml",
    ),
    max_part=150_000_000,
)
_MAX_ROWS = 1_048_576
_MAX_CELLS = 1_000_000
_MAX_PLACES = 20_000_000
"""Places up to the last cell of each row: a row whose only cell is far to the right costs its width."""
_FORMULA = re.compile(rb"<(?:\w+:)?f[ />]")
_HIDING = re.compile(rb"""\shidden=["'](?:1|true)|\s(?:width|ht)=["']0[.0]*["']""")
_SAMPLE_LINES = 100
_SAMPLE = 65_536
_DELIMITERS = ",;\t|"

Row = list[str]


def read_workbook(content: bytes) -> Reading:
    """Return a workbook's visible sheets: values as they were last computed, formulas where none is stored."""
    package = open_package(content, _KIND)
    from openpyxl import load_workbook

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = load_workbook(package.stream(), read_only=True, data_only=True, keep_links=False)
        twins: list[Any] = []
        if any(_FORMULA.search(part) for part in package.parts.values()):
            written = load_workbook(package.stream(), read_only=True, data_only=False, keep_links=False)
            twins = written.worksheets
        counts, left_out, sections = _Counts(), [], []
        for sheet, twin in zip_longest(values.worksheets, twins):
            if sheet.sheet_state != "visible":
                left_out.append(sheet.title)
                continue
            hidden = _hidden(package, sheet._worksheet_path)
            body = _section(_filled(_rows(sheet, twin, counts), hidden, counts))
            if body:
                sections.append(f"## {' '.join(sheet.title.split())}\n\n{body}")
    return Reading(blocks(sections), real_title(package.title), tuple(counts.warnings(left_out)))


def read_csv(text: str) -> Reading:
    """Return comma-separated values (or semicolons, tabs or bars, whichever fits) as tables."""
    return _read_delimited(text, _delimiter(text))


def read_tsv(text: str) -> Reading:
    """Return tab-separated values as tables."""
    return _read_delimited(text, "\t")


@dataclass
class _Hidden:
    rows: set[int] = field(default_factory=set)
    columns: list[tuple[int, int]] = field(default_factory=list)

    def has_column(self, column: int) -> bool:
        return any(first <= column <= last for first, last in self.columns)


@dataclass
class _Counts:
    """What a workbook has held so far."""

    rows: int = 0
    places: int = 0
    cells: int = 0
    characters: int = 0
    hidden: int = 0

    def add_row(self, width: int) -> None:
        self.rows += 1
        self.places += width
        within(self.rows, _MAX_ROWS, "rows")
        within(self.places, _MAX_PLACES, "places for cells")

    def add_cell(self, text: str) -> None:
        self.cells += 1
        self.characters += len(text)
        within(self.cells, _MAX_CELLS, "cells")
        within(self.characters, MAX_CHARACTERS, "characters")

    def warnings(self, sheets: Sequence[str]) -> Iterator[str]:
        if sheets:
            yield f"hidden sheets are left out: {listed(sheets)}"
        if self.hidden:
            yield f"{self.hidden:,} cells in hidden rows and columns are left out"


def _rows(sheet: Any, twin: Any, counts: _Counts) -> Iterator[Row]:
    """Yield rows of texts, a formula without a stored value as its own text."""
    sheet.reset_dimensions()  # a sheet may claim any size
    formulas: Iterable[Any] = ()
    if twin is not None:
        twin.reset_dimensions()
        formulas = twin.iter_rows(values_only=True)
    for values, written in zip_longest(sheet.iter_rows(values_only=True), formulas, fillvalue=()):
        counts.add_row(len(values))
        row = [_text(value) for value in values]
        for column, formula in enumerate(written):
            if formula is not None and column < len(values) and values[column] is None:
                row[column] = _formula(formula)
        yield row


def _text(value: object) -> str:
    """Return a value as text that is the same in every country."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).upper()
        case float():
            return format(value, ".15g")
        case datetime():
            return value.isoformat(" ").removesuffix(" 00:00:00")
        case date() | time():
            return value.isoformat()
        case timedelta():
            minutes, seconds = divmod(round(value.total_seconds()), 60)
            return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    return str(value)


def _formula(value: Any) -> str:
    text = getattr(value, "text", None) or getattr(value, "ref", None)
    return str(text or value)


def _filled(rows: Iterable[Row], hidden: _Hidden, counts: _Counts) -> list[dict[int, str]]:
    """Return the rows that hold anything visible, each as its filled cells by column."""
    found = []
    for number, row in enumerate(rows, 1):
        cells = {column: text for column, text in enumerate(row, 1) if text and not text.isspace()}
        shown = {
            column: text
            for column, text in cells.items()
            if number not in hidden.rows and not hidden.has_column(column)
        }
        counts.hidden += len(cells) - len(shown)
        for text in shown.values():
            counts.add_cell(text)
        if shown:
            found.append(shown)
    return found


def _section(rows: list[dict[int, str]]) -> str:
    """Return rows as tables: lines of one cell above the first wider row are its caption."""
    widest = max(map(len, rows), default=0)
    captions = 0
    while widest > 1 and captions < len(rows) and len(rows[captions]) == 1:
        captions += 1
    columns = sorted({column for row in rows[captions:] for column in row})
    lead = [plain(" ".join(text.split())) for row in rows[:captions] for text in row.values()]
    return blocks([*lead, tables([[row.get(column, "") for column in columns] for row in rows[captions:]])])


def _hidden(package: Package, path: str) -> _Hidden:
    """Return the rows and columns that a sheet hides or makes 0 wide."""
    hidden = _Hidden()
    part = package.parts.get(path, b"")
    if not _HIDING.search(part):
        return hidden
    from defusedxml.ElementTree import iterparse

    row, data = 0, None
    for _, element in iterparse(io.BytesIO(part), events=("start",), forbid_dtd=True):
        name = element.tag.rpartition("}")[2]
        if name == "row":
            row = int(element.get("r") or row + 1)
            if _is_off(element, "ht"):
                hidden.rows.add(row)
        elif name == "col" and _is_off(element, "width"):
            hidden.columns.append((int(element.get("min", "0")), int(element.get("max", "0"))))
        elif name == "sheetData":
            data = element
        if data is not None and row % 1000 == 0:
            data.clear()
    return hidden


def _is_off(element: Any, size: str) -> bool:
    return element.get("hidden") in ("1", "true") or (element.get(size) or "1").strip("0.") == ""


def _delimiter(text: str) -> str:
    """Return the delimiter that cuts the first lines into the most equal, and then the most, columns."""
    sample = text[:_SAMPLE].rpartition("\n")[0] if len(text) > _SAMPLE else text
    best, chosen = (0.0, 0), ","
    for delimiter in _DELIMITERS:
        try:
            rows = [
                row
                for row in islice(csv.reader(io.StringIO(sample), delimiter=delimiter), _SAMPLE_LINES)
                if row
            ]
        except csv.Error:
            continue
        widths = [len(row) for row in rows]
        width = max(set(widths), key=lambda w: (widths.count(w), w), default=1)
        score = (round(widths.count(width) / len(widths), 1) if width > 1 else 0.0, width)
        if score > best:
            best, chosen = score, delimiter
    return chosen


def _read_delimited(text: str, delimiter: str) -> Reading:
    counts = _Counts()
    rows: list[Row] = []
    try:
        # Strict: a quote that is never closed would swallow the rest of the file.
        rows = _counted(csv.reader(io.StringIO(text), delimiter=delimiter, strict=True), counts)
    except csv.Error:
        counts = _Counts()
        try:
            reader = csv.reader(io.StringIO(text), delimiter=delimiter, quoting=csv.QUOTE_NONE)
            rows = _counted(reader, counts)
        except csv.Error as error:
            raise Unreadable(f"it cannot be cut into columns: {error}") from error
    return Reading(_section(_filled(rows, _Hidden(), counts)))


def _counted(reader: Iterable[Row], counts: _Counts) -> list[Row]:
    rows = []
    for row in reader:
        counts.add_row(len(row))
        rows.append(row)
    return rows
