"""Why a file is no document."""

from __future__ import annotations

from typing import Literal

from llmops.errors import ParseError

__all__ = ["HARMLESS", "Problem", "Unreadable"]

Problem = Literal[
    "unsupported",  # no format that is read here
    "empty",  # nothing in it
    "unreadable",  # broken, or not what its name says
    "encrypted",  # needs a password
    "too_large",  # above a limit on its size, or on the size of what it unpacks to
    "timeout",  # its parser took too long
    "memory",  # its parser needed too much memory
    "crashed",  # its parser's process ended
    "refused",  # must not be opened: a link that leaves its source, a name that is no text
    "repeated",  # says what another document of its source says
    "sensitive",  # holds what the source's policy keeps out
]
"""The class of a reason for quarantine."""

HARMLESS: frozenset[Problem] = frozenset({"unsupported", "empty", "repeated"})
"""Problems that do not count against a source: the file was never going to be a document."""


class Unreadable(ParseError):
    """One file that becomes no document; ``problem`` is the class of its reason."""

    def __init__(self, message: str, problem: Problem = "unreadable") -> None:
        super().__init__(message)
        self.problem: Problem = problem
