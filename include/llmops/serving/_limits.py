"""What one replica of the service takes on."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ServiceLimits"]


@dataclass(frozen=True)
class ServiceLimits:
    """Bounds of one replica; times in seconds.

    ``running`` answers are made at once and ``waiting`` more may wait for their turn; the next caller is
    told to come back. ``request`` bounds one answer from arrival to last byte, ``body`` the arrival of
    its body, ``log`` how long closing the answer log is tried.
    """

    running: int = 8
    waiting: int = 32
    request: float = 60.0
    body: float = 10.0
    log: float = 10.0
    body_bytes: int = 64 * 1024
    poll: float = 1.0
    report: float = 5.0
