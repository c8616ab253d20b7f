"""Fine-tuning on a handful of pairs, and the export of what came out."""

import json
from pathlib import Path

import numpy as np
import pytest

from llmops.embedding import Embedder
from llmops.errors import ConfigurationError, MissingInput
from llmops.manifest import content_hash
from llmops.training import PairSet, TrainingResult, TrainingSpec, fine_tune_embedder

SUBJECTS = (
    "pool",
    "cursor",
    "table",
    "index",
    "vector",
    "schedule",
    "asset",
    "backfill",
    "approval",
    "release",
)
PAIRS = tuple(
    (f"What is a {name}?", f"The {name} is described here, in a section about the {name}.")
    for name in SUBJECTS
)
SPEC = TrainingSpec(max_steps=4, batch_size=4, max_tokens=32, learning_rate=1e-4, epochs=4)


def pair_set(pairs: tuple[tuple[str, str], ...] = PAIRS) -> PairSet:
    return PairSet(pairs, content_hash(pairs), {})


@pytest.fixture(scope="module")
def trained(base_embedder: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return fine_tune_embedder(
        base_embedder, pair_set(), SPEC, tmp_path_factory.mktemp("trained") / "embedder"
    )


def test_training_gives_another_embedder_of_the_same_form(
    trained: TrainingResult, base_embedder: Path
) -> None:
    before, after = Embedder.load(base_embedder), Embedder.load(trained.folder)
    assert after.fingerprint != before.fingerprint
    assert (after.dimension, after.max_tokens) == (before.dimension, before.max_tokens)
    assert after.name == f"all-MiniLM-L6-v2+{pair_set().digest[:8]}"
    assert not np.allclose(before.embed(["a pool"]), after.embed(["a pool"]), atol=1e-4)


def test_the_trained_vectors_equal_those_of_sentence_transformers(trained: TrainingResult) -> None:
    from sentence_transformers import SentenceTransformer

    texts = ["", "What is a pool?", "Größe 日本語 🙂", "a long section about tables " * 80]
    model = SentenceTransformer(str(trained.folder), device="cpu", local_files_only=True)
    expected = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    assert (Embedder.load(trained.folder).embed(texts) * expected).sum(axis=1).min() >= 0.9999


def test_the_loss_falls_and_is_measured(trained: TrainingResult) -> None:
    assert trained.metrics["steps"] == 4
    assert trained.metrics["pairs"] == len(PAIRS)
    assert 0 < trained.metrics["loss_mean"] < 10


def test_nothing_but_the_embedder_is_left(trained: TrainingResult, base_embedder: Path) -> None:
    assert [path.name for path in trained.folder.parent.iterdir()] == [trained.folder.name]
    files = {path.relative_to(trained.folder) for path in trained.folder.rglob("*")}
    assert files == {path.relative_to(base_embedder) for path in base_embedder.rglob("*")}
    assert not [name for name in files if name.suffix in (".bin", ".pt", ".pkl", ".py")]
    source = json.loads((trained.folder / "embedder.json").read_text())["source_digest"]
    assert source != json.loads((base_embedder / "embedder.json").read_text())["source_digest"]


def test_the_same_seed_gives_the_same_embedder(
    trained: TrainingResult, base_embedder: Path, tmp_path: Path
) -> None:
    again = fine_tune_embedder(base_embedder, pair_set(), SPEC, tmp_path / "embedder")
    assert Embedder.load(again.folder).fingerprint == Embedder.load(trained.folder).fingerprint


def test_a_loss_that_is_no_number_ends_the_training(base_embedder: Path, tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"learning_rate": 1e30, "warmup": 0.0})
    with pytest.raises(ConfigurationError, match=r"diverged.*learning_rate"):
        fine_tune_embedder(base_embedder, pair_set(), spec, tmp_path / "embedder")
    assert list(tmp_path.iterdir()) == []


def test_one_pair_is_too_few(base_embedder: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="1 pairs"):
        fine_tune_embedder(base_embedder, pair_set(PAIRS[:1]), SPEC, tmp_path / "embedder")
