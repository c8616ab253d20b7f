"""Keys, tokens and passwords that can be told by their form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

__all__ = ["find_keys"]

Span = tuple[int, int]

_TOKEN = re.compile(r"[A-Za-z0-9_+/=-]*+")
_WORDISH = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")

_OWN = re.compile(
    r"(?<![A-Za-z0-9_-])(?:"
    r"eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+(?:\.[A-Za-z0-9_-]*+){0,3}"  # a token of RFC 7519, signature included
    r"|sk-(?=(?:[A-Za-z_-]{0,80}[0-9]){4})[A-Za-z0-9_-]{32,}+"  # OpenAI, Anthropic and others
    r"|github_pat_[A-Za-z0-9_]{60,}+"
    r"|npm_[A-Za-z0-9]{36}"
    r"|hf_[A-Za-z0-9]{30,}+"
    r"|AIza[A-Za-z0-9_-]{35}"  # Google
    r"|dapi[0-9a-f]{32}(?:-[0-9])?"  # Databricks
    r"|hvs\.[A-Za-z0-9_-]{24,}+"  # Vault
    r"|whsec_[A-Za-z0-9+/]{24,}+"  # Stripe
    r"|AGE-SECRET-KEY-1[A-Z0-9]{50,}+"
    r")"
)
_URL_PASSWORD = re.compile(
    r"""://(?P<user>[^\s/:@<>"'`]{0,256}):(?P<password>[^\s/@<>"'`]{1,256}(?:@[^\s/@<>"'`]{1,256}){0,3})@(?=[\w\[])"""
)
_PEM_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_PEM_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_PEM_BODY = re.compile(r"(?:(?:\s|\\[rn])*+[A-Za-z0-9+/=]{16,}+)*+")
_PUTTY = re.compile(r"Private-Lines: [0-9]{1,3}\r?\n(?:[A-Za-z0-9+/=]{1,100}\r?\n){1,100}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]")

_PLACEHOLDER_WORDS = (
    "example",
    "placeholder",
    "your",
    "dummy",
    "redacted",
    "changeme",
    "xxxx",
    "....",
    "****",
)
_SEQUENCES = ("0123456789", "1234567890", "abcdefghijkl", "abcdef0123456")
_PLACEHOLDER_PASSWORD = re.compile(
    r"(?:(?:my|your|the|some|db|user|root|admin|test)?[_-]?)"
    r"(?:passw(?:or)?d|passphrase|passwort|pass|pwd|pw|p|secret|token|api[_-]?key|key|credentials?|tiger|changeme"
    r"|example|dummy|foo|bar|baz|test|demo|guest|root|admin|postgres|mysql|airflow)[_-]?[0-9]{0,3}",
    re.IGNORECASE,
)
_PLACEHOLDER_FORM = re.compile(
    r"""[<\[{(].*|\$[({\w].*|%[({\w]?[({].*|%s|[xX]{2,}|[\W_]+|[A-Z]+(?:_[A-Z]+)*|\.{2,}.*|.*(?:\.{3}|…|\*{3}).*""",
    re.DOTALL,
)


def find_keys(text: str) -> Iterator[Span]:
    """Yield where keys, tokens, private keys and passwords in URLs stand; spans may overlap.

    Vendors' forms come from detect-secrets; what it finds only in part (the group of a token's prefix, a header
    without its key, a JSON Web Token without its signature) or in more than linear time is looked for by patterns of
    our own. Placeholders of documentation, such as ``user:password@host`` or ``AKIAIOSFODNN7EXAMPLE``, are no keys.
    """
    yield from _private_keys(text)
    yield from _url_passwords(text)
    for match in _OWN.finditer(text):
        if not _is_placeholder(match[0]):
            yield match.span()
    for pattern, group in _vendor_patterns():
        for match in pattern.finditer(text):
            start, end = match.span(group)
            inside = (
                start > 0 and text[start - 1] in _WORDISH
            )  # of something longer, such as an encoded image
            if not inside and not _is_placeholder(match[group]):
                yield start, _rest_of_token(text, end)


def _rest_of_token(text: str, end: int) -> int:
    match = _TOKEN.match(text, end)
    return match.end() if match else end


def _private_keys(text: str) -> Iterator[Span]:
    begins = list(_PEM_BEGIN.finditer(text))
    limits = [*(match.start() for match in begins), len(text)][1:]
    for begin, limit in zip(begins, limits, strict=False):
        closing = _PEM_END.search(text, begin.end(), limit)
        if closing:
            body, end = text[begin.end() : closing.start()], closing.end()
        else:
            match = _PEM_BODY.match(text, begin.end(), limit)
            assert match is not None
            body, end = match[0], match.end()
        if len(_BASE64.findall(body)) >= 40 and not _is_placeholder(body):
            yield begin.start(), end
    if "Private-Lines" in text:
        yield from (match.span() for match in _PUTTY.finditer(text))


def _url_passwords(text: str) -> Iterator[Span]:
    for match in _URL_PASSWORD.finditer(text):
        user, password = match["user"], match["password"]
        if password.casefold() == user.casefold():
            continue  # guest:guest
        if _PLACEHOLDER_PASSWORD.fullmatch(password) or _PLACEHOLDER_FORM.fullmatch(password):
            continue
        yield match.span("password")


def _is_placeholder(token: str) -> bool:
    lowered = token.casefold()
    return any(word in lowered for word in (*_PLACEHOLDER_WORDS, *_SEQUENCES)) or len(set(lowered[-24:])) <= 5


@cache
def _vendor_patterns() -> tuple[tuple[re.Pattern[str], int], ...]:
    """Return patterns of detect-secrets, each with the group that is secret."""
    from detect_secrets.plugins import aws, stripe, twilio
    from detect_secrets.plugins.azure_storage_key import AzureStorageKeyDetector
    from detect_secrets.plugins.discord import DiscordBotTokenDetector
    from detect_secrets.plugins.github_token import GitHubTokenDetector
    from detect_secrets.plugins.gitlab_token import GitLabTokenDetector
    from detect_secrets.plugins.mailchimp import MailchimpDetector
    from detect_secrets.plugins.pypi_token import PypiTokenDetector
    from detect_secrets.plugins.sendgrid import SendGridDetector
    from detect_secrets.plugins.slack import SlackDetector
    from detect_secrets.plugins.square_oauth import SquareOAuthDetector
    from detect_secrets.plugins.telegram_token import TelegramBotTokenDetector

    key_id, secret = aws.AWSKeyDetector.denylist
    detectors = (
        AzureStorageKeyDetector,
        DiscordBotTokenDetector,
        GitHubTokenDetector,
        GitLabTokenDetector,
        MailchimpDetector,
        PypiTokenDetector,
        SendGridDetector,
        SlackDetector,
        SquareOAuthDetector,
        stripe.StripeDetector,
        TelegramBotTokenDetector,
        twilio.TwilioKeyDetector,
    )
    whole = ((pattern, 0) for detector in detectors for pattern in detector.denylist)
    return ((key_id, 0), (secret, 1), *whole)
