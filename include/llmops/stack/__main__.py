"""The supervisor of the local stack, started in the background by ``llmops stack up``."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from llmops.errors import LlmopsError
from llmops.release import code_digest
from llmops.stack._layout import PORTS, Layout, Options
from llmops.stack._ports import PortHolder
from llmops.stack._secrets import write_private
from llmops.stack._supervisor import Supervisor
from llmops.stack.processes import process_table, select


def _supervise(options: Options) -> None:
    code = code_digest()  # before anything starts: an edit after this line makes the stack an old one
    holder = PortHolder()
    ports = {name: holder.claim(options.ports.get(name, usual)) for name, usual in PORTS.items()}
    layout = Layout(options, ports)
    table = select(process_table(layout), options.only)
    layout.postgres.prepare()
    supervisor = Supervisor(table, layout.home)
    published = {
        "environment": layout.published(),
        "ports": ports,
        "dags": str(layout.dags),
        "code": code,
    }
    write_private(layout.home / "run" / "stack.json", json.dumps(published, indent=1))
    supervisor.run()


def _main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    given = json.loads(sys.argv[1])
    dags = Path(given["dags"]) if given["dags"] else None
    options = Options(Path(given["home"]), tuple(given["only"]), given["ports"], dags)
    try:
        _supervise(options)
    except LlmopsError as error:
        write_private(options.home / "run" / "error.txt", str(error))
        sys.exit(1)


_main()
