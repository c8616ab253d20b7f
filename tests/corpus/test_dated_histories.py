"""Real and made histories, replayed: whatever the order, the repeats and the kills, the last day's index."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from llmops.errors import QualityGateFailed
from support.ingestion import Ingestion

DATA = Path(os.environ.get("LLMOPS_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
GOLANG = DATA / "docs_golang"

NewIngestion = Callable[[str], Ingestion]


@pytest.fixture
def made_history(tmp_path: Path) -> Path:
    """Four days: a file edited above and below, one moved, one that turns from HTML to Markdown, one gone and back."""
    days = {
        "2024-03-01": {
            "guide.md": "# Guide\n\nOpen the valve.\n\n## Close\n\nTurn it back.\n",
            "old/place.md": "# Place\n\nThe same text, wherever it is.\n",
            "page.html": "<html><head><title>Page</title></head><body><h1>Page</h1><p>As it was.</p></body></html>",
            "twin.md": "# Place\n\nThe same text, wherever it is.\n",
        },
        "2024-03-02": {
            "guide.md": "# Guide\n\nRead this first.\n\nOpen the valve.\n\n## Close\n\nTurn it back.\n",
            "new/place.md": "# Place\n\nThe same text, wherever it is.\n",
            "page.html": "<html><head><title>Page</title></head><body><h1>Page</h1><p>As it was.</p></body></html>",
        },
        "2024-03-03": {
            "guide.md": "# Guide\n\nRead this first.\n\nOpen the valve.\n",
            "new/place.md": "# Place\n\nThe same text, wherever it is.\n",
            "page.md": "# Page\n\nAs it was.\n",
        },
        "2024-03-05": {
            "guide.md": "# Guide\n\nRead this first.\n\nOpen the valve.\n",
            "page.md": "# Page\n\nAs it is.\n",
            "twin.md": "# Place\n\nThe same text, wherever it is.\n",
        },
    }
    folder = tmp_path / "history"
    for day, files in days.items():
        for path, text in files.items():
            file = folder / day / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    return folder


@pytest.fixture
def begin(database: Any, tmp_path: Path, tokenizer_file: Path) -> Callable[[Path], NewIngestion]:
    url = database.url("llmops_worker")
    return lambda drops: lambda name: Ingestion(name, drops, tmp_path / "lake", url, tokenizer_file)


def days_of(drops: Path) -> list[date]:
    return sorted(date.fromisoformat(f.name) for f in drops.iterdir() if f.is_dir())


def replay_and_compare(new: NewIngestion, days: Sequence[date]) -> list[str]:
    """Ingest the days in order, compare each with a fresh build of that day alone, and return the last dump."""
    replayed = new("replayed")
    for number, day in enumerate(days):
        replayed.run(day)
        fresh = new(f"fresh_{number}")
        again = fresh.run(day)
        assert again.embedded == 0, "the vectors of the same texts were not taken from the cache"
        assert replayed.dump() == fresh.dump(), f"{day}: the index differs from a fresh build"
    return replayed.dump()


@pytest.mark.parametrize("order", [(3, 0, 2, 1, 1, 3), (1, 1, 0, 3, 2)])
def test_a_history_replayed_in_any_order_gives_the_index_of_its_last_day(
    begin: Callable[[Path], NewIngestion], made_history: Path, order: tuple[int, ...]
) -> None:
    new, days = begin(made_history), days_of(made_history)
    expected = replay_and_compare(new, days)
    shuffled = new("shuffled")
    for number in order:
        shuffled.run(days[number])
    assert shuffled.dump() == expected


def killed_and_retried(ingestion: Ingestion, day: date, seed: int, kills: int) -> int:
    """Ingest a day in a process that is killed at random moments before it may finish; return the real kills."""
    command = [
        sys.executable, "-m", "support.ingestion", ingestion.name, str(ingestion.drops), str(ingestion.folder),
        ingestion.url, str(ingestion.tokenizer_file), day.isoformat(),
    ]  # fmt: skip
    chance, hit = random.Random(seed), 0
    for attempt in range(kills + 1):
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
        if attempt == kills:
            assert process.wait(120) == 0
            break
        time.sleep(chance.uniform(1.0, 3.5))
        process.send_signal(signal.SIGKILL)
        hit += process.wait(30) == -signal.SIGKILL
    return hit


def test_a_history_replayed_by_processes_that_are_killed_gives_the_same_index(
    begin: Callable[[Path], NewIngestion], made_history: Path
) -> None:
    new, days = begin(made_history), days_of(made_history)
    undisturbed, killed = new("undisturbed"), new("killed")
    undisturbed.run(days[-1])
    killed.run(days[0])
    assert killed_and_retried(killed, days[-1], 5, 3) >= 2, "the processes ended before they were killed"
    assert killed.dump() == undisturbed.dump()


def test_a_third_of_the_documents_gone_stops_the_run_before_anything_changes(
    begin: Callable[[Path], NewIngestion], tmp_path: Path
) -> None:
    drops = tmp_path / "drops"
    for day, count in (("2024-03-01", 30), ("2024-03-02", 20)):
        (drops / day).mkdir(parents=True)
        for number in range(count):
            (drops / day / f"{number}.md").write_text(f"# Number {number}\n\nText of number {number}.\n")
    ingestion = begin(drops)("guarded")
    ingestion.run(date(2024, 3, 1))
    before = ingestion.dump()
    with pytest.raises(QualityGateFailed, match="10 of 30 documents would go"):
        ingestion.run(date(2024, 3, 2), shrinkage=0.3)
    assert ingestion.dump() == before


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not GOLANG.is_dir(), reason=f"the dated documentation of Go is not in {DATA}")
def test_six_real_snapshots_replay_to_a_fresh_build_in_any_order_with_repeats_and_kills(
    begin: Callable[[Path], NewIngestion],
) -> None:
    new, days = begin(GOLANG), days_of(GOLANG)
    expected = replay_and_compare(new, days)
    shuffled = new("shuffled")
    for number in (4, 1, 1, 5, 0, 3, 2, 5):
        shuffled.run(days[number])
    assert shuffled.dump() == expected
    killed = new("killed")
    killed.run(days[3])
    assert killed_and_retried(killed, days[5], 1, 3) >= 1
    assert killed.dump() == expected
