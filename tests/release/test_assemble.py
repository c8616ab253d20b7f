"""Who wrote a release: who started it, who trained its embedder, and who changed the code since production."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmops.assistant import load_assistant
from llmops.chain import HybridRetrieval
from llmops.manifest import IndexPin, Manifest
from llmops.release import StoredReport, assemble, read_manifest, registry_of
from llmops.settings import Environment

CODE = "llmops.release._assemble"


@pytest.fixture
def code(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str | None]]:
    """Let Git say the commit and the committers; return the commits since which it is asked."""

    def say(commit: str | None, committers: tuple[str, ...] | None) -> list[str | None]:
        asked: list[str | None] = []

        def since(start: str | None) -> tuple[str, ...] | None:
            asked.append(start)
            return committers

        monkeypatch.setattr(f"{CODE}.commit", lambda: commit)
        monkeypatch.setattr(f"{CODE}.committers", since)
        monkeypatch.setattr(f"{CODE}.is_dirty", lambda: False)
        return asked

    return say


@pytest.fixture
def assembled(environment: Environment, configure: Callable[..., None]) -> Callable[..., Manifest]:
    """Assemble a release of the assistant for those who started it."""

    def make(*authors: str) -> Manifest:
        return assemble(environment, load_assistant("guide", environment), None, authors)

    return make


Assembled = Callable[..., Manifest]
Code = Callable[..., list[str | None]]


def test_before_the_first_release_who_made_the_last_commit_is_an_author(
    assembled: Assembled, code: Code, url: str
) -> None:
    asked = code("1" * 40, ("bert@example.org",))
    manifest = assembled("anna", "", "carl")
    assert asked == [None]
    assert (manifest.commit, manifest.committers) == ("1" * 40, ("bert@example.org",))
    assert manifest.authors == ("anna", "bert@example.org", "carl")
    assert read_manifest(url, manifest.release_id) == manifest


@pytest.mark.parametrize("committers", [None, ()], ids=["nobody can tell", "nobody committed"])
def test_a_release_without_any_author_is_assembled_and_keeps_whether_anybody_could_tell(
    assembled: Assembled, code: Code, committers: tuple[str, ...] | None
) -> None:
    code(None, committers)
    manifest = assembled()
    assert (manifest.commit, manifest.committers, manifest.authors) == (None, committers, ())


@pytest.fixture
def production(code: Code, request: pytest.FixtureRequest) -> StoredReport:
    """A release in production whose commit is 1111… and whose committer was Bert."""
    code("1" * 40, ("bert@example.org",))
    promoted: StoredReport = request.getfixturevalue("promoted")
    return promoted


def test_after_a_release_everybody_who_committed_since_is_an_author(
    production: StoredReport, assembled: Assembled, code: Code
) -> None:
    asked = code("2" * 40, ("carl@example.org",))
    manifest = assembled("anna")
    assert asked == ["1" * 40]
    assert (manifest.committers, manifest.authors) == (("carl@example.org",), ("anna", "carl@example.org"))


def test_the_same_code_keeps_its_committers_however_often_it_is_released(
    production: StoredReport, assembled: Assembled, code: Code, configure: Any
) -> None:
    asked = code("1" * 40, ())
    configure(prompt="Answer at length.")
    manifest = assembled("anna")
    assert asked == []
    assert manifest.release_id != production.release_id
    assert (manifest.committers, manifest.authors) == (("bert@example.org",), ("anna", "bert@example.org"))


def test_a_production_release_of_an_unknown_commit_is_nothing_to_compare_with(
    request: pytest.FixtureRequest, assembled: Assembled, code: Code
) -> None:
    code(None, ("bert@example.org",))
    request.getfixturevalue("promoted")
    asked = code(None, ("carl@example.org",))
    assert assembled().committers == ("carl@example.org",)
    assert asked == [None]


def test_who_trained_the_pinned_embedder_is_an_author_and_who_trained_another_is_not(
    environment: Environment, configure: Callable[..., None], code: Code, tmp_path: Path, monkeypatch: Any
) -> None:
    code("1" * 40, ())
    registry = registry_of(environment, "guide")
    pins = []
    for number, names in enumerate(("dora,emil", "fred")):
        folder = tmp_path / f"model-{number}"
        folder.mkdir()
        (folder / "model.onnx").write_text(names)
        tags = {"trained_by": names}
        pins.append(registry.register_model("embedder", folder, params={}, metrics={}, tags=tags))
    index = IndexPin(generation="g", chunker={"digest": "d"})
    monkeypatch.setattr(f"{CODE}._index", lambda *_: index)  # would load the embedder
    retrieving = load_assistant("guide", environment).model_copy(update={"retrieval": HybridRetrieval()})
    first = assemble(environment, retrieving, pins[0].uri, ["anna"])
    newest = assemble(environment, retrieving, None, ["anna"])
    assert (first.embedder, first.authors) == (pins[0], ("anna", "dora", "emil"))
    assert (newest.embedder, newest.authors) == (pins[1], ("anna", "fred"))
