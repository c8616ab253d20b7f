from __future__ import annotations

import logging
import time
from typing import Any

import pytest
from pydantic import ValidationError

from llmops.quality import QualityRules, Screened, SensitiveRules, screen

MASK = SensitiveRules(keys="mask", cards="mask", emails="mask", phones="mask")
NONE = {"keys": 0, "cards": 0, "emails": 0, "phones": 0}
MIXED = "aB3dE5gH7jK9mN1pQ3sT5vX7zA9cE1gI3kM5oQ7s"

# Made in parts, so that nothing that looks for keys in this repository finds one.
KEYS = {
    "aws": "AKIA" + "Q3EGRIOUWT7XVC2B",
    "github": "ghp_" + MIXED[:36],
    "github fine-grained": "github_pat_" + (MIXED * 2)[:70],
    "gitlab": "glpat-" + MIXED[:20],
    "slack": "xoxb-" + "731842906512-" + MIXED[:24].lower(),
    "slack webhook": "https://hooks.slack.com/services/T" + "02ABCDE9/B03FGHIJ7/" + MIXED[:24],
    "stripe": "sk_live_" + MIXED[:24],
    "openai": "sk-proj-" + MIXED + "T3BlbkFJ" + MIXED,
    "npm": "npm_" + MIXED[:36],
    "hugging face": "hf_" + MIXED[:34],
    "google": "AIza" + MIXED[:35],
    "databricks": "dapi" + "3f9a1c7e5b2d8f4a6c0e9b1d7a3f5c8e",
    "azure": "AccountKey=" + (MIXED * 3)[:86] + "==",
    "sendgrid": "SG." + MIXED[:22] + "." + (MIXED * 2)[:43],
    "twilio": "SK" + "3f9a1c7e5b2d8f4a6c0e9b1d7a3f5c8e",
    "telegram": "7318429065:" + MIXED[:35],
    "mailchimp": "3f9a1c7e5b2d8f4a6c0e9b1d7a3f5c8e" + "-us21",
    "pypi": "pypi-" + "AgEIcHlwaS5vcmc" + (MIXED * 2)[:72],
    "jwt": "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiI3MzE4NDI5MCJ9." + MIXED,
}
BODY = "\n".join([(MIXED * 2)[:64]] * 4)
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{BODY}\n-----END RSA PRIVATE KEY-----"
CARDS = [
    "4111 1111 1111 1111",
    "4111-1111-1111-1111",
    "4111111111111111",
    "5555\u00a05555\u00a05555\u00a04444",
    "2223003122003222",
    "3782 822463 10005",
    "30569309025904",
    "6011.1111.1111.1117",
    "3530111333300000",
    "6212345678901232",
    "4222222222222",
    "4000 0000 0000 0000 006",
]


def masked(text: str, rules: SensitiveRules = MASK) -> str:
    return screen(text, rules).text


# --- keys


@pytest.mark.parametrize("name", KEYS)
def test_a_key_of_a_known_form_is_masked_whole(name: str) -> None:
    found = screen(f"export TOKEN={KEYS[name]} # ours", MASK)
    assert found.text == "export TOKEN=[key] # ours"
    assert found.counts == {**NONE, "keys": 1}


def test_a_key_that_is_longer_than_its_form_leaves_no_rest() -> None:
    assert masked(f"x {KEYS['github']}aB3dE5 y") == "x [key] y"


def test_an_aws_secret_is_masked_and_the_name_of_its_variable_stays() -> None:
    assert masked(f'aws_secret_access_key = "{MIXED}"') == 'aws_secret_access_key = "[key]"'


def test_a_private_key_is_masked_from_its_first_to_its_last_line() -> None:
    assert masked(f"before\n{PEM}\nafter") == "before\n[key]\nafter"
    assert masked(PEM.replace("\n", "\\n")) == "[key]"


def test_a_private_key_whose_end_is_missing_is_masked_too() -> None:
    cut = PEM.partition("-----END")[0]
    assert masked(f"{cut}\nAnd so on.") == "[key]\n\nAnd so on."
    assert masked(cut + PEM) == "[key]\n[key]"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://app:hunter2x@db/x", "postgresql://app:[key]@db/x"),
        ("redis://:s3cr3t-Value@cache:6379", "redis://:[key]@cache:6379"),
        ("https://me:pa@ss:word9@[::1]/", "https://me:[key]@[::1]/"),
        ("see amqp://u:k8sRabbit@mq.example.org.", "see amqp://u:[key]@mq.example.org."),
    ],
)
def test_only_the_password_of_a_url_is_masked(url: str, expected: str) -> None:
    assert masked(url) == expected


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://user:password@localhost/db",
        "postgresql://user:pass@host:5432",
        "https://scott:tiger@db",
        "amqp://guest:guest@localhost//",
        "amqp://rabbit:Rabbit@localhost//",
        "redis://:{password}@host",
        "redis://:${REDIS_PASSWORD}@host",
        "https://user:%s@host",
        "https://user:<token>@host",
        "https://user:***@host",
        "https://user:xxxx@host",
        "https://user:MY_PASSWORD@host",
        "https://user:db_password@host",
        "https://user:my...@host",
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_" + "x" * 36,
        "sk-" + "0123456789" * 5,
        "sk-learn-style-names-that-go-on-and-on-for-long-without-digits",
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANB\n-----END PRIVATE KEY-----",
        "git clone https://host:443/path and ssh://git@host/x",
        "data:image/png;base64,iVBORw0AC3f9a1c7e5b2d8f4a6c0e9b1d7a3f5c8e",
        "sha256:3f9a1c7e5b2d8f4a6c0e9b1d7a3f5c8e3f9a1c7e5b2d8f4a6c0e9b1d7a3f5c8e",
        "a = max(x for x in eyJs.items())",
    ],
)
def test_placeholders_and_lookalikes_in_documentation_are_no_keys(text: str) -> None:
    assert screen(text, MASK) == Screened(text, NONE, None)


# --- cards


@pytest.mark.parametrize("number", CARDS)
def test_a_card_number_is_masked_however_it_is_grouped(number: str) -> None:
    assert masked(f"Card: {number}, valid") == "Card: [card number], valid"
    assert masked(f"{number}\n{number}") == "[card number]\n[card number]"


def test_a_card_number_is_found_beside_other_numbers() -> None:
    assert masked("order 1234 4111 1111 1111 1111 2026") == "order 1234 [card number] 2026"
    assert masked("1,4111111111111111,5555555555554444") == "1,[card number],[card number]"
    assert masked("4111 1111 1111 1111/27.") == "[card number]/27."


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112",  # its check digit is wrong
        "9111111111111111",  # no issuer
        "1234567812345670",
        "41111111111111111",  # too long for its issuer
        "0.4111111111111111",
        "id4111111111111111",
        "1735689600000 1735689600001",  # milliseconds
        "4111 11 11 1111 1111",
        "411111111111",
    ],
)
def test_other_long_numbers_are_no_cards(text: str) -> None:
    assert masked(text) == text


# --- addresses and phones


@pytest.mark.parametrize(
    "address",
    ["jane.doe+x@mail.example.org", "o_%-1@a-b.co", "jürgen@müller.de", "J@EXAMPLE.COM", "a@b.museum"],
)
def test_an_address_is_masked(address: str) -> None:
    assert masked(f"Write to <{address}>.") == "Write to <[e-mail address]>."
    assert masked(f"mailto:{address}, ...{address}") == "mailto:[e-mail address], ...[e-mail address]"


@pytest.mark.parametrize(
    "text",
    [
        "git clone git@github.com:org/repo.git",
        "ssh://git@github.com/org/repo",
        "postgresql://user:password@db.example.org/x",
        "root@localhost",
        "package@1.2.3",
        "@decorator.of a@b",
        "x @ y.T",
    ],
)
def test_what_only_looks_like_an_address_stays(text: str) -> None:
    assert masked(text) == text


def test_an_address_behind_a_url_is_found() -> None:
    assert masked("https://a.org,joe@b.org (https://a.org) joe@b.org") == (
        "https://a.org,[e-mail address] (https://a.org) [e-mail address]"
    )


def test_phone_numbers_are_found_with_their_country_code() -> None:
    assert masked("Call +49 30 901820 or tel:+442083661177") == "Call [phone number] or tel:[phone number]"
    assert masked("Call 030 901820, build 2083661177") == "Call 030 901820, build 2083661177"


def test_with_a_region_numbers_as_written_there_are_found_too() -> None:
    rules = SensitiveRules(phones="mask", region="DE")
    assert masked("Ruf 030 901820 an", rules) == "Ruf [phone number] an"
    with pytest.raises(ValidationError, match="region"):
        SensitiveRules(region="Germany")


# --- policies


TEXT = f"joe@b.org paid with 4111 1111 1111 1111, +49 30 901820, {KEYS['github']}"


def test_by_default_keys_and_cards_are_masked_and_whom_to_ask_is_kept() -> None:
    found = screen(TEXT, QualityRules().sensitive)
    assert found.text == "joe@b.org paid with [card number], +49 30 901820, [key]"
    assert found.counts == {"keys": 1, "cards": 1, "emails": 1, "phones": 1}
    assert found.quarantine is None


def test_everything_can_be_kept_and_is_counted_all_the_same() -> None:
    found = screen(TEXT, SensitiveRules(keys="keep", cards="keep"))
    assert (found.text, found.counts) == (TEXT, {"keys": 1, "cards": 1, "emails": 1, "phones": 1})


def test_the_reason_for_quarantine_names_kinds_and_counts_and_nothing_that_was_found(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rules = SensitiveRules(keys="quarantine", cards="mask", emails="quarantine")
    with caplog.at_level(logging.DEBUG):
        found = screen(f"{TEXT} jim@b.org", rules)
    assert found.quarantine is not None
    assert found.quarantine.startswith(
        "it holds 1 key, 2 e-mail addresses, which the source's rules keep out"
    )
    for canary in ("joe", "jim", "4111", KEYS["github"], "901820"):
        assert canary not in found.quarantine
    assert found.text == "[e-mail address] paid with [card number], +49 30 901820, [key] [e-mail address]"
    assert caplog.records == []
    assert screen("nothing here", rules).quarantine is None


def test_of_two_findings_that_overlap_the_graver_one_counts() -> None:
    for text, expected in {
        "https://joe:hunter2x@b.example.org/": "https://joe:[key]@b.example.org/",
        f"to {KEYS['aws']}@b.example.org.": "to [key].",
        f"to 4111-1111-1111-1111@b.example.org, {KEYS['aws']}": "to [card number], [key]",
    }.items():
        found = screen(text, MASK)
        assert found.text == expected
        assert found.counts["emails"] == 0


def test_screening_again_changes_nothing() -> None:
    text = "\n".join([TEXT, PEM, *KEYS.values(), *CARDS, "postgresql://app:hunter2x@db/x"])
    once = screen(text, MASK)
    assert once.counts["keys"] == len(KEYS) + 3
    assert once.counts["cards"] == len(CARDS) + 1
    assert screen(once.text, MASK) == Screened(once.text, NONE, None)


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "a",
            "1",
            "1.",
            "a@",
            "eyJ",
            "eyJa.",
            "sk-1",
            "://a:",
            "://a@a@",
            "-----BEGIN PRIVATE KEY-----",
            "AKIA",
        ),
        *(
            "aws'key",
            "glagent-",
            "xoxb-1-",
            "4111 ",
            "41111111",
            "joe@x.org ",
            "+1 ",
            "(555) 555-",
            "12345678:",
        ),
        *("AAAA\n", "0-us", "AC0", "hf_", "a-b."),
    ],
)
def test_hostile_text_takes_time_in_proportion_to_its_length(piece: str) -> None:
    def seconds(length: int) -> float:
        text = piece * (length // len(piece))
        best: list[float] = []
        for _ in range(2):
            start = time.process_time()
            screen(text, MASK)
            best.append(time.process_time() - start)
        return min(best)

    screen(piece, MASK)
    assert seconds(80_000) < 8 * seconds(20_000) + 0.05
    assert seconds(80_000) < 2


def test_a_misspelt_kind_or_policy_is_refused() -> None:
    wrong: list[dict[str, Any]] = [{"key": "mask"}, {"keys": "hide"}]
    for values in wrong:
        with pytest.raises(ValidationError):
            SensitiveRules.model_validate(values)
