"""Releases: assemble, evaluate, gate, ask, promote, roll back, load."""

from llmops.release._approval import (
    Approval,
    ApprovalRequest,
    RunReference,
    approval_of,
    open_approval,
    request_of_run,
    request_text,
    require_approval,
)
from llmops.release._assemble import (
    assemble,
    ensure_generation,
    evaluation_cases,
    own_chunks,
    registry_of,
)
from llmops.release._code import code_digest
from llmops.release._evaluation import decide_release, evaluate_release
from llmops.release._generations import (
    chunkers_in_use,
    load_embedder,
    standing,
    sync_generation,
    sync_generations,
)
from llmops.release._loading import (
    LoadedRelease,
    build_chain,
    load_release,
    production_release,
    report_replica,
)
from llmops.release._notary import AirflowReader, Notary
from llmops.release._promotion import confirm, promote, roll_back, stage
from llmops.release._store import (
    LedgerEntry,
    ReleaseSummary,
    StoredReport,
    find_release,
    ledger,
    list_releases,
    read_manifest,
    read_report,
)

__all__ = [
    "AirflowReader",
    "Approval",
    "ApprovalRequest",
    "LedgerEntry",
    "LoadedRelease",
    "Notary",
    "ReleaseSummary",
    "RunReference",
    "StoredReport",
    "approval_of",
    "assemble",
    "build_chain",
    "chunkers_in_use",
    "code_digest",
    "confirm",
    "decide_release",
    "ensure_generation",
    "evaluate_release",
    "evaluation_cases",
    "find_release",
    "ledger",
    "list_releases",
    "load_embedder",
    "load_release",
    "open_approval",
    "own_chunks",
    "production_release",
    "promote",
    "read_manifest",
    "read_report",
    "registry_of",
    "report_replica",
    "request_of_run",
    "request_text",
    "require_approval",
    "roll_back",
    "stage",
    "standing",
    "sync_generation",
    "sync_generations",
]
