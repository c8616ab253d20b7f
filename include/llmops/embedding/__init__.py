"""Texts to vectors: embedders on ONNX Runtime, their fingerprint, and the cache of vectors."""

from llmops.embedding._cache import CachedVectors, embed_cached, without_vector
from llmops.embedding._embedder import Embedder
from llmops.embedding._folder import EmbedderDescription
from llmops.embedding._memory import RememberingEmbedder

__all__ = [
    "CachedVectors",
    "Embedder",
    "EmbedderDescription",
    "RememberingEmbedder",
    "embed_cached",
    "without_vector",
]
