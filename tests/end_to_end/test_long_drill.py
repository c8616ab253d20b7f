"""The drill on the running stack: every class of attack, three times each, at points that the seed chooses."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from end_to_end.conftest import Loop

pytestmark = [pytest.mark.stack, pytest.mark.long, pytest.mark.timeout(900)]


def test_every_class_of_attack_is_refused_three_times_while_nobody_gets_a_wrong_answer(
    loop: Loop, tmp_path: Path
) -> None:
    report = tmp_path / "reliability.md"
    command = ["llmops", "drill", "--kills", "3", "--seed", "11", "--report", str(report)]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("✓") == 6, done.stdout
    assert "ledger entry" in done.stdout
    said = re.search(
        r"(\d+) questions were asked meanwhile: 0 wrong answers. 18 attacks, 0 surprises", done.stdout
    )
    assert said, done.stdout
    assert int(said[1]) > 50
    rows = re.findall(r"(?m)^\| (.+) \| 3 \| 0 \| .* \|$", report.read_text())
    assert len(rows) == 6
