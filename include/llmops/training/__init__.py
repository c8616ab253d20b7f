"""Embedders made and registered: a packaged model, one behind an endpoint, or one fine-tuned on the corpus itself."""

from llmops.training._base import ensure_base_embedder, import_base_embedder, packaged_tokenizer
from llmops.training._embedders import (
    DatabricksEmbedder,
    EmbedderChoice,
    OnnxEmbedder,
    OpenAIEmbedder,
    choice_tags,
    newest_embedder,
)
from llmops.training._export import export_embedder
from llmops.training._fine_tune import TrainingResult, TrainingSpec, fine_tune_embedder
from llmops.training._pairs import PairSet, build_pairs, load_pairs, save_pairs

__all__ = [
    "DatabricksEmbedder",
    "EmbedderChoice",
    "OnnxEmbedder",
    "OpenAIEmbedder",
    "PairSet",
    "TrainingResult",
    "TrainingSpec",
    "build_pairs",
    "choice_tags",
    "ensure_base_embedder",
    "export_embedder",
    "fine_tune_embedder",
    "import_base_embedder",
    "load_pairs",
    "newest_embedder",
    "packaged_tokenizer",
    "save_pairs",
]
