"""Data Docs, as files and in a browser."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup

from llmops.quality import QualityRules, SourceFigures, SourceVerdict, check_sources, docs_folder, publish
from quality.conftest import judged
from support.browser import browser, needs_chromium, picture

DAY = datetime(2026, 3, 2, tzinfo=UTC)
HOSTILE = "<img src=x onerror=alert(1)>&amp;$value\u202e'\"</table>.md"
CANARY = "Z3bra-canary"


def verdicts(**changes: Any) -> list[SourceVerdict]:
    rows = judged(30, damage=[0.5] * 30, path=[HOSTILE, *(f"page{n}.md" for n in range(29))])
    failing = SourceFigures("website", QualityRules(), rows, documents=300, near_duplicates=7, **changes)
    return check_sources([SourceFigures("guide", QualityRules(), judged(), documents=20), failing])


def write(folder: Path, found: list[SourceVerdict] | None = None) -> Path:
    return publish(verdicts() if found is None else found, folder, run_id="manual__1", as_of=DAY)


def pages(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_there_is_an_index_and_a_page_for_every_source(tmp_path: Path) -> None:
    index = write(tmp_path / "run")
    assert index == tmp_path / "run" / "index.html"
    assert set(pages(tmp_path / "run")) == {
        "index.html",
        "style.css",
        "source-guide.html",
        "source-website.html",
    }
    text = index.read_text()
    assert "1 of 2 sources failed" in text
    assert 'href="source-website.html"' in text
    assert "2.3%" in text
    assert "Run manual__1, as of 2026-03-02 00:00 UTC" in text


def test_a_page_shows_what_great_expectations_renders_of_each_column(tmp_path: Path) -> None:
    write(tmp_path / "run")
    failing, passing = (pages(tmp_path / "run")[f"source-{name}.html"] for name in ("website", "guide"))
    assert "30 unexpected values found. 100% of 30 total rows." in failing
    assert "page3.md (0.5)" in failing
    assert "and 10 more" in failing
    assert "unexpected values found" not in passing
    for column in ("boilerplate_share", "near_duplicate_share", "document_id"):
        assert column in failing
    assert "All 14 expectations hold" in passing


def test_nothing_is_loaded_from_elsewhere_and_nothing_acts(tmp_path: Path) -> None:
    write(tmp_path / "run")
    assert not re.search(r"url\(|@import", (tmp_path / "run" / "style.css").read_text())
    for name in ("index.html", "source-guide.html", "source-website.html"):
        page = BeautifulSoup((tmp_path / "run" / name).read_text(), "lxml")
        assert page.find_all(["script", "img", "iframe", "object", "embed", "form", "base", "style"]) == []
        addresses = {
            tag.get("href") or tag.get("src") for tag in page.find_all(href=True) + page.find_all(src=True)
        }
        assert addresses - {"style.css", "index.html", "source-guide.html", "source-website.html"} == set()
        assert not [tag for tag in page.find_all() if any(key.startswith("on") for key in tag.attrs)]


def test_a_hostile_path_is_shown_as_it_is(tmp_path: Path) -> None:
    write(tmp_path / "run")
    text = pages(tmp_path / "run")["source-website.html"]
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;amp;$value⟨U+202E⟩&#x27;&quot;&lt;/table&gt;.md" in text
    assert "<img" not in text


@pytest.mark.parametrize(
    "entry",
    [
        "{type: expect_column_values_to_match_regex, column: title, regex: '(?<!x)<b>'}",
        "{type: expect_column_distinct_values_to_equal_set, column: title, value_set: [a]}",
        "{type: expect_column_most_common_value_to_be_in_set, column: title, value_set: [a]}",
        "{type: expect_column_values_to_be_between, column: title, max_value: 3}",
        "{type: expect_compound_columns_to_be_unique, column_list: [source, title]}",
    ],
)
def test_no_title_is_in_any_page(tmp_path: Path, write_suite: Callable[[str], Path], entry: str) -> None:
    write_suite(f"documents:\n  - {entry}\n")
    rows = judged(2, title=[CANARY, CANARY])
    found = check_sources([SourceFigures("docs", QualityRules(), rows, documents=2, suite="own")])
    assert not found[0].passed
    write(tmp_path / "run", found)
    assert not [name for name, text in pages(tmp_path / "run").items() if CANARY in text]
    assert "rendered properly" not in pages(tmp_path / "run")["source-docs.html"]


def test_publishing_again_replaces_the_pages_whole(tmp_path: Path) -> None:
    write(tmp_path / "run")
    (tmp_path / "run" / "left.html").write_text("of the first time")
    write(tmp_path / "run", verdicts()[:1])
    assert set(pages(tmp_path / "run")) == {"index.html", "style.css", "source-guide.html"}
    assert "Every source passed." in pages(tmp_path / "run")["index.html"]


def test_what_cannot_be_rendered_leaves_the_pages_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "run")
    before = pages(tmp_path / "run")
    monkeypatch.setattr("llmops.quality._docs._sections", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "run")
    assert pages(tmp_path / "run") == before
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_folders_of_the_last_thirty_runs_are_kept(tmp_path: Path) -> None:
    for number in range(35):
        folder = tmp_path / f"run{number:02}"
        folder.mkdir()
        os.utime(folder, (1_000_000 + number, 1_000_000 + number))
    dead, fresh = tmp_path / ".dead", tmp_path / ".fresh"
    dead.mkdir()
    fresh.mkdir()
    os.utime(dead, (1_000_000, 1_000_000))
    write(tmp_path / "new", verdicts()[:1])
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".fresh", "new", *(f"run{number:02}" for number in range(6, 35))]


def test_every_run_has_a_folder_of_its_own_with_a_safe_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path))
    runs = [
        "manual__2026-01-01T00:00:00+00:00",
        "manual__2026-01-01T00:00:00-00:00",
        "../../etc",
        "..",
        "x" * 300,
    ]
    folders = [docs_folder("guide", run) for run in runs]
    assert len(set(folders)) == len(runs)
    for folder in folders:
        assert folder.parent == tmp_path / "data_docs" / "guide"
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}", folder.name)


@needs_chromium
def test_pages_can_be_read_in_a_browser_without_a_network(tmp_path: Path) -> None:
    write(tmp_path / "run")
    problems: list[str] = []
    with browser(tmp_path / "profile") as page:
        page.on("console", lambda message: problems.append(message.text))
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.on("request", lambda r: r.url.startswith("file:") or problems.append(r.url))
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            for size in ((1280, 900), (360, 740)):
                page.set_viewport_size({"width": size[0], "height": size[1]})
                page.goto((tmp_path / "run" / "index.html").as_uri())
                picture(page, f"data-docs-index-{scheme}-{size[0]}")
                page.get_by_role("link", name="website").click()
                picture(page, f"data-docs-source-{scheme}-{size[0]}")
                assert page.get_by_role("heading", level=1).inner_text() == "website"
                assert page.get_by_text("page3.md (0.5)").is_visible()
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), size
    assert problems == []
