"""E-mail (.eml): the subject as title, who wrote to whom and when, and the text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.errors import MessageError
from email.message import EmailMessage

from llmops.corpus._formats._html import read_html
from llmops.corpus._formats._markdown import blocks, plain
from llmops.corpus._formats._reading import Reading, listed, within
from llmops.corpus._formats._visible import normalised
from llmops.corpus._problems import Unreadable

__all__ = ["read_mail"]

_KNOWN = ("from", "to", "subject", "date", "received", "message-id", "mime-version", "return-path")
_SHOWN = ("From", "To", "Cc", "Date")
_ENCRYPTED = ("multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime")
_MAX_PARTS = 1_000


def read_mail(content: bytes) -> Reading:
    """Return a message as Markdown; attachments are named in a warning and not read."""
    from email import policy
    from email.parser import BytesParser

    message = BytesParser(policy=policy.default).parsebytes(content)
    if not isinstance(message, EmailMessage) or not any(name in message for name in _KNOWN):
        raise Unreadable("it is no e-mail: it does not begin with the lines of a message's head")
    if message.get_content_type() in _ENCRYPTED and message.get_param("smime-type") != "signed-data":
        raise Unreadable("it is encrypted: save a copy that is not", "encrypted")
    within(sum(1 for _ in message.walk()), _MAX_PARTS, "parts")
    subject = _header(message, "Subject")
    head = [f"**{name}:** {plain(value)}" for name in _SHOWN if (value := _header(message, name))]
    body, warnings = _body(message)
    if not body.strip() and not subject:
        raise Unreadable("it has no text", "empty")
    if names := list(_attachments(message)):
        warnings.append(f"attachments are not read: {listed(names)}")
    title = f"# {subject}" if subject else ""
    return Reading(blocks([title, "  \n".join(head), body]), subject, tuple(warnings))


def _header(message: EmailMessage, name: str) -> str:
    """Return a header in one line, as it was sent where it cannot be decoded."""
    try:
        value = str(message.get(name, ""))
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MessageError,
        RecursionError,
        TypeError,
        ValueError,
    ):
        # The parser of the standard library fails on some malformed addresses and dates.
        value = next((v for key, v in message.raw_items() if key.lower() == name.lower()), "")
    return " ".join(normalised(value.encode("utf-8", "replace").decode()).split())


def _body(message: EmailMessage) -> tuple[str, list[str]]:
    """Return the message's text as Markdown: its plain version, or the HTML one where that says nothing."""
    warnings: list[str] = []
    for kind in ("plain", "html"):
        part = message.get_body(preferencelist=(kind,))
        if not isinstance(part, EmailMessage):
            continue
        text, exact = _decoded(part)
        body = plain(text.strip()) if kind == "plain" else read_html(text).text
        if body.strip():
            if not exact:
                warnings.append("characters that its encoding does not have are replaced")
            return body, warnings
    return "", warnings


def _decoded(part: EmailMessage) -> tuple[str, bool]:
    """Return a part's text, and whether every byte of it was text in the encoding that it declares."""
    payload = part.get_payload(decode=True)
    content = payload if isinstance(payload, bytes) else b""
    charset = str(part.get_content_charset() or "utf-8")
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.:-]*", charset) or charset in ("us-ascii", "ascii"):
        charset = "utf-8"
    try:
        return normalised(str(content.decode(charset))), True
    except (LookupError, ValueError):
        return normalised(content.decode("utf-8", "replace")), False


def _attachments(message: EmailMessage) -> Iterator[str]:
    for part in message.walk():
        if part.is_multipart() and part.get_content_type() != "message/rfc822":
            continue
        name = part.get_filename()
        if name or part.get_content_disposition() == "attachment":
            yield " ".join(normalised(str(name or part.get_content_type())).split())
