"""Exit with 0 when a URL answers that all is well: ``python docker/health.py URL [AIRFLOW-COMPONENT]``.

Without a component any 2xx will do. With one the URL is Airflow's ``/api/v2/monitor/health``, whose
status is 200 even when a component is dead.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request


def main(url: str, component: str | None = None) -> int:
    """Ask once; return 0 when healthy, 1 otherwise, and say why on standard error."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy
    try:
        with opener.open(url, timeout=8) as answer:
            body = answer.read()
        status = "healthy" if component is None else json.loads(body)[component]["status"]
    except (OSError, urllib.error.URLError, ValueError, KeyError) as error:
        print(f"{url}: {error!r}", file=sys.stderr)
        return 1
    if status != "healthy":
        print(f"{url}: {component} is {status!r}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
