"""Prepare Airflow once, before its api-server starts: its users' passwords, then its database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

USERS = ("admin", "author", "reviewer", "service")


def main() -> int:
    """Write the passwords file that only its owner can read; return the status of ``airflow db migrate``."""
    file = Path(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    passwords = {name: os.environ.get(f"AIRFLOW_PASSWORD_{name.upper()}", "") for name in USERS}
    missing = [name for name, password in passwords.items() if not password]
    if missing:
        print(f"no password for {missing}: `make .env` generates them", file=sys.stderr)
        return 1
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".partial")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        json.dump(passwords, stream)
    draft.replace(file)
    return subprocess.run(["airflow", "db", "migrate"], check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
