"""Which Unix account runs Postgres, which refuses to run as root."""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path

from llmops.errors import StackError

__all__ = ["Account", "account_for"]

_CANDIDATES = ("postgres", "nobody")


@dataclass(frozen=True)
class Account:
    """An existing unprivileged account that root gives a process to."""

    name: str
    uid: int
    gid: int

    def can_enter(self, folder: Path) -> bool:
        """Tell whether this account may go into ``folder``, through every folder above it."""
        return self._test("-x", folder)

    def can_read(self, file: Path) -> bool:
        """Tell whether this account may read ``file``, through every folder above it."""
        return self._test("-r", file)

    def _test(self, permission: str, path: Path) -> bool:
        probe = subprocess.run(
            ["/bin/sh", "-c", f'test {permission} "$1"', "sh", str(path)],
            user=self.uid,
            group=self.gid,
            extra_groups=[],
            cwd="/",
            check=False,
        )
        return probe.returncode == 0


def account_for(data: Path) -> Account | None:
    """Return the account that must run Postgres in ``data``, or None for the account of this process.

    A folder that exists keeps its owner. Raises StackError when root finds no other account on the machine,
    or when somebody else's data was found.
    """
    owner = data.stat().st_uid if data.exists() else None
    if os.geteuid() != 0:
        if owner not in (None, os.geteuid()):
            raise StackError(
                f"the database in {data} belongs to user {owner}, and this is user {os.geteuid()}: "
                "run as that user, or choose another folder with LLMOPS_HOME"
            )
        return None
    if owner:
        return _account(pwd.getpwuid(owner))
    for name in _CANDIDATES:
        try:
            return _account(pwd.getpwnam(name))
        except KeyError:
            continue
    raise StackError(
        f"Postgres does not run as root, and none of the accounts {_CANDIDATES!r} exists: "
        "add one with `useradd --system postgres`, or run as an ordinary user"
    )


def _account(entry: pwd.struct_passwd) -> Account:
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
