"""Run the tests in two processes at once: those that start a stack, which mostly wait, and the rest (``make test``).

Tests marked ``long`` are left out: ``make test-long`` runs those.

Arguments go to pytest in both. The rest is shown as it runs, what starts a stack when it is done.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time

_NOTHING = 5
"""Pytest's status when nothing was selected."""


def main() -> int:
    """Return 0 when both succeed, and 5 when both select nothing."""
    began = time.monotonic()
    pytest = [sys.executable, "-m", "pytest", *sys.argv[1:]]
    with tempfile.TemporaryFile() as output:
        print("Tests that start a stack run beside the others; they are shown at the end.", flush=True)
        with_stack = subprocess.Popen(
            [*pytest, "-m", "stack and not long"], stdout=output, stderr=subprocess.STDOUT
        )
        try:
            others = subprocess.call([*pytest, "-m", "not stack and not long"])
            statuses = {others, with_stack.wait()}
        finally:
            with_stack.terminate()
            with_stack.wait()
        output.seek(0)
        sys.stdout.buffer.write(output.read())
    print(f"Both took {time.monotonic() - began:.0f} s.", flush=True)
    failed = statuses - {0, _NOTHING}
    return max(failed) if failed else min(statuses)


if __name__ == "__main__":
    raise SystemExit(main())
