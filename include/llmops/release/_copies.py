"""Copies of the ledger's signed heads outside its database: in MLflow and in Delta.

They tell what was signed as long as whoever changes the database does not also change these two. On a laptop and in
the compose file MLflow's own database lies in the same Postgres server.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from llmops.errors import LlmopsError
from llmops.lakehouse import LakeTable
from llmops.registry import note, noted
from llmops.release._ledger import SignedHead, dump_head, parse_head, signed_heads
from llmops.settings import Environment

log = logging.getLogger(__name__)

_TABLE = "ledger_heads"
_TAG = "ledger_head"


@dataclass(frozen=True)
class MlflowCopies:
    """The newest head as a tag in MLflow; ``keep`` replaces the one before."""

    environment: Environment

    def keep(self, head: SignedHead) -> None:
        """Copy a head into MLflow; raise ServiceUnavailable when MLflow does not answer."""
        note(self.environment.mlflow_url, _experiment(self.environment), _TAG, dump_head(head))

    def kept(self) -> Sequence[SignedHead]:
        """Return the head that MLflow has; raise ServiceUnavailable when MLflow does not answer."""
        return [parse_head(text) for text in _from_mlflow(self.environment)]


def keep_in_delta(environment: Environment) -> int:
    """Copy all heads that the Delta table does not have yet; return how many those were."""
    import pyarrow as pa

    url = environment.database_url.get_secret_value()
    texts = [dump_head(head) for head in signed_heads(url)]
    if not texts:
        return 0
    # Keyed by content: what a manipulated database holds never replaces a copy, it only lies beside it.
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    rows = pa.table(
        {"digest": pa.array(digests, pa.large_string()), "head": pa.array(texts, pa.large_string())}
    )
    return _table(environment).merge(rows, key="digest", database_url=url).written


def kept_heads(environment: Environment) -> list[SignedHead]:
    """Return every copy that there is: in the database, in MLflow and in Delta.

    A place that cannot be read is logged and left out; it is evidence of nothing.
    """
    found = list(signed_heads(environment.database_url.get_secret_value()))
    for place, texts in (("MLflow", _from_mlflow), ("Delta", _from_delta)):
        try:
            found += [parse_head(text) for text in texts(environment)]
        except LlmopsError as error:
            log.warning("The ledger's heads in %s cannot be read: %s", place, error)
    return found


def _from_mlflow(environment: Environment) -> list[str]:
    text = noted(environment.mlflow_url, _experiment(environment), _TAG)
    return [text] if text else []


def _from_delta(environment: Environment) -> list[str]:
    table = _table(environment)
    return [str(text) for text in table.read()["head"].to_pylist()] if table.exists() else []


def _table(environment: Environment) -> LakeTable:
    return LakeTable(f"{environment.storage_root.rstrip('/')}/{environment.catalog}/_ledger", _TABLE)


def _experiment(environment: Environment) -> str:
    return f"{environment.catalog}.ledger"
