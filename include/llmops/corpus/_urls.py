"""Addresses of web pages in one spelling each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urljoin

import httpx

__all__ = ["MAX_URL", "Url"]

MAX_URL = 2048

_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Url:
    """An http or https URL without user and fragment; two spellings of one address are equal (RFC 3986, 6.2)."""

    scheme: str
    host: str
    port: int
    path: str
    query: str

    @classmethod
    def parse(cls, text: str, base: Url | None = None) -> Url:
        """Return the URL that a text names, relative to ``base``; raise ValueError with a reason."""
        if len(text) > MAX_URL:
            raise ValueError(f"it has more than {MAX_URL:,} characters")
        try:
            parsed = httpx.URL(urljoin(str(base), text.strip()) if base else text.strip())
        except (httpx.InvalidURL, ValueError) as error:
            raise ValueError(f"it is no URL: {error}") from error
        if parsed.scheme not in _PORTS:
            raise ValueError(f"its scheme is {parsed.scheme!r}, not http or https")
        if not parsed.raw_host:
            raise ValueError("it names no host")
        if parsed.userinfo:
            raise ValueError("it holds a user or a password")
        path, _, query = parsed.raw_path.decode("ascii").partition("?")
        return cls(
            scheme=parsed.scheme,
            host=parsed.raw_host.decode("ascii").lower().rstrip("."),
            port=parsed.port or _PORTS[parsed.scheme],
            path=_without_dots(_ESCAPE.sub(_normal, path)) or "/",
            query=_ESCAPE.sub(_normal, query),
        )

    @property
    def origin(self) -> str:
        """Return scheme, host and port, the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"

    @property
    def target(self) -> str:
        """Return what a request asks the host for."""
        return f"{self.path}?{self.query}" if self.query else self.path

    @property
    def page(self) -> str:
        """Return what tells the page from others of its host, whatever slashes its path ends with."""
        path = self.path.strip("/") or "index"
        return f"{path}?{self.query}" if self.query else path

    def __str__(self) -> str:
        return self.origin + self.target


def _normal(escape: re.Match[str]) -> str:
    """Return an escape in upper case, or the character where it needs none."""
    character = chr(int(escape[1], 16))
    return character if character in _UNRESERVED else f"%{escape[1].upper()}"


def _without_dots(path: str) -> str:
    """Remove ``.`` and ``..`` (RFC 3986, 5.2.4); unescaping may have made some."""
    parts: list[str] = []
    for part in path.split("/")[1:]:
        if part == "..":
            parts[-1:] = []
        elif part != ".":
            parts.append(part)
    folder = path.endswith(("/.", "/.."))
    return "/" + "/".join(parts) + ("/" if folder and parts else "")
