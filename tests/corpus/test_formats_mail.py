"""E-mails as documents."""

from __future__ import annotations

from email.message import EmailMessage

import pytest

from llmops.corpus._parsing import Parsed, parse
from llmops.corpus._problems import Unreadable


def mail(subject: str = "Rivers") -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = subject
    message["From"] = "Ann <ann@a.example>"
    message["To"] = "bob@a.example, Čeněk <c@a.example>"
    message["Date"] = "Fri, 01 May 2020 12:30:00 +0200"
    return message


def read(content: bytes) -> Parsed:
    return parse("inbox/7.eml", None, content)


HEAD = (
    "# Rivers\n\n**From:** Ann <ann@a.example>  \n**To:** bob@a.example, Čeněk <c@a.example>  \n"
    "**Date:** Fri, 01 May 2020 12:30:00 +0200\n\n"
)


def test_a_message_has_its_subject_as_title_and_its_plain_text() -> None:
    message = mail()
    message.set_content("Café\n\n# no heading\n> quoted\n")
    message.add_alternative("<p>HTML</p>", subtype="html")
    message.add_attachment(b"MZ", maintype="application", subtype="octet-stream", filename="lengths.xlsx")
    assert read(message.as_bytes()) == Parsed(
        HEAD + "Café\n\n\\# no heading\n> quoted\n",
        "Rivers",
        "message/rfc822",
        ("attachments are not read: lengths.xlsx",),
    )


def test_a_message_in_html_is_read_as_a_page_without_what_is_hidden() -> None:
    message = mail()
    message.set_content(
        "<div style='display:none'>Ignore.</div><p>See <a href='https://a.example'>this</a>.</p>",
        subtype="html",
    )
    assert read(message.as_bytes()).text == HEAD + "See [this](https://a.example).\n"


def test_an_empty_plain_version_gives_way_to_the_html_one() -> None:
    message = mail()
    message.set_content(" \n")
    message.add_alternative("<p>Text.</p>", subtype="html")
    assert read(message.as_bytes()).text == HEAD + "Text.\n"


def test_attached_messages_are_named_and_not_read() -> None:
    message, inner = mail(), mail("Inner")
    inner.set_content("Secret.")
    message.set_content("Text.")
    message.add_attachment(inner)
    parsed = read(message.as_bytes())
    assert "Secret" not in parsed.text
    assert parsed.warnings == ("attachments are not read: message/rfc822",)


def test_pictures_within_the_text_are_named_as_well() -> None:
    message = mail()
    message.set_content("Text.")
    message.add_attachment(b"x", maintype="image", subtype="png", filename="a.png", disposition="inline")
    assert read(message.as_bytes()).warnings == ("attachments are not read: a.png",)


def test_the_subject_is_decoded_and_on_one_line() -> None:
    content = b"Subject: =?utf-8?q?Fl=C3=BCsse=E2=80=8B?=\r\n und\r\n Meere\r\n\r\nText.\r\n"
    assert read(content) == Parsed("# Flüsse und Meere\n\nText.\n", "Flüsse und Meere", "message/rfc822")


@pytest.mark.parametrize(
    ("head", "content", "text", "warned"),
    [
        (b"Content-Type: text/plain; charset=iso-8859-1\n", b"caf\xe9", "café", False),
        (b"", "café".encode(), "café", False),
        (b"", b"caf\xe9", "caf\ufffd", True),
        (b"Content-Type: text/plain; charset=klingon\n", b"abc", "abc", True),
        (b"Content-Type: text/plain; charset=zip\n", b"abc", "abc", True),
        (b"Content-Transfer-Encoding: base64\n", b"Y2Fm", "caf", False),
    ],
)
def test_text_is_read_in_the_encoding_that_it_declares(
    head: bytes, content: bytes, text: str, warned: bool
) -> None:
    parsed = read(b"From: a@a.example\n" + head + b"\n" + content)
    assert parsed.text.endswith(f"\n\n{text}\n")
    assert bool(parsed.warnings) is warned


@pytest.mark.parametrize(
    "line", [b"To: <@@>, [", b"Date: =?x?q??=", b"To: \xff\xfe;:;<", b"From: " + b"(" * 500]
)
def test_a_malformed_head_is_no_obstacle(line: bytes) -> None:
    assert "Text." in read(b"Subject: S\n" + line + b"\n\nText.\n").text


@pytest.mark.parametrize(
    ("content", "problem", "reason"),
    [
        (b"Just some text.\n\nMore.\n", "unreadable", "is no e-mail"),
        (b"%PDF-1.7\n", "unreadable", "is no e-mail"),
        (b"From: a@a.example\n\n", "empty", "no text"),
        (b"From: a@a.example\nContent-Type: image/png\n\nabc", "empty", "no text"),
        (
            b"From: a\nContent-Type: multipart/encrypted; boundary=b\n\n--b\n\nx\n--b--\n",
            "encrypted",
            "encrypted",
        ),
        (
            b"From: a\nContent-Type: application/pkcs7-mime; smime-type=enveloped-data\n\nx",
            "encrypted",
            "encrypted",
        ),
    ],
)
def test_a_file_that_is_no_message_says_why(content: bytes, problem: str, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason) as caught:
        read(content)
    assert caught.value.problem == problem


def test_a_message_of_very_many_parts_is_refused() -> None:
    parts = b"--b\nContent-Type: text/plain\n\nx\n" * 1_001
    with pytest.raises(Unreadable, match="parts") as caught:
        read(b"From: a\nContent-Type: multipart/mixed; boundary=b\n\n" + parts + b"--b--\n")
    assert caught.value.problem == "too_large"
