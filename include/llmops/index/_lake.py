"""The chunks table as a stream: only the columns that are needed, and some thousand rows in memory at a time."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from llmops.errors import MissingInput, ServiceUnavailable
from llmops.lakehouse import LakeTable

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["changes_per_document", "stream"]

log = logging.getLogger(__name__)

_ROWS = 5000
_KEYS = ("document_id", "chunker")


def stream(
    chunks: LakeTable,
    chunker: str,
    columns: Collection[str] | None = None,
    *,
    version: int | None = None,
    documents: Sequence[str] | None = None,
) -> Iterator[pa.Table]:
    """Yield the chunks of one chunker, of all or some documents, in pieces of at most 5,000 rows.

    ``columns`` that the table lacks are left out. Raises MissingInput without a table, ServiceUnavailable when its
    files cannot be read (any more).
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    if not chunks.exists():
        raise MissingInput(f"there is no chunks table at {chunks.uri}: run ingest_documents first")
    try:
        dataset = DeltaTable(chunks.uri, version=version).to_pyarrow_dataset()
        names = dataset.schema.names
        wanted = names if columns is None else [n for n in names if n in {*columns, *_KEYS}]
        # pyarrow reads ahead by default until most of a table of this size is in memory.
        for batch in dataset.to_batches(wanted, batch_size=_ROWS, batch_readahead=1, fragment_readahead=1):
            rows = _plain(batch)
            chosen = pc.equal(rows["chunker"], chunker)
            if documents is not None:
                chosen = pc.and_(chosen, pc.is_in(rows["document_id"], pa.array(documents, pa.string())))
            yield rows.filter(chosen)
    except (DeltaError, OSError, pa.ArrowException) as error:
        raise ServiceUnavailable(
            f"the table {chunks.uri} cannot be read: {error}. "
            "Check permissions and, for an object store, its credentials; then run this again"
        ) from error


def changes_per_document(chunks: LakeTable, chunker: str, after: int, last: int) -> Counter[str] | None:
    """Count the changes per document from after one version to another; None when the feed does not reach back."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    found: Counter[str] = Counter()
    if not 0 <= after <= last:
        return None
    if after == last:
        return found
    try:
        feed = DeltaTable(chunks.uri).load_cdf(after + 1, last, columns=list(_KEYS))
        for batch in pa.RecordBatchReader.from_stream(feed):
            rows = _plain(batch)
            found.update(rows.filter(pc.equal(rows["chunker"], chunker))["document_id"].to_pylist())
    except (DeltaError, OSError, pa.ArrowException) as error:
        log.warning(
            "The change feed of %s lacks versions %d to %d, comparing as a whole: %s",
            chunks.uri, after + 1, last, error,
        )  # fmt: skip
        return None
    return found


def _plain(batch: pa.RecordBatch) -> pa.Table:
    """Return a batch with string views as strings, which every pyarrow function understands."""
    import pyarrow as pa

    views = {pa.string_view(), pa.large_string()}
    fields = [field.with_type(pa.string()) if field.type in views else field for field in batch.schema]
    return pa.Table.from_batches([batch]).cast(pa.schema(fields))
