"""The steps of ``fine_tune_embedder``."""

from __future__ import annotations

from typing import Any

from llmops.orchestration.context import Run, step

__all__ = ["build_training_set", "register_embedder", "train_embedder"]


@step("llmops.release", "deltalake")
def build_training_set(run: Run) -> dict[str, Any]:
    """Write the pairs of headings and section bodies, without any document of the evaluation set."""
    from llmops.assistant import load_assistant
    from llmops.lakehouse import LakeTable
    from llmops.training import build_pairs, save_pairs

    assistant = load_assistant(run.assistant, run.environment)
    names = {name for case in assistant.cases() for name in case.expected_documents}
    used = {(source, path) for source, _, path in (name.partition(":") for name in names)}
    chunks = LakeTable(run.table_root, "chunks")
    pairs = build_pairs(chunks.read(), exclude_documents=used)
    save_pairs(pairs, run.staging / "pairs.jsonl")
    return {
        "pairs": len(pairs.pairs),
        "digest": pairs.digest,
        "table_version": chunks.version(),
        **pairs.counts,
    }


@step("llmops.release", "sentence_transformers")
def train_embedder(run: Run, base_uri: str | None) -> dict[str, Any]:
    """Fine-tune an embedder, by default the newest base, on the training set."""
    from llmops.assistant import load_assistant
    from llmops.release import registry_of
    from llmops.training import ensure_base_embedder, fine_tune_embedder, load_pairs

    assistant = load_assistant(run.assistant, run.environment)
    registry = registry_of(run.environment, run.assistant)
    base = registry.pin(base_uri) if base_uri else ensure_base_embedder(registry, assistant.base_embedder)
    result = fine_tune_embedder(
        registry.fetch(base),
        load_pairs(run.staging / "pairs.jsonl"),
        assistant.training,
        run.staging / "embedder",
    )
    return {"base": base.uri, "metrics": dict(result.metrics)}


@step("llmops.release", "mlflow")
def register_embedder(run: Run, training_set: dict[str, Any], trained: dict[str, Any]) -> dict[str, Any]:
    """Register what was trained with its lineage: data, base, settings, metrics, author."""
    import shutil

    from llmops.assistant import load_assistant
    from llmops.release import registry_of

    spec = load_assistant(run.assistant, run.environment).training
    pin = registry_of(run.environment, run.assistant).register_model(
        "embedder",
        run.staging / "embedder",
        params={
            **spec.model_dump(mode="json"),
            "dataset_digest": training_set["digest"],
            "base": trained["base"],
        },
        metrics=trained["metrics"],
        tags={
            "trained_by": ",".join(run.authors),
            "dataset_digest": training_set["digest"],
            "chunks_version": str(training_set["table_version"]),
            "base": trained["base"],
        },
    )
    shutil.rmtree(run.staging, ignore_errors=True)
    return {"embedder": pin.uri, "fingerprint": pin.fingerprint}
