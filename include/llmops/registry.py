"""The registry."""
from __future__ import annotations
import hashlib
from collections.abc import Mapping
from llmops.manifest import content_hash
__all__ = ["fingerprint"]
_COMPUTES = ("embedder.json", "model.onnx", "tokenizer.json")
def fingerprint(files: Mapping[str, str]) -> str:
    """Return the sha-256."""
    chosen = {name: files[name] for name in _COMPUTES} if set(_COMPUTES) <= set(files) else dict(files)
    return content_hash(chosen)
