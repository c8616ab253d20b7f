from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from plugins.conftest import Story
from support.browser import browser, needs_chromium, picture
from support.services import free_port

SIZES = {"phone": (360, 740), "desk": (1280, 900)}

pytestmark = needs_chromium


@contextmanager
def served(board: Any) -> Iterator[str]:
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(board, port=port, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@dataclass
class Visit:
    """A page in a browser, the address of the board, and everything that the browser complained about."""

    page: Any
    address: str
    problems: list[str] = field(default_factory=list)

    def look_out(self) -> None:
        """Collect errors, dialogs and requests to anywhere else."""
        note = self.problems.append
        self.page.on("console", lambda message: note(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: note(str(error)))
        self.page.on("dialog", lambda dialog: (note(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: self._ours(request.url) or note(f"asked for {request.url}"))

    def _ours(self, url: str) -> bool:
        return url.startswith((self.address, "data:"))


@pytest.fixture
def visit(board: Any, tmp_path: Path) -> Iterator[Visit]:
    """A browser with a profile of its own."""
    with served(board) as address, browser(tmp_path / "profile") as page:
        visited = Visit(page, address)
        visited.look_out()
        yield visited


def _overflow(page: Any) -> str:
    """Return what sticks out to the right of the page, nothing if it fits."""
    script = """() => {
        const width = document.documentElement.clientWidth;
        if (document.documentElement.scrollWidth <= width) return '';
        return [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > width + 1)
            .map(e => e.outerHTML.slice(0, 120)).slice(0, 3).join(' | ') || 'something';
    }"""
    return str(page.evaluate(script))


@pytest.mark.parametrize("texts", ["story", "hostile"])
def test_pages_fit_on_phone_and_desk_and_nothing_in_them_acts(
    visit: Visit, request: pytest.FixtureRequest, texts: str
) -> None:
    told: Story = request.getfixturevalue(texts)
    first, second = told.whole()
    paths = {
        "releases": "/",
        "production": f"/releases/{first}",
        "candidate": f"/releases/{second}",
        "approvals": "/approvals",
        "ledger": "/ledger",
    }
    page = visit.page
    for name, path in paths.items():
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            for size, (width, height) in SIZES.items():
                page.set_viewport_size({"width": width, "height": height})
                page.goto(visit.address + path)
                picture(page, f"{texts}-{name}-{size}-{scheme}")
                assert _overflow(page) == "", (name, size)
                assert page.title().endswith("Release board")
        assert page.locator("script, img, iframe, object, [onerror], [onload], [style]").count() == 0
    assert visit.problems == []


def test_a_reader_gets_from_the_list_to_the_required_action_by_keyboard_and_links(
    visit: Visit, story: Story
) -> None:
    _, second = story.whole()
    page = visit.page
    page.goto(visit.address + "/")
    page.keyboard.press("Tab")
    assert page.locator(":focus").inner_text() == "To the content"
    page.get_by_role("link", name=second[:12]).click()
    assert page.get_by_role("heading", level=1).inner_text() == f"Release {second[:12]}"
    assert page.get_by_role("img", name="quality on how-to").first.is_visible()
    page.get_by_role("link", name="Approvals", exact=True).click()
    target = page.get_by_role("link", name="Answer in Airflow").get_attribute("href")
    assert target.startswith("/dags/release_assistant/runs/manual__plain%20")
    assert target.endswith("/tasks/ask_reviewer/required_actions")
    assert visit.problems == []
