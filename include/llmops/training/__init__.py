"""Embedders made: exported from a packaged model, or fine-tuned on the corpus itself."""

from llmops.training._base import ensure_base_embedder, import_base_embedder
from llmops.training._export import export_embedder
from llmops.training._fine_tune import TrainingResult, TrainingSpec, fine_tune_embedder
from llmops.training._pairs import PairSet, build_pairs, load_pairs, save_pairs

__all__ = [
    "PairSet",
    "TrainingResult",
    "TrainingSpec",
    "build_pairs",
    "ensure_base_embedder",
    "export_embedder",
    "fine_tune_embedder",
    "import_base_embedder",
    "load_pairs",
    "save_pairs",
]
