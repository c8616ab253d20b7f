from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from bs4 import BeautifulSoup
from fastapi.testclient import TestClient

from llmops.release import board_assistants
from llmops.settings import Environment
from llmops.signing import SigningKey
from plugins.conftest import HOSTILE, Story
from release_board.policy import DAG
from release_board.text import shown
from support.services import FreshDatabase


def _text(page: str) -> str:
    soup = BeautifulSoup(page, "html.parser")
    for cell in soup.find_all(["td", "th", "dt", "dd"]):
        cell.append(" ")
    return " ".join(soup.get_text().split())


# --- what people wrote


def test_hostile_texts_are_shown_and_do_nothing(hostile: Story, page: Callable[..., str]) -> None:
    first, second = hostile.whole()
    seen = " ".join(shown(HOSTILE).split())
    for path in ("/", "/ledger", "/approvals", f"/releases/{first}", f"/releases/{second}"):
        found = page(path)
        assert not set("\x1b\u202e\u202c") & set(found), path
        soup = BeautifulSoup(found, "html.parser")
        assert not soup.find_all(["script", "img", "iframe", "object", "embed", "base"])
        attributes = {name for tag in soup.find_all(True) for name in tag.attrs}
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcdoc")]
        links = [str(tag["href"]) for tag in soup.find_all(href=True)]
        assert not [link for link in links if not link.startswith(("/", "#", "?", "data:,"))], path
        expected = "manual__" + seen if path == "/approvals" else seen
        assert expected in _text(found), path


def test_what_has_no_shape_is_made_visible() -> None:
    assert shown("a\u202eb\x00\x1b\ud800\u200b") == "a⟨U+202E⟩b⟨U+0000⟩⟨U+001B⟩⟨U+D800⟩⟨U+200B⟩"
    assert shown("a\u00a0b\u2028c\r\nd\te ü 漢") == "a b\nc\nd\te ü 漢"


def test_an_unknown_assistant_in_the_address_is_escaped(story: Story, client: TestClient) -> None:
    story.whole()
    response = client.get("/", params={"assistant": "<b>x"})
    assert response.status_code == 404
    assert "<b>" not in response.text
    assert "<b>" not in client.get("/ledger", params={"assistant": '"><b>x'}).text
    assert "<b>" not in client.get("/%3Cb%3Ex").text


# --- releases


def test_the_list_tells_what_is_in_production_since_when_and_by_whom(story: Story, page: Any) -> None:
    first, second = story.whole()
    text = _text(page("/"))
    assert re.search(
        rf"In production {first[:12]} since 20\d\d-\d\d-\d\d \d\d:\d\d UTC Moved by actor plain", text
    )
    assert text.index(second[:12] + " 20") < text.index(first[:12] + " 20")
    assert "✓ approved by reviewer plain" in text
    assert "staging ! dirty" in text


def test_the_list_tells_what_waits_for_an_answer(story: Story, page: Any) -> None:
    _, second = story.whole()
    assert re.search(rf"{second[:12]} \S+ \S+ UTC ✗ FAIL \? waiting", _text(page("/")))
    assert _text(page("/")).count("waiting") == 1
    never_asked = story.release("c")
    assert re.search(rf"{never_asked[:12]} \S+ \S+ UTC \S+( \S+)? none", _text(page("/")))


def test_a_board_without_releases_says_how_to_make_one(page: Any) -> None:
    assert f"Run {DAG} to make the first" in _text(page("/"))


def test_the_list_goes_on_page_by_page(story: Story, page: Any) -> None:
    made = {story.release(str(n))[:12] for n in range(26)}
    older = re.search(r'href="(/\?[^"]*page=2)"', page("/"))
    assert older is not None
    pages_shown = [page("/"), page(older[1].replace("&amp;", "&"))]
    found = [set(re.findall(r"/releases/([0-9a-f]{12})", text)) for text in pages_shown]
    assert [len(one) for one in found] == [25, 1]
    assert found[0] | found[1] == made


def test_a_damaged_manifest_hides_no_other_release(story: Story, page: Any, database: FreshDatabase) -> None:
    first, second = story.whole()
    with psycopg.connect(database.url("llmops_owner")) as connection:
        connection.execute("UPDATE releases SET manifest = 'no JSON' WHERE release_id = %s", (first,))
    text = _text(page("/"))
    assert "✗ damaged" in text
    assert second[:12] in text
    assert "Damaged. the manifest stored as release" in _text(page(f"/releases/{first}"))
    assert "The other manifest is damaged" in _text(page(f"/releases/{second}"))


def test_a_release_shows_how_it_differs_from_production(story: Story, page: Any) -> None:
    first, second = story.whole()
    text = _text(page(f"/releases/{second}"))
    assert f"Differences from production, {first[:12]}" in text
    assert "dirty no yes" in text
    assert "This is the first release in production" in _text(page(f"/releases/{first}"))


def test_a_revoked_release_says_so_everywhere(story: Story, page: Any) -> None:
    _, second = story.whole()
    story.enter("revoke", second)
    assert "✗ revoked" in _text(page("/"))
    assert "✗ Revoked" in _text(page(f"/releases/{second}"))


def test_a_short_id_finds_its_release_and_an_unknown_one_nothing(story: Story, client: TestClient) -> None:
    first, _ = story.whole()
    assert client.get(f"/releases/{first[:12]}").status_code == 200
    assert client.get("/releases/0123456789ab").status_code == 404
    assert client.get("/releases/xyz").status_code == 400
    assert client.get(f"/releases/{first}?report={'0' * 64}").status_code == 404


# --- the gate


def test_a_report_shows_rules_plots_and_examples_with_both_answers(story: Story, page: Any) -> None:
    _, second = story.whole()
    found = page(f"/releases/{second}")
    text = _text(found)
    assert "quality on how-to ? inconclusive" in text
    assert "groundedness – missing" in text
    assert "Questions answered worse: 6" in text
    assert "It works. plain" in text
    soup = BeautifulSoup(found, "html.parser")
    plots = soup.find_all("svg", role="img")
    assert len(plots) > 20
    for plot in plots:
        named = [soup.find(id=key) for key in str(plot["aria-labelledby"]).split()]
        assert [tag.name for tag in named if tag] == ["title", "desc"]
    places = [float(str(line["x1"]).rstrip("%")) for line in soup.select(".row line")]
    assert all(0 <= place <= 100 for place in places)


def test_the_limit_is_left_of_zero_where_higher_is_better_and_right_of_it_where_lower_is(
    story: Story,
) -> None:
    from release_board.report import read_gate

    view = read_gate(story.report(story.release()).report)
    assert view is not None
    shares, latency = view.forests
    assert (shares.better, latency.better) == ("right", "left")
    assert all(row.tolerance is not None and row.tolerance < shares.zero for row in shares.rows)
    assert latency.rows[0].tolerance is not None
    assert latency.rows[0].tolerance > latency.zero
    assert [row.tolerated for row in shares.rows] == ["-0.2"] * 4 + ["-0.5"]


def test_erased_and_unknown_texts_are_named_as_such(story: Story, page: Any, database: FreshDatabase) -> None:
    release = story.release()
    story.report(release)
    with psycopg.connect(database.url("llmops_owner")) as connection:
        connection.execute("UPDATE gate_texts SET content = NULL, erased_at = now()")
    text = _text(page(f"/releases/{release}"))
    assert "The question was erased." in text
    assert "The answer was erased." in text
    assert "It works" not in text
    with psycopg.connect(database.url("llmops_owner")) as connection:
        connection.execute("DELETE FROM gate_texts")
    assert "The answer is not in the database." in _text(page(f"/releases/{release}"))


def test_a_text_that_is_not_the_one_judged_is_not_shown(
    story: Story, page: Any, database: FreshDatabase
) -> None:
    release = story.release()
    story.report(release)
    with psycopg.connect(database.url("llmops_owner")) as connection:
        for (name,) in connection.execute(
            "SELECT conname FROM pg_constraint WHERE conrelid = 'gate_texts'::regclass AND contype = 'c'"
        ).fetchall():
            connection.execute(f'ALTER TABLE gate_texts DROP CONSTRAINT "{name}"')
        connection.execute('UPDATE gate_texts SET content = \'{"text": "forged words"}\'')
    text = _text(page(f"/releases/{release}"))
    assert "The answer that is kept is not the one that was judged" in text
    assert "forged words" not in text


@pytest.mark.parametrize("content", ['{"verdict":"PASS"}', "no JSON", "[]", '{"verdict":"FAIL"}', "[" * 5000])
def test_a_report_of_another_layout_breaks_no_page(hostile: Story, client: TestClient, content: str) -> None:
    release = hostile.release()
    hostile.other_report(release, content)
    response = client.get(f"/releases/{release}")
    assert response.status_code == 200
    assert "<script>document" not in response.text
    if content == '{"verdict":"PASS"}':
        assert "This is the page that the approver saw" in response.text
        assert "&lt;script&gt;document" in response.text
    else:
        assert "✗ Damaged." in response.text


def test_a_changed_report_is_not_shown(story: Story, page: Any, database: FreshDatabase) -> None:
    release = story.release()
    story.report(release)
    with psycopg.connect(database.url("llmops_owner")) as connection:
        connection.execute("UPDATE gate_reports SET report = replace(report, 'inconclusive', 'pass')")
    text = _text(page(f"/releases/{release}"))
    assert "it was changed after it was decided" in text
    assert "quality on how-to" not in text


# --- approvals and the ledger


def test_an_approval_names_the_key_that_signed_it(story: Story, page: Any, key: SigningKey) -> None:
    release = story.release()
    report = story.report(release)
    story.answer(release, report.report_hash)
    text = _text(page(f"/releases/{release}"))
    assert "✓ approved by reviewer plain" in text
    assert f"Signed by the notary ✓ {key.fingerprint}" in text
    assert "Authors author, plain" in text


def test_an_approval_that_the_notary_did_not_sign_is_called_unproven(story: Story, page: Any) -> None:
    release = story.release()
    report = story.report(release)
    story.answer(release, report.report_hash, signed_by=SigningKey.generate())
    text = _text(page(f"/releases/{release}"))
    assert "✗ Not proven." in text
    assert "Signed by the notary" not in text


def test_an_edited_record_of_an_approval_is_called_unproven(
    story: Story, page: Any, database: FreshDatabase
) -> None:
    release = story.release()
    story.answer(release, story.report(release).report_hash)
    with psycopg.connect(database.url("llmops_owner")) as connection:
        connection.execute("UPDATE approvals SET approver = 'mallory'")
    assert "✗ Not proven. the approval of request" in _text(page(f"/releases/{release}"))


def test_without_the_notarys_public_key_the_board_says_that_it_cannot_tell(
    story: Story, page: Any, environment: Environment
) -> None:
    first, _ = story.whole()
    Path(environment.notary_keys).unlink()
    assert "✗ Not proven. the allowed signers" in _text(page(f"/releases/{first}"))
    assert "does not cover this ledger. the allowed signers" in _text(page("/ledger"))


def test_waiting_requests_link_to_the_release_and_to_airflows_required_action(
    story: Story, page: Any
) -> None:
    release = story.release()
    report = story.report(release)
    story.ask(release, report.report_hash)
    late = story.release("late")
    story.ask(late, story.report(late).report_hash, hours=-1)
    done = story.release("done")
    story.answer(done, story.report(done).report_hash, "rejected")
    found = page("/approvals")
    assert (
        f"/dags/{DAG}/runs/manual__plain%20{release[:6]}{report.report_hash[:6]}/tasks/ask_reviewer/req"
        in found
    )
    assert f"/releases/{release}?report={report.report_hash}" in found
    text = _text(found)
    assert text.index("✗ too late") < text.index("Answer before")
    assert done[:12] not in text


def test_every_answer_that_reached_airflow_is_listed(story: Story, page: Any) -> None:
    release = story.release()
    story.ask(release, story.report(release).report_hash)
    story.attempt(release, 403, "author")
    story.attempt(release, 200, "reviewer")
    text = _text(page(f"/releases/{release}"))
    assert "reviewer Approve plain ✓ taken (200)" in text
    assert "author Approve plain ✗ refused (403)" in text


def test_the_ledger_goes_back_page_by_page_and_by_assistant(story: Story, page: Any) -> None:
    release = story.release()
    for _ in range(51):
        story.enter("stage", release, alias="staging")
    found = page("/ledger")
    assert "Older →" in found
    older = page("/ledger?assistant=&before=2")
    assert re.findall(r'scope="row" data-label="Entry"><span>(\d+)', older) == ["1"]
    assert "No line about other" in _text(page("/ledger?assistant=other"))
    assert page("/ledger?assistant=guide").count('data-label="Entry"') == 50


def test_refusals_and_rejections_stand_out_in_the_ledger(story: Story, page: Any) -> None:
    release = story.release()
    story.enter("refuse", release, "llmops_notary")
    story.enter("reject", release, "llmops_notary")
    text = _text(page("/ledger"))
    assert "✗ refuse" in text
    assert "✗ reject" in text


def test_the_ledger_says_how_far_it_is_signed(story: Story, page: Any) -> None:
    release = story.release()
    story.enter("stage", release, alias="staging")
    assert "Not signed yet" in _text(page("/ledger"))
    second = story.enter("stage", release, alias="staging")
    story.sign(second)
    assert "Signed to its end, entry 2" in _text(page("/ledger"))
    story.enter("stage", release, alias="staging")
    assert "Signed up to entry 2 of 3" in _text(page("/ledger"))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (
            "UPDATE release_ledger SET reason = 'forged' WHERE entry = 2",
            "was edited: its content does not give",
        ),
        ("UPDATE release_ledger SET hash = repeat('0', 64) WHERE entry = 3", "it was cut or rewritten"),
        ("DELETE FROM release_ledger WHERE entry = 3", "it was cut or rewritten"),
        ("UPDATE ledger_heads SET statement = replace(statement, '3', '2')", "does not cover this ledger"),
    ],
)
def test_tampering_with_the_ledger_is_shown(
    story: Story, page: Any, database: FreshDatabase, damage: str, says: str
) -> None:
    release = story.release()
    for _ in range(3):
        last = story.enter("stage", release, alias="staging")
    story.sign(last)
    with psycopg.connect(database.url("llmops_owner")) as connection:
        connection.execute(damage)
    assert says in _text(page("/ledger"))


def test_the_reader_of_the_board_needs_no_more_than_the_workers_rights(
    story: Story, environment: Environment
) -> None:
    story.whole()
    assert "llmops_worker" in environment.database_url.get_secret_value()
    assert board_assistants(environment.database_url.get_secret_value()) == ("guide",)


def test_the_receipt_of_an_answer_shows_each_line_and_escapes_everything(
    story: Story, page: Any, client: Any, database: Any
) -> None:
    from llmops.answers import AnswerOutcome, close_answer, open_answer

    assert 'name="answer"' in page("/receipts")
    missing = client.get("/receipts", params={"answer": '"><b>x'})
    assert (missing.status_code, "<b>" in missing.text) == (404, False)
    serving = database.url("llmops_serving")
    hostile = "<script>alert(1)</script>"
    answer = open_answer(serving, assistant="guide", release_id="a" * 64, question=hostile)
    close_answer(serving, answer, AnswerOutcome(hostile))
    shown = page(f"/receipts?answer={answer}")
    assert "<script>" not in shown
    assert hostile in _text(shown)
    assert "5 of 7 lines name a fault" in _text(shown)
    for line in (
        "✓ answer",
        "✓ chunks",
        "✗ release",
        "✗ gate report",
        "✗ approval",
        "✗ production",
        "✗ ledger",
    ):
        assert line in _text(shown)
    assert "no release" in _text(shown)
    assert "not checked: it rests on the line 'approval'" in _text(shown)
