"""Boilerplate and near-duplicates, over all documents of a source."""

from __future__ import annotations

import random
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from llmops.quality import QualityRules, corpus_figures, measure
from llmops.quality._corpus import _FEWEST_DOCUMENTS

BODY = [f"word{n}" for n in range(300)]


def table(texts: dict[str, str | None]) -> pa.Table:
    measured = [None if text is None else measure(text) for text in texts.values()]
    columns: dict[str, Any] = {"document_id": list(texts)}
    for name in ("words", "signature", "lines"):
        columns[name] = [None if m is None else getattr(m, name) for m in measured]
    schema = pa.schema(
        [
            ("document_id", pa.string()),
            ("words", pa.int64()),
            ("signature", pa.binary()),
            ("lines", pa.binary()),
        ]
    )
    return pa.table(columns, schema=schema)


def figures(texts: dict[str, str | None], **rules: Any) -> dict[str, tuple[float, str | None]]:
    found = corpus_figures(table(texts), QualityRules(**rules)).to_pylist()
    return {row["document_id"]: (row["boilerplate_share"], row["near_duplicate_of"]) for row in found}


def shares(texts: dict[str, str | None]) -> list[float]:
    return [share for share, _ in figures(texts).values()]


def duplicates(texts: dict[str, str | None], **rules: Any) -> dict[str, str | None]:
    return {name: other for name, (_, other) in figures(texts, **rules).items()}


def changed(count: int, seed: int = 0) -> str:
    words = list(BODY)
    for n in random.Random(seed).sample(range(300), count):
        words[n] = f"other{seed}x{n}"
    return " ".join(words)


# --- boilerplate


def test_lines_that_many_documents_have_are_boilerplate() -> None:
    texts = {f"d{n}": f"Home | About us\nPage number {n}\nAll rights reserved\n" for n in range(10)}
    texts |= {"own": "Only here\nand nowhere else", "none": ""}
    assert shares(texts) == pytest.approx([2 / 3] * 10 + [0, 0])


def test_a_line_counts_once_it_stands_in_five_documents_and_a_fifth_of_all() -> None:
    def common(documents: int, of: int) -> float:
        texts = {f"d{n:03}": ("Common line\n" if n < documents else "") + f"Line {n}" for n in range(of)}
        return shares(texts)[0]

    assert (common(4, 4), common(4, 10), common(5, 10)) == (0, 0, 0.5)
    assert (common(5, 25), common(5, 26), common(20, 100), common(19, 100)) == (0.5, 0, 0.5, 0)
    assert _FEWEST_DOCUMENTS == 5


def test_a_line_that_one_document_repeats_is_not_boilerplate() -> None:
    assert shares({f"d{n}": f"Again {n}\n" * 50 for n in range(8)}) == [0] * 8


def test_chunks_slices_and_kinds_of_the_column_make_no_difference() -> None:
    whole = table({f"d{n}": f"Common line\nLine {n}\n{'x' * n}" for n in range(30)} | {"new": None})
    parts = pa.concat_tables([whole.slice(0, 7), whole.slice(7, 1), whole.slice(8)])
    expected = corpus_figures(whole, QualityRules())
    assert expected["boilerplate_share"].to_pylist()[3] == 0.5
    for kind in (pa.binary(), pa.large_binary(), pa.binary_view()):
        schema = parts.schema.set(3, pa.field("lines", kind)).set(2, pa.field("signature", kind))
        assert corpus_figures(parts.cast(schema), QualityRules()).equals(expected)
    assert corpus_figures(parts.slice(5), QualityRules()).num_rows == 26


# --- near-duplicates


def test_a_document_with_few_changes_is_a_near_duplicate_of_the_earlier_one() -> None:
    texts = {"b": changed(2), "a": changed(0), "c": changed(100), "d": changed(2)}
    assert duplicates(texts) == {"a": None, "b": "a", "c": None, "d": "a"}


def test_the_threshold_is_the_rules() -> None:
    texts = {"a": changed(0), "b": changed(12)}
    assert duplicates(texts)["b"] is None
    assert duplicates(texts, near_duplicate_threshold=0.5)["b"] == "a"


def test_short_documents_are_none_even_when_they_are_the_same() -> None:
    short, long = " ".join(BODY[:49]), " ".join(BODY[:50])
    assert duplicates({"a": short, "b": short, "c": long, "d": long}) == {
        "a": None,
        "b": None,
        "c": None,
        "d": "c",
    }


def test_one_of_every_group_is_no_duplicate_and_all_others_refer_to_it() -> None:
    step = [" ".join(BODY[n:] + [f"new{m}" for m in range(n)]) for n in range(0, 120, 6)]
    found = duplicates({f"d{n:02}": text for n, text in enumerate(step)})
    kept = {name for name, other in found.items() if other is None}
    assert 1 < len(kept) < len(step)
    assert {other for other in found.values() if other} <= kept


def test_the_order_of_the_documents_makes_no_difference() -> None:
    texts: dict[str, str | None] = {f"d{n:02}": changed(n % 4 * 3, seed=n // 4) for n in range(24)}
    shuffled = list(texts)
    random.Random(1).shuffle(shuffled)
    assert duplicates(texts) == duplicates({name: texts[name] for name in shuffled})


def test_documents_that_have_not_been_measured_are_left_out() -> None:
    found = figures({"a": None, "b": changed(0), "c": changed(0), "d": ""})
    assert found == {"a": (0, None), "b": (0, None), "c": (0, "b"), "d": (0, None)}
    assert figures({}) == {}


def test_pairs_at_the_threshold_are_found_almost_always() -> None:
    generator = np.random.default_rng(7)
    first = generator.integers(0, 2**32, (500, 128), dtype=np.uint32)
    second = first.copy()
    for row in second:
        row[generator.choice(128, 12, replace=False)] += 1  # 116 of 128 places agree: 0.906
    both = np.concatenate([first, second])
    rows = pa.table(
        {
            "document_id": [f"{n:04}" for n in range(1000)],
            "words": [100] * 1000,
            "signature": [row.tobytes() for row in both],
            "lines": [b""] * 1000,
        }
    )
    found = corpus_figures(rows, QualityRules())["near_duplicate_of"].to_pylist()
    assert found[:500] == [None] * 500
    assert sum(found[500 + n] == f"{n:04}" for n in range(500)) >= 497


def test_very_many_documents_that_are_all_alike_take_seconds() -> None:
    generator = np.random.default_rng(3)
    base = generator.integers(0, 2**32, 128, dtype=np.uint32)
    rows = np.repeat(base[np.newaxis], 20_000, axis=0)
    noise = generator.random(rows.shape) < 0.08
    rows[noise] = generator.integers(0, 2**32, int(noise.sum()), dtype=np.uint32)
    documents = pa.table(
        {
            "document_id": [f"{n:05}" for n in range(20_000)],
            "words": [100] * 20_000,
            "signature": [row.tobytes() for row in rows],
            "lines": [b""] * 20_000,
        }
    )
    start = time.process_time()
    corpus_figures(documents, QualityRules())
    assert time.process_time() - start < 10
