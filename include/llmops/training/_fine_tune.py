"""Fine-tune an embedder on pairs, with the other pairs of a batch as negatives."""

from __future__ import annotations

import logging
import math
import random
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from llmops.embedding import Embedder
from llmops.errors import ConfigurationError, MissingInput
from llmops.settings import Section
from llmops.training._export import export_embedder
from llmops.training._pairs import PairSet
from llmops.training._quiet import quiet_libraries

__all__ = ["TrainingResult", "TrainingSpec", "fine_tune_embedder"]

log = logging.getLogger(__name__)


class TrainingSpec(Section):
    """How an embedder is fine-tuned; whichever of ``epochs`` and ``max_steps`` is reached first ends it.

    ``max_tokens`` bounds a text while training only; more pairs than ``max_pairs`` are sampled.
    """

    epochs: Annotated[int, Field(ge=1, le=100)] = 1
    max_steps: Annotated[int, Field(ge=1)] = 60
    max_pairs: Annotated[int, Field(ge=2)] = 4000
    batch_size: Annotated[int, Field(ge=2, le=1024)] = 32
    max_tokens: Annotated[int, Field(ge=8)] = 64
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 2e-5
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    seed: int = 7


@dataclass(frozen=True)
class TrainingResult:
    """The folder of the new embedder, and what training measured (losses without unit, seconds)."""

    folder: Path
    metrics: Mapping[str, float]


def fine_tune_embedder(base: Path, pairs: PairSet, spec: TrainingSpec, folder: Path) -> TrainingResult:
    """Train the embedder in ``base`` on ``pairs`` and write the new one to ``folder``.

    The loss is multiple-negatives ranking (Henderson et al., 2017, "Efficient Natural Language Response
    Suggestion for Smart Reply"): every other body of a batch is a wrong answer to a heading, so no batch
    holds a text twice. Nothing is left of a training that fails. Raises MissingInput with fewer than two
    pairs and ConfigurationError when the loss is no longer a number.
    """
    if len(pairs.pairs) < 2:
        raise MissingInput(f"{len(pairs.pairs)} pairs are too few to train on: two are needed at least")
    quiet_libraries()
    known = Embedder.load(base, threads=1)
    if known.description.kind != "onnx":
        raise ConfigurationError(
            f"embedder {known.name!r} is behind an endpoint: only a local one can be trained, name one as base"
        )
    name = f"{known.name}+{pairs.digest[:8]}"
    with tempfile.TemporaryDirectory(prefix="llmops-training-") as scratch:
        started = time.monotonic()
        losses = _train(base, _sample(pairs.pairs, spec), spec, Path(scratch))
        seconds = time.monotonic() - started
        export_embedder(Path(scratch) / "model", folder, name=name)
    tenth = max(1, len(losses) // 10)
    metrics = {
        "loss_first": sum(losses[:tenth]) / tenth,
        "loss_last": sum(losses[-tenth:]) / tenth,
        "loss_mean": sum(losses) / len(losses),
        "pairs": float(min(len(pairs.pairs), spec.max_pairs)),
        "steps": float(len(losses)),
        "seconds": seconds,
    }
    log.info("Trained %s in %d steps and %.0f s: %s", name, len(losses), seconds, folder)
    return TrainingResult(folder, metrics)


def _sample(pairs: Sequence[tuple[str, str]], spec: TrainingSpec) -> list[tuple[str, str]]:
    """Return at most ``max_pairs`` of the pairs, the same ones for the same seed."""
    return random.Random(spec.seed).sample(list(pairs), min(len(pairs), spec.max_pairs))


def _train(base: Path, pairs: Sequence[tuple[str, str]], spec: TrainingSpec, scratch: Path) -> list[float]:
    """Write the trained sentence-transformers model to ``scratch/model`` and return the loss of each step."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers.losses import MultipleNegativesRankingLoss
    from transformers import PrinterCallback, set_seed

    set_seed(spec.seed)
    model = SentenceTransformer(str(base), device="cpu", local_files_only=True, trust_remote_code=False)
    model.max_seq_length = min(spec.max_tokens, int(model.max_seq_length or spec.max_tokens))
    # No model card is written; a widget that is there keeps the trainer from making examples for one.
    model.model_card_data.widget = [{"text": ""}]
    anchors, bodies = zip(*pairs, strict=True)
    trainer = SentenceTransformerTrainer(
        model=model,
        args=_arguments(spec, scratch, len(pairs)),
        train_dataset=Dataset.from_dict({"anchor": list(anchors), "positive": list(bodies)}),
        loss=MultipleNegativesRankingLoss(model),
        callbacks=[_loss_guard()],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    model.save_pretrained(str(scratch / "trained"), create_model_card=False, safe_serialization=True)
    # Everything but the weights stays as it was in the base, its longest input for one.
    shutil.copytree(base, scratch / "model", ignore=shutil.ignore_patterns("model.onnx", "model.safetensors"))
    shutil.move(scratch / "trained" / "model.safetensors", scratch / "model" / "model.safetensors")
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def _arguments(spec: TrainingSpec, scratch: Path, pairs: int) -> Any:
    from sentence_transformers import SentenceTransformerTrainingArguments
    from sentence_transformers.training_args import BatchSamplers

    steps = min(spec.max_steps, spec.epochs * math.ceil(pairs / spec.batch_size))
    return SentenceTransformerTrainingArguments(
        output_dir=str(scratch / "checkpoints"),
        max_steps=steps,
        per_device_train_batch_size=spec.batch_size,
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        learning_rate=spec.learning_rate,
        warmup_steps=math.floor(steps * spec.warmup),
        seed=spec.seed,
        data_seed=spec.seed,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
    )


def _loss_guard() -> Any:
    """Return a callback that ends a training whose loss is no longer a number."""
    from transformers import TrainerCallback

    class LossGuard(TrainerCallback):  # type: ignore[misc]  # transformers is not type-checked
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            loss = (logs or {}).get("loss")
            if loss is not None and not math.isfinite(loss):
                raise ConfigurationError(
                    f"the training diverged: its loss is {loss!r} at step {state.global_step}. "
                    f"Lower training.learning_rate (it is {args.learning_rate!r})"
                )

    return LossGuard()
