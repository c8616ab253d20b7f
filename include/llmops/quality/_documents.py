"""The gate over documents of several sources at once, for callers that have not measured them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmops.quality._check import SourceFigures, SourceVerdict, check_sources, gate_failure, judged_schema
from llmops.quality._corpus import corpus_figures
from llmops.quality._measures import measure
from llmops.quality._rules import QualityRules
from llmops.quality._sensitive import screen

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["check_documents"]


def check_documents(
    rows: pa.Table, quarantined: int, held: int, vanished: int, rules: QualityRules
) -> SourceVerdict:
    """Check documents that are about to be merged, with the column `text`, as if they were one source.

    ``quarantined`` files could not be read; of the ``held`` documents that the same sources had
    before, ``vanished`` would go. Raises QualityGateFailed naming every expectation that failed, and
    on which rows; nothing has been changed then.
    """
    judged = _judged(rows, rules)
    repeated = rows.num_rows - judged["near_duplicate_of"].null_count
    figures = SourceFigures(
        "all", rules, judged, documents=rows.num_rows, held=held, vanished=vanished, quarantined=quarantined,
        near_duplicates=repeated,
    )  # fmt: skip
    (verdict,) = check_sources([figures])
    if error := gate_failure([verdict]):
        raise error
    return verdict


def _judged(rows: pa.Table, rules: QualityRules) -> pa.Table:
    import pyarrow as pa

    named = rows.select(["document_id", "version", "source", "path", "title"]).to_pylist()
    texts = [text or "" for text in rows["text"].to_pylist()]
    measures = [vars(measure(text)) for text in texts]
    measured: list[dict[str, Any]] = [
        {**row, **figures, **screen(text, rules.sensitive).counts}
        for row, figures, text in zip(named, measures, texts, strict=True)
    ]
    schema = pa.schema(
        [
            ("document_id", pa.string()),
            ("words", pa.int64()),
            ("signature", pa.binary()),
            ("lines", pa.binary()),
        ]
    )
    corpus = corpus_figures(pa.Table.from_pylist(measured, schema), rules).drop_columns(["document_id"])
    whole = [{**row, **figures} for row, figures in zip(measured, corpus.to_pylist(), strict=True)]
    return pa.Table.from_pylist(whole, schema=judged_schema())
