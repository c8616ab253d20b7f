"""Training pairs out of the table of chunks."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from llmops.errors import IntegrityError, MissingInput
from llmops.training import build_pairs, load_pairs, save_pairs

BODY = "It opens connections in the background and hands them out to the clients that wait for one."


def row(
    text: str, *, path: str = "psycopg_pool.ConnectionPool", position: int = 0, **changes: Any
) -> dict[str, Any]:
    return {
        "source": "packages",
        "path": path,
        "document_id": f"id of {path}",
        "chunker": "structure",
        "heading_path": json.dumps([path, "open"]),
        "position": position,
        "title": path,
        "text": text,
        **changes,
    }


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows))


def test_heading_and_summary_line_pair_with_the_body() -> None:
    pairs = build_pairs(table(row(f"Open the pool. {BODY}")), exclude_documents=set())
    assert pairs.pairs == (("psycopg_pool.ConnectionPool > open\nOpen the pool.", BODY),)


def test_a_section_of_one_sentence_pairs_with_its_heading() -> None:
    pairs = build_pairs(table(row(f"## open\n\n{BODY}")), exclude_documents=set())
    assert pairs.pairs == (("psycopg_pool.ConnectionPool > open", BODY),)


def test_the_chunks_of_a_section_are_one_pair_in_any_order_of_rows() -> None:
    rows = [row("Open the pool."), row(BODY, position=1), row("Then it waits.", position=2)]
    forwards = build_pairs(table(*rows), exclude_documents=set())
    assert [body for _, body in forwards.pairs] == [f"{BODY}\nThen it waits."]
    assert forwards == build_pairs(table(*rows[::-1]), exclude_documents=set())


def test_code_is_left_out_and_a_section_of_code_alone_gives_no_pair() -> None:
    code = "```python\ndef open(\n    self, wait: bool = False\n) -> None\n```"
    chunks = [row(f"### open\n\n{code}\n\nOpen the pool. {BODY}"), row(f"{code}\n{code}", path="other")]
    pairs = build_pairs(table(*chunks), exclude_documents=set())
    assert pairs.pairs == (("psycopg_pool.ConnectionPool > open\nOpen the pool.", BODY),)
    without_its_opening_fence = row(chunks[0]["text"].replace("```python\n", ""))
    assert build_pairs(table(without_its_opening_fence), exclude_documents=set()).pairs == pairs.pairs


def test_documents_of_the_evaluation_set_are_left_out() -> None:
    rows = [row(f"Open the pool. {BODY}"), row(f"Read a table. {BODY}", path="deltalake.DeltaTable")]
    pairs = build_pairs(table(*rows), exclude_documents={("packages", "psycopg_pool.ConnectionPool")})
    assert [anchor.partition(" ")[0] for anchor, _ in pairs.pairs] == ["deltalake.DeltaTable"]
    assert pairs.counts == {"documents": 1, "excluded_documents": 1}
    with pytest.raises(MissingInput, match="no training pair in 2 chunks"):
        build_pairs(table(*rows), exclude_documents={("packages", r["path"]) for r in rows})


def test_a_document_of_the_same_path_in_another_source_stays() -> None:
    rows = [row(f"Open the pool. {BODY}", source="folder")]
    assert build_pairs(table(*rows), exclude_documents={("packages", rows[0]["path"])}).pairs


def test_the_digest_is_that_of_the_pairs() -> None:
    one = build_pairs(table(row(f"Open the pool. {BODY}")), exclude_documents=set())
    twice = build_pairs(
        table(row(f"Open the pool. {BODY}"), row(f"Open the pool. {BODY}", document_id="copy")),
        exclude_documents=set(),
    )
    other = build_pairs(table(row(f"Close the pool. {BODY}")), exclude_documents=set())
    assert one.digest == twice.digest != other.digest


def test_pairs_survive_their_file(tmp_path: Path) -> None:
    pairs = build_pairs(table(row(f"Öffne\u2028 den Pool. {BODY}")), exclude_documents=set())
    save_pairs(pairs, tmp_path / "new" / "pairs.jsonl")
    assert load_pairs(tmp_path / "new" / "pairs.jsonl") == pairs


def test_a_changed_or_missing_file_of_pairs_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    save_pairs(build_pairs(table(row(f"Open the pool. {BODY}")), exclude_documents=set()), file)
    file.write_text(file.read_text().replace("Open", "Shut"))
    with pytest.raises(IntegrityError, match="differ from their digest"):
        load_pairs(file)
    file.write_text("not JSON")
    with pytest.raises(IntegrityError, match="no training set"):
        load_pairs(file)
    with pytest.raises(MissingInput):
        load_pairs(tmp_path / "nowhere.jsonl")
