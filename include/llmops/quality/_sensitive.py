"""Secrets and identifiers in a text: kept, masked, or a reason for quarantine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import Field

from llmops.quality._identifiers import find_cards, find_emails, find_phones
from llmops.quality._keys import find_keys
from llmops.settings import Section

__all__ = ["SENSITIVE_KINDS", "Screened", "SensitiveRules", "screen"]

Policy = Literal["keep", "mask", "quarantine"]
Kind = Literal["keys", "cards", "emails", "phones"]

SENSITIVE_KINDS: tuple[Kind, ...] = get_args(Kind)
"""What is looked for, in the order in which it wins where two overlap."""

_NAMES: dict[Kind, tuple[str, str]] = {
    "keys": ("key", "keys"),
    "cards": ("card number", "card numbers"),
    "emails": ("e-mail address", "e-mail addresses"),
    "phones": ("phone number", "phone numbers"),
}


class SensitiveRules(Section):
    """What happens to secrets and identifiers in a document's text, by kind.

    `keep` leaves them, `mask` puts their kind in their place, such as `[card number]`, and `quarantine` keeps the
    whole document out. `keys` are vendors' keys and tokens, private keys and passwords in URLs, told by their form;
    placeholders such as `user:password@host` are none. Addresses and phone numbers are kept by default: whom to ask
    is often the answer. Only phone numbers that begin with `+` are found, with a `region` (such as `DE`) also those
    written as in that country, and more false alarms.
    """

    keys: Policy = "mask"
    cards: Policy = "mask"
    emails: Policy = "keep"
    phones: Policy = "keep"
    region: Annotated[str, Field(pattern="^[A-Z]{2}$")] | None = None

    def policy(self, kind: Kind) -> Policy:
        """Return what happens to one kind."""
        policy: Policy = getattr(self, kind)
        return policy


@dataclass(frozen=True)
class Screened:
    """A text without what is masked, how many of each kind were found, and why it must not be used, if so.

    What is a reason for quarantine is masked as well. ``quarantine`` names kinds and counts, never what was found.
    """

    text: str
    counts: dict[str, int]
    quarantine: str | None


def screen(text: str, rules: SensitiveRules) -> Screened:
    """Find secrets and identifiers in a text and do with them what the rules say.

    Screening the result again with the same rules changes nothing. Takes time linear in the text, whatever is in it.
    """
    found = _without_overlaps(
        [(start, end, kind) for kind in SENSITIVE_KINDS for start, end in _find(text, kind, rules)]
    )
    counts: dict[str, int] = {kind: sum(other == kind for _, _, other in found) for kind in SENSITIVE_KINDS}
    return Screened(_mask(text, found, rules), counts, _reason(counts, rules))


def _find(text: str, kind: Kind, rules: SensitiveRules) -> Iterator[tuple[int, int]]:
    if kind == "keys":
        return find_keys(text)
    if kind == "cards":
        return find_cards(text)
    if kind == "emails":
        return find_emails(text)
    return find_phones(text, rules.region)


def _without_overlaps(found: list[tuple[int, int, Kind]]) -> list[tuple[int, int, Kind]]:
    """Return findings in order of place; of two that overlap the kind named first stays, and takes in the other."""
    kept: list[tuple[int, int, Kind]] = []
    for start, end, kind in sorted(found):
        if kept and start < kept[-1][1]:
            before = kept.pop()
            first = min(before[2], kind, key=SENSITIVE_KINDS.index)
            kept.append((before[0], max(before[1], end), first))
        else:
            kept.append((start, end, kind))
    return kept


def _mask(text: str, found: list[tuple[int, int, Kind]], rules: SensitiveRules) -> str:
    parts, at = [], 0
    for start, end, kind in found:
        if rules.policy(kind) != "keep":
            parts += [text[at:start], f"[{_NAMES[kind][0]}]"]
            at = end
    return "".join([*parts, text[at:]])


def _reason(counts: dict[str, int], rules: SensitiveRules) -> str | None:
    refused = [
        f"{counts[kind]} {_NAMES[kind][counts[kind] > 1]}"
        for kind in SENSITIVE_KINDS
        if counts[kind] and rules.policy(kind) == "quarantine"
    ]
    if not refused:
        return None
    return (
        f"it holds {', '.join(refused)}, which the source's rules keep out: take them out of the file, "
        "or change `sensitive` under `quality`"
    )
