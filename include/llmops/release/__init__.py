"""Releases: assemble, evaluate, gate, ask, promote, roll back, load."""

from llmops.release._airflow import AirflowReader
from llmops.release._approval import (
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
from llmops.release._attempts import Attempt, chosen_options, record_attempt
from llmops.release._code import code_digest
from llmops.release._confirm import confirm
from llmops.release._copies import keep_in_delta, keep_in_mlflow, kept_heads
from llmops.release._difference import Difference, differences
from llmops.release._evaluation import decide_release, evaluate_release, power_in_production
from llmops.release._gate_texts import (
    GateText,
    ReportedCase,
    ReportedOutput,
    erase_gate_text,
    find_report,
    production_report,
    read_gate_texts,
    report_cases,
)
from llmops.release._generations import (
    chunkers_in_use,
    load_embedder,
    standing,
    sync_generation,
    sync_generations,
)
from llmops.release._keys import check_key_is_private, make_notary_key
from llmops.release._ledger import Alias, LedgerCheck, LedgerEntry, check_ledger, current_release, ledger
from llmops.release._loading import (
    LoadedRelease,
    alias_doubt,
    build_chain,
    load_release,
    production_release,
    report_replica,
)
from llmops.release._notary import Notary
from llmops.release._promotion import promote, revoke, roll_back, stage
from llmops.release._receipt import Check, Receipt, receipt
from llmops.release._statement import Actor, Approval, notary_keys, owner_of_key, sign_release
from llmops.release._store import (
    ReleaseSummary,
    StoredReport,
    find_release,
    list_releases,
    read_manifest,
    read_report,
)

__all__ = [
    "Actor",
    "AirflowReader",
    "Alias",
    "Approval",
    "ApprovalRequest",
    "Attempt",
    "Check",
    "Difference",
    "GateText",
    "LedgerCheck",
    "LedgerEntry",
    "LoadedRelease",
    "Notary",
    "Receipt",
    "ReleaseSummary",
    "ReportedCase",
    "ReportedOutput",
    "RunReference",
    "StoredReport",
    "alias_doubt",
    "approval_of",
    "assemble",
    "build_chain",
    "check_key_is_private",
    "check_ledger",
    "chosen_options",
    "chunkers_in_use",
    "code_digest",
    "confirm",
    "current_release",
    "decide_release",
    "differences",
    "ensure_generation",
    "erase_gate_text",
    "evaluate_release",
    "evaluation_cases",
    "find_release",
    "find_report",
    "keep_in_delta",
    "keep_in_mlflow",
    "kept_heads",
    "ledger",
    "list_releases",
    "load_embedder",
    "load_release",
    "make_notary_key",
    "notary_keys",
    "open_approval",
    "own_chunks",
    "owner_of_key",
    "power_in_production",
    "production_release",
    "production_report",
    "promote",
    "read_gate_texts",
    "read_manifest",
    "read_report",
    "receipt",
    "record_attempt",
    "registry_of",
    "report_cases",
    "report_replica",
    "request_of_run",
    "request_text",
    "require_approval",
    "revoke",
    "roll_back",
    "sign_release",
    "stage",
    "standing",
    "sync_generation",
    "sync_generations",
]
