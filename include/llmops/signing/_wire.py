"""How SSH writes fields into bytes (RFC 4251, section 5), and bytes into text between two lines."""

from __future__ import annotations

import base64
import hashlib


class Malformed(ValueError):
    """Text or bytes that are not what their format says."""


class Reader:
    """Takes the fields of RFC 4251, section 5, from the front of some bytes."""

    def __init__(self, data: bytes) -> None:
        self._rest = data

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes."""
        if count > len(self._rest):
            raise Malformed("it is cut short")
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def number(self) -> int:
        """Return a uint32."""
        return int.from_bytes(self.take(4), "big")

    def string(self) -> bytes:
        """Return a string: its length as uint32, and as many bytes."""
        return self.take(self.number())

    def mpint(self) -> int:
        """Return a number that is not negative and has no leading zeros."""
        data = self.string()
        value = int.from_bytes(data, "big")
        if put_mpint(value) != put_string(data):
            raise Malformed("a number in it is negative or longer than it needs to be")
        return value

    def end(self) -> None:
        """Refuse bytes that no field has taken."""
        if self._rest:
            raise Malformed(f"{len(self._rest)} bytes follow its end")


def put_string(data: bytes) -> bytes:
    """Return what ``Reader.string`` reads."""
    return len(data).to_bytes(4, "big") + data


def put_mpint(value: int) -> bytes:
    """Return what ``Reader.mpint`` reads."""
    return put_string(value.to_bytes(value.bit_length() // 8 + 1, "big") if value else b"")


def armour(data: bytes, label: str) -> str:
    """Return base64 in lines as long as OpenSSH's, between a BEGIN and an END line."""
    text = base64.b64encode(data).decode()
    lines = [text[start : start + 70] for start in range(0, len(text), 70)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


def dearmour(text: str, label: str) -> bytes:
    """Return what ``armour`` was given; lines may be of any length, the last newline may be missing."""
    begin, end = f"-----BEGIN {label}-----\n", f"\n-----END {label}-----"
    body = text.removesuffix("\n")
    if not (body.startswith(begin) and body.endswith(end)):
        raise Malformed(f"it does not start with {begin.strip()!r} and end with {end.strip()!r}")
    return decode_base64(body[len(begin) : -len(end)].replace("\n", ""))


def decode_base64(text: str) -> bytes:
    """Return the bytes whose one base64 spelling the text is; raise Malformed if it is none."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Malformed("it holds what is not base64") from error
    if base64.b64encode(data).decode() != text:
        raise Malformed("its base64 has spare bits or padding")
    return data


def fingerprint(key: bytes) -> str:
    """Return ``SHA256:…`` of a public key in SSH's encoding, as ``ssh-keygen -l`` prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def shown(value: bytes) -> str:
    """Return bytes of unknown origin for a message, on one line and not too long."""
    text = value.decode("utf-8", "replace")
    return repr(text if len(text) <= 60 else text[:60] + "…")
