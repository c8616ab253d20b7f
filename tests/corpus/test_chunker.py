"""Chunks: exact offsets, bounded by the tokenizer, ids that do not shift."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from llmops.corpus import Chunk, Chunker, DirectorySource, PackagesSource, chunk_id_of, read_sources
from llmops.corpus._staging import Staged
from llmops.errors import ConfigurationError, MissingInput

DATA = Path(os.environ.get("LLMOPS_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def document(text: str, title: str = "Title", media_type: str = "text/markdown") -> dict[str, Any]:
    return {"document_id": "d", "title": title, "text": text, "media_type": media_type}


def chunks_of(text: str, tokenizer_file: Path, chunker: Chunker | None = None, **options: Any) -> list[Chunk]:
    return (chunker or Chunker()).start(tokenizer_file).split([document(text, **options)])[0]


def test_a_chunk_never_crosses_a_heading_and_keeps_the_path_of_headings(tokenizer_file: Path) -> None:
    text = "Before.\n\n# A\n\nIn A.\n\n## B\n\nIn B.\n\n# C\n\nIn C.\n"
    found = [(c.heading_path, c.text) for c in chunks_of(text, tokenizer_file)]
    assert found == [((), "Before."), (("A",), "In A."), (("A", "B"), "In B."), (("C",), "In C.")]


def test_a_comment_in_a_code_block_is_no_heading(tokenizer_file: Path) -> None:
    text = "# Real\n\n```sh\n# not a heading\nrun\n```\n\n~~~\n## nor this\n~~~\n\n    # nor indented code\n"
    assert {c.heading_path for c in chunks_of(text, tokenizer_file)} == {("Real",)}


def test_underlined_headings_count_but_rules_tables_and_lists_do_not(tokenizer_file: Path) -> None:
    text = "Title\n=====\n\none\n\nPart\n----\n\ntwo\n\n---\n\nthree\n\n- item\n---\n\n| a | b |\n---\n"
    paths = {c.heading_path for c in chunks_of(text, tokenizer_file)}
    assert paths == {("Title",), ("Title", "Part")}


def test_plain_text_has_no_headings(tokenizer_file: Path) -> None:
    assert (
        chunks_of("# just a hash\n\ntext", tokenizer_file, media_type="text/plain")[0].text
        == "# just a hash\n\ntext"
    )


def test_offsets_count_characters_not_bytes(tokenizer_file: Path) -> None:
    text = "# Überschrift 😀\n\n" + "\n\n".join(f"Zeile {n}: größer als 😀 und €." for n in range(80))
    chunks = chunks_of(text, tokenizer_file)
    assert len(chunks) > 3
    assert all(text[c.char_start : c.char_end] == c.text for c in chunks)
    assert "".join(text.split()) == "".join(("# Überschrift 😀" + "".join(c.text for c in chunks)).split())


def test_the_bound_counts_all_that_is_embedded(tokenizer_file: Path) -> None:
    run = Chunker(max_tokens=48).start(tokenizer_file)
    long_heading = "A heading that is longer than what one chunk can hold " * 3
    text = f"# {long_heading}\n\n" + "Some words that go on and on, with numbers like 12345. " * 60
    chunks = run.split([document(text, title="A long title of the document " * 5)])[0]
    assert len(chunks) > 10
    for chunk in chunks:
        assert chunk.token_count == len(run._tokenizer.encode(chunk.embed_text).ids) <= 48
        assert chunk.embed_text.endswith("\n" + chunk.text)


def test_what_is_embedded_begins_with_title_and_headings_said_once(tokenizer_file: Path) -> None:
    text = "# pool.Pool\n\nA pool.\n\n## pool.Pool.open\n\nOpens it.\n\n## Notes\n\nBe careful.\n"
    lines = [c.embed_text.split("\n")[0] for c in chunks_of(text, tokenizer_file, title="pool.Pool")]
    assert lines == ["pool.Pool", "pool.Pool.open", "pool.Pool > Notes"]


def test_ids_do_not_shift_when_text_is_inserted_above(tokenizer_file: Path) -> None:
    tail = (
        "# Part\n\n"
        + "\n\n".join(f"Paragraph {n} of the part." for n in range(60))
        + "\n\n# Part\n\nAgain.\n"
    )
    before = chunks_of(tail, tokenizer_file)
    after = chunks_of("# New\n\nSomething new.\n\n" + tail, tokenizer_file)
    assert [c.chunk_id for c in after[1:]] == [c.chunk_id for c in before]
    assert len({c.chunk_id for c in after}) == len(after)


def test_equal_texts_in_equal_sections_have_different_ids(tokenizer_file: Path) -> None:
    chunks = chunks_of("# A\n\nSame.\n\n# A\n\nSame.\n\n# B\n\nSame.\n", tokenizer_file)
    assert len({c.chunk_id for c in chunks}) == 3


def test_a_document_of_headings_only_is_one_chunk(tokenizer_file: Path) -> None:
    assert [c.text for c in chunks_of("# Only\n\n## Headings\n", tokenizer_file)] == ["# Only\n\n## Headings"]


def test_neighbours_share_text_when_they_should(tokenizer_file: Path) -> None:
    text = " ".join(f"Sentence {n} is here." for n in range(120))
    apart = chunks_of(text, tokenizer_file, Chunker(max_tokens=64))
    shared = chunks_of(text, tokenizer_file, Chunker(max_tokens=64, overlap=16))
    assert all(a.char_end <= b.char_start for a, b in pairwise(apart))
    assert any(a.char_end > b.char_start for a, b in pairwise(shared))
    assert all(c.token_count <= 64 for c in shared)


def test_the_digest_depends_on_settings_and_on_what_decides_tokens(
    tokenizer_file: Path, tmp_path: Path
) -> None:
    digest = Chunker().digest(tokenizer_file)
    assert digest == Chunker().digest(tokenizer_file)
    assert digest != Chunker(max_tokens=199).digest(tokenizer_file)
    other = tmp_path / "tokenizer.json"
    other.write_text(tokenizer_file.read_text().replace('"max_length":128', '"max_length":256', 1))
    assert other.read_text() != tokenizer_file.read_text()
    assert Chunker().digest(other) == digest
    other.write_text(tokenizer_file.read_text().replace('"lowercase":true', '"lowercase":false', 1))
    assert Chunker().digest(other) != digest


def test_a_missing_or_damaged_tokenizer_and_wrong_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="import the embedder first"):
        Chunker().digest(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ConfigurationError, match="is not a tokenizer file"):
        Chunker().digest(tmp_path / "bad.json")
    with pytest.raises(ValidationError, match="quarter of max_tokens, 25"):
        Chunker(max_tokens=100, overlap=26)


@pytest.mark.parametrize("corpus_name", ["packages", "golang"])
def test_chunks_of_a_real_corpus_have_exact_offsets_within_the_bound(
    corpus_name: str, tokenizer_file: Path, tmp_path: Path
) -> None:
    source: Any = PackagesSource(
        kind="packages", name="s", packages=["psycopg_pool", "deltalake", "pgvector"]
    )
    if corpus_name == "golang":
        folder = DATA / "docs_golang" / "2026-08-22"
        if not folder.is_dir():
            pytest.skip(f"there is no {folder}: set LLMOPS_TEST_DATA")
        source = DirectorySource(kind="directory", name="s", path=str(folder), include=["**/doc/*"])
    staging = tmp_path / "staging"
    read_sources(
        [source], as_of=datetime(2024, 1, 1, tzinfo=UTC), staging=staging, table_root=str(tmp_path / "tables")
    )
    documents = [row for piece in Staged.load(staging).documents() for row in piece.to_pylist()]
    split = Chunker().start(tokenizer_file).split(documents)
    assert len(documents) > 25
    for row, chunks in zip(documents, split, strict=True):
        assert chunks, row["path"]
        assert [c.position for c in chunks] == list(range(len(chunks)))
        for chunk in chunks:
            assert row["text"][chunk.char_start : chunk.char_end] == chunk.text
            assert chunk.text.strip()
            assert chunk.token_count <= 200
    ids = [chunk.chunk_id for chunks in split for chunk in chunks]
    assert len(set(ids)) == len(ids)


def test_an_id_can_be_computed_anew_from_what_a_chunk_holds(tokenizer_file: Path) -> None:
    text = "# One\n\nThe same line.\n\n# Two\n\nThe same line.\n\n# Two\n\nThe same line.\n"
    run = Chunker().start(tokenizer_file)
    (chunks,) = run.split([document(text)])
    assert len(chunks) == 3
    seen: list[str] = []
    for chunk in chunks:
        ids = [
            chunk_id_of(run.digest, document(text)["document_id"], chunk.heading_path, chunk.text, place)
            for place in range(2)
        ]
        assert chunk.chunk_id in ids
        seen.append(chunk.chunk_id)
    assert len(set(seen)) == 3
