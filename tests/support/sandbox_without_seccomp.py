"""A machine whose kernel takes no filter of system calls, for the process that forks a sandbox's workers."""

from __future__ import annotations

from llmops.corpus import _jail
from support.sandbox_tasks import TASKS as TASKS

_jail._filter = lambda **_: False
