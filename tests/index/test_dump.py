from __future__ import annotations

import json

import numpy as np
import pytest

from index.conftest import Index
from llmops.errors import MissingInput
from llmops.index import dump, vector_signature


def test_the_dump_holds_the_content_sorted_and_nothing_of_the_run(index: Index) -> None:
    index.write({"b.md": "Apples.\n\nPears.", "A.md": "Plums."}, metadata={"tenant": "a"}, access=["staff"])
    lines = [json.loads(line) for line in dump(index.url, index.id)]

    assert [line["chunk_id"] for line in lines] == sorted(line["chunk_id"] for line in lines)
    assert {line["text"] for line in lines} == {"Apples.", "Pears.", "Plums."}
    assert {line["path"] for line in lines} == {"A.md", "b.md"}
    assert set(lines[0]) == {
        "chunk_id", "document_id", "document_version", "source", "path", "title", "heading_path", "position",
        "char_start", "char_end", "text", "metadata", "access", "embedded", "vector",
    }  # fmt: skip
    assert lines[0]["metadata"] == {"tenant": "a"}
    assert lines[0]["access"] == ["staff"]
    assert len({line["vector"] for line in lines}) == 3


def test_the_dump_of_an_unknown_generation_is_an_error(index: Index) -> None:
    with pytest.raises(MissingInput):
        list(dump(index.url, "nothing_here"))


def test_signatures_ignore_the_seventh_digit_and_tell_texts_apart() -> None:
    chance = np.random.default_rng(7)
    vectors = chance.standard_normal((500, 384))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    noise = chance.uniform(-1e-7, 1e-7, vectors.shape)
    same = sum(vector_signature(v) == vector_signature(v + n) for v, n in zip(vectors, noise, strict=True))
    assert same >= 499
    assert len({vector_signature(vector) for vector in vectors}) == 500


def test_signatures_are_the_same_on_every_machine() -> None:
    numbers = [1.0, -0.5, 0.25, 0.125]
    assert vector_signature(numbers) == vector_signature(np.array(numbers, "f4"))
    assert vector_signature(np.eye(384)[0]) == "8c8acd8534ab3b2d"
