"""Who may sign: the file format of ALLOWED SIGNERS in ssh-keygen(1), and the check of a signature."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from llmops.errors import ConfigurationError, SignatureInvalid
from llmops.signing._envelope import Envelope
from llmops.signing._public import read_key
from llmops.signing._wire import Malformed, Reader, decode_base64, fingerprint, shown

_LINE = re.compile(
    r'(?P<principals>[^\s"]+)[ \t]+'
    r'(?:(?P<options>(?:[^\s"]|"[^"]*")+)[ \t]+)??'
    r"(?P<kind>(?:sk-)?(?:ssh|ecdsa)-[A-Za-z0-9.@-]+)[ \t]+(?P<key>[A-Za-z0-9+/=]+)(?:[ \t].*)?"
)
_OPTION = re.compile(r'(?P<name>[^\s=,"]+)(?:="(?P<value>[^"\\]*)")?(?:,(?=.)|$)')
_OPTIONS = ("namespaces", "valid-after", "valid-before")


@dataclass(frozen=True)
class Verified:
    """Whose signature it is, and which key made it."""

    principal: str
    fingerprint: str


@dataclass(frozen=True)
class Signer:
    """One line of allowed signers.

    ``principals`` and ``namespaces`` hold patterns (``*``, ``?``, a leading ``!`` excludes); None means every
    namespace. ``valid_after`` and ``valid_before`` are inclusive and None where there is no limit. ``key``
    is the public key as SSH encodes it.
    """

    principals: tuple[str, ...]
    namespaces: tuple[str, ...] | None
    valid_after: datetime | None
    valid_before: datetime | None
    key: bytes

    @property
    def fingerprint(self) -> str:
        """Return ``SHA256:…`` as ``ssh-keygen -l`` prints it."""
        return fingerprint(self.key)

    @classmethod
    def _parse(cls, line: str) -> Signer:
        found = _LINE.fullmatch(line)
        if not found:
            raise Malformed("it is not `principals [options] keytype base64-key`")
        key = decode_base64(found["key"])
        if Reader(key).string() != found["kind"].encode():
            raise Malformed(f"its key is not of the kind {found['kind']!r} that stands before it")
        read_key(key)
        options = _options(found["options"] or "")
        after, before = (_moment(options.get(name)) for name in ("valid-after", "valid-before"))
        if after and before and before <= after:
            raise Malformed("valid-before is not later than valid-after")
        namespaces = _patterns(options["namespaces"]) if "namespaces" in options else None
        return cls(_patterns(found["principals"]), namespaces, after, before, key)

    def _name(self, principal: str | None) -> str | None:
        """Return the principal if it is one of this line's; for None, the line's first if it is literal."""
        name = self.principals[0] if principal is None else principal
        literal = principal is not None or not re.search(r"[*?!]", name)
        return name if literal and _matches(name, self.principals) else None

    def _valid(self, at: datetime) -> bool:
        early = self.valid_after is not None and at < self.valid_after
        late = self.valid_before is not None and at > self.valid_before
        return not (early or late)


def _options(text: str) -> dict[str, str]:
    options: dict[str, str] = {}
    while text:
        found = _OPTION.match(text)
        name = found["name"].lower() if found else ""
        if name == "cert-authority":
            raise Malformed("cert-authority is not supported: list the keys themselves")
        if name and name not in _OPTIONS:
            raise Malformed(f"option {name!r} is not one of {', '.join(_OPTIONS)}")
        if not found or found["value"] is None:
            raise Malformed(f'options {text!r} are not comma-separated name="value" in double quotes')
        if name in options:
            raise Malformed(f"option {name!r} stands there twice")
        options[name] = found["value"]
        text = text[found.end() :]
    return options


def _moment(text: str | None) -> datetime | None:
    """Return the time in an option; without a Z it is UTC as well, where OpenSSH takes the local zone.

    A verdict must not depend on the machine: write the Z, and both agree.
    """
    if text is None:
        return None
    try:
        if not re.fullmatch(r"\d{8}(\d{4}(\d{2})?)?Z?", text, re.ASCII):
            raise ValueError("wrong length or characters")
        return datetime.strptime(text.removesuffix("Z").ljust(14, "0"), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError as error:
        raise Malformed(f"{text!r} is not a time YYYYMMDD[HHMM[SS]][Z]") from error


def _patterns(text: str) -> tuple[str, ...]:
    patterns = tuple(text.split(","))
    if not all(pattern.removeprefix("!") and pattern.isprintable() for pattern in patterns):
        raise Malformed(f"{text!r} holds an empty name or a character that cannot be seen")
    return patterns


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Tell whether a pattern fits the name and no negated one does; nothing fits an empty name."""
    fitting = [pattern for pattern in patterns if _fits(name, pattern.removeprefix("!"))]
    return bool(name and fitting) and not any(pattern.startswith("!") for pattern in fitting)


def _fits(name: str, pattern: str) -> bool:
    expression = "".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in pattern)
    return re.fullmatch(expression, name, re.DOTALL) is not None


@dataclass(frozen=True)
class AllowedSigners:
    """Who may sign, as ALLOWED SIGNERS in ssh-keygen(1) describes; ``place`` is where the list stands."""

    signers: tuple[Signer, ...]
    place: str

    @classmethod
    def parse(cls, text: str, place: str) -> AllowedSigners:
        """Return the signers in ``text``; raise ConfigurationError with the line that is wrong."""
        signers = []
        for number, line in enumerate(text.split("\n"), 1):
            stripped = line.strip(" \t\r")
            if not stripped or stripped.startswith("#"):
                continue
            try:
                signers.append(Signer._parse(stripped))
            except Malformed as error:
                raise ConfigurationError(
                    f"{place}:{number}: {stripped[:60]!r} allows nobody to sign ({error}): correct the line, "
                    "see ALLOWED SIGNERS in ssh-keygen(1)"
                ) from error
        return cls(tuple(signers), place)

    @classmethod
    def load(cls, file: Path, *, may_be_empty: bool = False) -> AllowedSigners:
        """Return the signers in ``file``.

        Raises ConfigurationError if it cannot be read, and if it names no key unless it ``may_be_empty``.
        """
        try:
            allowed = cls.parse(file.read_text(encoding="utf-8"), str(file))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"the allowed signers {str(file)!r} cannot be read ({error}): correct the path or the file"
            ) from error
        if not allowed.signers and not may_be_empty:
            raise ConfigurationError(
                f"the allowed signers {str(file)!r} name no key, so nobody could sign: add a line "
                "`name ssh-ed25519 AAAA…`"
            )
        return allowed

    def verify(
        self, message: bytes, signature: str, namespace: str, at: datetime, principal: str | None = None
    ) -> Verified:
        """Return whose signature of ``message`` it is; raise SignatureInvalid with the check that failed.

        ``at`` (with a time zone) is the time at which the key must be valid: for a record, when it was made.
        ``principal`` is who must have signed; None accepts anybody listed, under the first name of the line
        that allows it, which must then be no pattern.
        """
        if at.utcoffset() is None:
            raise ValueError(f"the time {at!r} has no time zone: give one, best UTC")
        try:
            envelope = Envelope.parse(signature)
        except Malformed as error:
            raise _malformed(error) from error
        if envelope.namespace != namespace.encode("utf-8", "surrogatepass"):
            raise SignatureInvalid(
                f"the signature is for the namespace {shown(envelope.namespace)}, not {namespace!r}: what "
                f"was signed for one purpose is not taken for another; sign with `-n {namespace}`"
            )
        owners = [signer for signer in self.signers if signer.key == envelope.key]
        if not owners:
            raise SignatureInvalid(
                f"the key {fingerprint(envelope.key)} is not among the allowed signers in {self.place!r}: "
                "sign with a key that is, or have it added"
            )
        _check(envelope, message)
        return self._authorised(owners, namespace, at, principal)

    def _authorised(
        self, owners: list[Signer], namespace: str, at: datetime, principal: str | None
    ) -> Verified:
        """Find a line that allows all of it; the message names the first thing that no line allows."""
        key = f"the key {owners[0].fingerprint} in {self.place!r}"
        named = [(signer, name) for signer in owners if (name := signer._name(principal)) is not None]
        if not named:
            whose = ", ".join(pattern for signer in owners for pattern in signer.principals)
            raise SignatureInvalid(
                f"{key} belongs to {whose!r}, not to {principal!r}: sign with a key of that name"
                if principal is not None
                else f"{key} belongs to {whose!r}, which does not say who signed: name the principal"
            )
        allowed = [
            pair for pair in named if pair[0].namespaces is None or _matches(namespace, pair[0].namespaces)
        ]
        if not allowed:
            raise SignatureInvalid(
                f"{key} must not sign for the namespace {namespace!r}: sign with a key that may, or have "
                "its namespaces extended"
            )
        valid = [name for signer, name in allowed if signer._valid(at)]
        if not valid:
            raise SignatureInvalid(
                f"{key} was not valid at {at.isoformat()}: sign with a key that was, or correct its "
                "valid-after or valid-before"
            )
        return Verified(valid[0], owners[0].fingerprint)


def _check(envelope: Envelope, message: bytes) -> None:
    from cryptography.exceptions import InvalidSignature

    try:
        envelope.check(message)
    except Malformed as error:
        raise _malformed(error) from error
    except InvalidSignature as error:
        raise SignatureInvalid(
            f"the signature by {fingerprint(envelope.key)} is not one of this message: one of the two was "
            "changed after signing; do not trust either, have it signed again"
        ) from error


def _malformed(error: Malformed) -> SignatureInvalid:
    return SignatureInvalid(
        f"the signature is malformed ({error}): hand it in whole and as it is, as `ssh-keygen -Y sign` wrote it"
    )
