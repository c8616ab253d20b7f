"""Which embedder an assistant uses, and registering it: a packaged model, or one behind an endpoint."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from llmops.embedding import DatabricksPlace, OpenAIPlace, RemotePlace, save_remote
from llmops.manifest import ArtifactPin, content_hash
from llmops.registry import Registry
from llmops.settings import EndpointAccess, Section
from llmops.training._base import ensure_base_embedder, packaged_tokenizer

__all__ = [
    "DatabricksEmbedder",
    "EmbedderChoice",
    "OnnxEmbedder",
    "OpenAIEmbedder",
    "choice_tags",
    "newest_embedder",
]

_CONFIGURED = "configured"


class OnnxEmbedder(Section):
    """A model of an installed package, run here on ONNX Runtime; ``base`` is its name. It can be fine-tuned."""

    kind: Literal["onnx"] = "onnx"
    base: str = "all-MiniLM-L6-v2"

    @property
    def identity(self) -> str:
        """Return the sha-256 of what decides the vectors."""
        return _identity(self)

    def ensure(self, registry: Registry, endpoints: Mapping[str, EndpointAccess]) -> ArtifactPin:
        """Return the pin of the model, imported and registered now unless it was."""
        return ensure_base_embedder(registry, self.base, tags={_CONFIGURED: self.identity})

    def register(self, registry: Registry, endpoints: Mapping[str, EndpointAccess]) -> ArtifactPin:
        """Do as ``ensure``: a packaged model does not change."""
        return self.ensure(registry, endpoints)


class _RemoteEmbedder(RemotePlace):
    """Registers the description of an endpoint; no file of it holds a key."""

    @property
    def identity(self) -> str:
        """Return the sha-256 of what decides the vectors; the address is part of it."""
        return content_hash([_identity(self), str(self.target().url)])

    def ensure(self, registry: Registry, endpoints: Mapping[str, EndpointAccess]) -> ArtifactPin:
        """Return the pin of the description, asked for and registered now unless it was."""
        return registry.latest("embedder", **{_CONFIGURED: self.identity}) or self.register(
            registry, endpoints
        )

    def register(self, registry: Registry, endpoints: Mapping[str, EndpointAccess]) -> ArtifactPin:
        """Ask the endpoint what it computes now, and register that."""
        target = self.target()
        with tempfile.TemporaryDirectory() as scratch:
            folder = save_remote(self, Path(scratch) / "embedder", packaged_tokenizer(), endpoints)
            return registry.register_model(
                "embedder",
                folder,
                params=self.model_dump(mode="json"),
                metrics={},
                tags={"base_model": f"{target.model} at {target.host}", _CONFIGURED: self.identity},
            )


class OpenAIEmbedder(OpenAIPlace, _RemoteEmbedder):
    __doc__ = OpenAIPlace.__doc__

    kind: Literal["openai"]


class DatabricksEmbedder(DatabricksPlace, _RemoteEmbedder):
    __doc__ = DatabricksPlace.__doc__

    kind: Literal["databricks"]


EmbedderChoice = Annotated[OnnxEmbedder | OpenAIEmbedder | DatabricksEmbedder, Field(discriminator="kind")]


def newest_embedder(
    registry: Registry, choice: OnnxEmbedder | OpenAIEmbedder | DatabricksEmbedder
) -> ArtifactPin | None:
    """Return the pin of the newest embedder that is the chosen one or was trained from it; None without one.

    One that the configuration chose before is passed over, and so is what was trained from that; one that a
    person imported from a folder counts.
    """
    for model in registry.models("embedder"):
        if model.tags.get(_CONFIGURED, choice.identity) == choice.identity:
            return registry.pin(model.uri)
    return None


def choice_tags(registry: Registry, uri: str) -> dict[str, str]:
    """Return the tags by which what is trained from the embedder at ``uri`` counts as the same choice."""
    found = [model.tags for model in registry.models("embedder") if model.uri == uri]
    return {key: value for tags in found for key, value in tags.items() if key == _CONFIGURED}


def _identity(choice: Section) -> str:
    """Return the sha-256 of everything that is not a default, so that a new key changes no old identity."""
    values: dict[str, Any] = choice.model_dump(mode="json", exclude_defaults=True)
    return content_hash({**values, "kind": getattr(choice, "kind", "")})
