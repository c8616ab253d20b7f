"""Models, prompts and releases in MLflow, each pinned by digests and checked before it is used."""

from llmops.registry._client import note, noted
from llmops.registry._pins import file_digests, fingerprint
from llmops.registry._registry import RegisteredModel, Registry

__all__ = ["RegisteredModel", "Registry", "file_digests", "fingerprint", "note", "noted"]
