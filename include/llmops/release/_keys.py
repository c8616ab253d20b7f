"""The notary's key: made once, private to the notary, its public half published."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from llmops.errors import ConfigurationError
from llmops.release._ledger import HEADS
from llmops.release._statement import APPROVALS
from llmops.settings import Environment
from llmops.signing import SigningKey

_WORKER = "LLMOPS_WORKER_USER"


def make_notary_key(private: Path, public: Path) -> str:
    """Make the notary's key where there is none, publish its public half, and return its fingerprint.

    ``public`` is a file of allowed signers. A line for this key is added if there is none; lines of earlier keys
    stay, so that what they signed still verifies.
    """
    if not private.exists():
        private.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        SigningKey.generate().save(private, "llmops notary")
    key = SigningKey.load(private)
    known = public.read_text("utf-8") if public.exists() else ""
    if not any(key.public_line in line for line in known.splitlines() if not line.lstrip().startswith("#")):
        public.parent.mkdir(parents=True, exist_ok=True)
        line = f'notary namespaces="{APPROVALS},{HEADS}" {key.public_line}\n'
        draft = public.with_name(f".{public.name}.{os.getpid()}")
        draft.write_text(known + ("" if not known or known.endswith("\n") else "\n") + line, encoding="utf-8")
        draft.replace(public)
    return key.fingerprint


def check_key_is_private(environment: Environment, private: Path, worker: str | None) -> None:
    """Raise ConfigurationError outside ``dev`` when the user who runs tasks could read the notary's key.

    ``worker`` is that user's name or number, which must be given there: a notary that does not know from whom it
    hides its key cannot say that it does.
    """
    if environment.name == "dev":
        return
    if not worker:
        raise ConfigurationError(
            f"{_WORKER} is not set: outside dev the notary must know which user runs tasks, to refuse a key that "
            "this user can read"
        )
    is_number = worker.isdecimal()
    groups: set[int] = {0} if is_number else set()  # who may be of another container, where group 0 is usual
    try:
        account = pwd.getpwuid(int(worker)) if is_number else pwd.getpwnam(worker)
        uid, groups = account.pw_uid, groups.union(os.getgrouplist(account.pw_name, account.pw_gid))
    except KeyError:
        if not is_number:
            raise ConfigurationError(f"{_WORKER} names {worker!r}, but there is no such user here") from None
        uid = int(worker)
    found = private.stat()
    readable = (
        uid in (0, found.st_uid)
        or (found.st_gid in groups and found.st_mode & stat.S_IRGRP)
        or found.st_mode & stat.S_IROTH
    )
    if readable:
        raise ConfigurationError(
            f"the notary's key {private} (mode {stat.S_IMODE(found.st_mode):o}, user {found.st_uid}) can be read by "
            f"{worker}, who runs tasks: give the notary a user of its own and the key mode 600"
        )
