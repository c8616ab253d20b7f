"""Texts to vectors: embedders that run here or behind an endpoint, their fingerprint, and the cache of vectors."""

from llmops.embedding._cache import CachedVectors, embed_cached, without_vector
from llmops.embedding._embedder import Embedder
from llmops.embedding._memory import RememberingEmbedder
from llmops.embedding._meter import EmbeddingUsage, Meter
from llmops.embedding._onnx import OnnxDescription
from llmops.embedding._remote import DatabricksPlace, OpenAIPlace, RemotePlace, save_remote

__all__ = [
    "CachedVectors",
    "DatabricksPlace",
    "Embedder",
    "EmbeddingUsage",
    "Meter",
    "OnnxDescription",
    "OpenAIPlace",
    "RememberingEmbedder",
    "RemotePlace",
    "embed_cached",
    "save_remote",
    "without_vector",
]
