"""The steps of ``fine_tune_embedder``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException

from llmops.errors import MissingInput
from llmops.orchestration.context import Run, step

__all__ = ["build_training_set", "register_embedder", "train_embedder"]

_LINEAGE = ("dataset_digest", "base", "training_digest")


@step("llmops.release", "mlflow", "deltalake")
def build_training_set(run: Run) -> dict[str, Any]:
    """Write the pairs of headings and section bodies, without any document of the evaluation set.

    Where no document is left there is nothing to learn, and a model behind an endpoint cannot be trained here: the
    run is skipped.

    ``known`` is the embedder that was already trained on exactly this: same pairs, base and settings.
    """
    from llmops.assistant import load_assistant
    from llmops.lakehouse import LakeTable
    from llmops.manifest import content_hash
    from llmops.release import evaluation_cases, own_chunks, registry_of
    from llmops.training import build_pairs, save_pairs

    assistant = load_assistant(run.assistant, run.environment)
    registry = registry_of(run.environment, run.assistant)
    wanted = run.params.get("base")
    if not wanted and assistant.embedder.kind != "onnx":
        raise AirflowSkipException(
            f"the embedder of {run.assistant!r} is of kind {assistant.embedder.kind!r}: only a local one can be trained"
        )
    base = registry.pin(wanted) if wanted else assistant.embedder.ensure(registry, run.environment.endpoints)
    cases = evaluation_cases(run.environment, assistant)
    names = {name for case in cases for name in case.expected_documents}
    used = {(source, path) for source, _, path in (name.partition(":") for name in names)}
    try:
        pairs = build_pairs(own_chunks(run.environment, assistant), exclude_documents=used)
    except MissingInput as error:
        raise AirflowSkipException(f"nothing to train on apart from the evaluation set: {error}") from error
    save_pairs(pairs, run.staging / "pairs.jsonl")
    lineage = {
        "dataset_digest": pairs.digest,
        "base": base.uri,
        "training_digest": content_hash(assistant.training.model_dump(mode="json")),
    }
    known = registry.latest("embedder", **lineage)
    return {
        **lineage,
        "pairs": len(pairs.pairs),
        "chunks_version": LakeTable(run.table_root, "chunks").version(),
        "known": known.uri if known else None,
    }


def train_embedder(run: Run, training_set: Mapping[str, Any]) -> dict[str, Any]:
    """Fine-tune the base on the training set, unless that was done before: then torch is not even loaded."""
    if training_set["known"]:
        return {"trained": False, "metrics": {}}
    return _train_embedder(run, str(training_set["base"]))


@step("llmops.release", "sentence_transformers")
def _train_embedder(run: Run, base: str) -> dict[str, Any]:
    from llmops.assistant import load_assistant
    from llmops.release import registry_of
    from llmops.training import fine_tune_embedder, load_pairs

    registry = registry_of(run.environment, run.assistant)
    result = fine_tune_embedder(
        registry.fetch(registry.pin(base)),
        load_pairs(run.staging / "pairs.jsonl"),
        load_assistant(run.assistant, run.environment).training,
        run.staging / "embedder",
    )
    return {"trained": True, "metrics": dict(result.metrics)}


@step("llmops.release", "mlflow")
def register_embedder(
    run: Run, training_set: Mapping[str, Any], trained: Mapping[str, Any]
) -> dict[str, Any]:
    """Register what was trained with its lineage: data, base, settings, metrics, author."""
    from llmops.assistant import load_assistant
    from llmops.release import registry_of
    from llmops.training import choice_tags

    registry = registry_of(run.environment, run.assistant)
    if trained["trained"]:
        settings = load_assistant(run.assistant, run.environment).training.model_dump(mode="json")
        lineage = {key: str(training_set[key]) for key in (*_LINEAGE, "chunks_version")}
        pin = registry.register_model(
            "embedder",
            run.staging / "embedder",
            params={**settings, **lineage},
            metrics=trained["metrics"],
            tags={**choice_tags(registry, lineage["base"]), **lineage, "trained_by": ",".join(run.authors)},
        )
    else:
        pin = registry.pin(training_set["known"])
    shutil.rmtree(run.staging, ignore_errors=True)
    return {"embedder": pin.uri, "fingerprint": pin.fingerprint}
