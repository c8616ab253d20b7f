"""How long it takes to verify a ledger of ten thousand entries, each with a head that the notary signed."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import psycopg

from bench.figure import Figure
from llmops.release import check_ledger, ledger
from llmops.release._ledger import sign_head
from llmops.signing import AllowedSigners, SigningKey
from llmops.stack import EmbeddedPostgres

_LIMIT_SECONDS = 2.0
_ENTRIES = 10_000
_ROUNDS = 3


def measure() -> list[Figure]:
    """Read and check a ledger from a database of its own, and return the best of a few rounds."""
    with tempfile.TemporaryDirectory(prefix="llmops-bench-") as folder:
        Path(folder).chmod(0o711)
        server = EmbeddedPostgres(Path(folder) / "postgres")
        try:
            server.start()
            server.set_up()
            return [_verification(server)]
        finally:
            server.destroy()


def _verification(server: EmbeddedPostgres) -> Figure:
    with psycopg.connect(server.url("llmops_owner", "llmops")) as connection:
        connection.execute(
            f"DO $$ BEGIN FOR i IN 1..{_ENTRIES} LOOP PERFORM append_ledger_entry(jsonb_build_object("
            "'assistant', 'bench', 'action', 'refuse', 'actor', 'somebody', 'reason', 'number ' || i)); "
            "END LOOP; END $$"
        )
    url, key = server.url("llmops_worker", "llmops"), SigningKey.generate()
    keys = AllowedSigners.parse(f"notary {key.public_line}\n", "bench")
    heads = [sign_head("dev", entry, key) for entry in ledger(url)]
    seconds = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        found = check_ledger(ledger(url), heads, "dev", keys)
        seconds.append(time.perf_counter() - began)
        if found.faults or found.entries != _ENTRIES or found.signed != _ENTRIES:
            raise SystemExit(f"the ledger should be whole: {found}")
    name = f"ledger verify: {_ENTRIES:,} entries, as many heads"
    return Figure(name, min(seconds), "s", _LIMIT_SECONDS, at_most=True)
