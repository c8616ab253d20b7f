"""Embedders made: exported from a packaged model, or fine-tuned on the corpus."""

from llmops.training._base import import_base_embedder
from llmops.training._export import export_embedder

__all__ = ["export_embedder", "import_base_embedder"]
