"""Embedders behind an endpoint: where it is, what it is asked, and how it was when it was registered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import httpx
from pydantic import Field, field_validator

from llmops.embedding._folder import DESCRIPTION, TOKENIZER, Opening, open_tokenizer
from llmops.embedding._probe import PROBE_TEXT, Probe
from llmops.embedding._remote_model import RemoteModel, Target
from llmops.endpoints import base_url
from llmops.errors import ConfigurationError
from llmops.settings import EndpointAccess, Section, environ

__all__ = [
    "DatabricksDescription",
    "DatabricksPlace",
    "OpenAIDescription",
    "OpenAIPlace",
    "RemotePlace",
    "save_remote",
]

_PATH = "/embeddings"
_HOST, _TOKEN = "DATABRICKS_HOST", "DATABRICKS_TOKEN"

_Name = Annotated[str, Field(min_length=1, max_length=200)]
_Prefix = Annotated[str, Field(max_length=500)]


class RemotePlace(Section):
    """What decides the vectors of a remote embedder."""

    dimension: Annotated[int, Field(ge=1, le=2000)]
    max_tokens: Annotated[int, Field(ge=8, le=1_000_000)] = 512
    shorten: bool = False
    document_prefix: _Prefix = ""
    query_prefix: _Prefix = ""

    @property
    def prefixes(self) -> tuple[str, str]:
        """Return what is put before a document and before a question."""
        return self.document_prefix, self.query_prefix

    @property
    def files(self) -> tuple[str, ...]:
        """Return the files beside the description that belong to the embedder."""
        return (TOKENIZER,)

    def target(self) -> Target:
        """Return where to post to, and what; raise ConfigurationError when that is not known."""
        raise NotImplementedError

    def describe(self, probe: Probe) -> OpenAIDescription | DatabricksDescription:
        """Return what ``embedder.json`` says of this endpoint."""
        raise NotImplementedError

    def _target(self, url: httpx.URL, model: str, default_key: str | None = None) -> Target:
        return Target(url, model, self.dimension, self.max_tokens, self.shorten, default_key)


class OpenAIPlace(RemotePlace):
    """Any endpoint that speaks OpenAI's protocol for embeddings.

    ``url`` is the base that ``/embeddings`` is appended to (``/v1`` when it has no path). ``dimension`` is what the
    model gives, at most 2000; with ``shorten`` it is asked to give only that many. A text longer than
    ``max_tokens`` is cut there; lengths are measured by the packaged model's tokenizer, not the endpoint's own, so
    keep a margin. ``document_prefix`` and ``query_prefix`` are what the model wants before documents and questions.
    Its price is that of ``model`` in the price table. Key, budget and batches stand under ``endpoints`` in the
    environment's file.
    """

    url: str
    model: _Name

    @field_validator("url")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        try:
            base_url(value, _PATH, "embedder")
        except ConfigurationError as error:
            raise ValueError(str(error)) from error
        return value

    def target(self) -> Target:
        """Return where to post to, and what."""
        return self._target(base_url(self.url, _PATH, "embedder"), self.model)

    def describe(self, probe: Probe) -> OpenAIDescription:
        """Return what ``embedder.json`` says of this endpoint."""
        return OpenAIDescription(**self.model_dump(exclude={"kind"}), name=self.model, probe=probe)


class DatabricksPlace(RemotePlace):
    """A serving endpoint of a Databricks workspace.

    ``endpoint`` is its name; ``host`` the workspace's URL, by default that of ``DATABRICKS_HOST``. The key is that
    of the host under ``endpoints`` in the environment's file, or ``DATABRICKS_TOKEN`` for the host in
    ``DATABRICKS_HOST``. The other keys are as for kind ``openai``.
    """

    endpoint: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,200}$")]
    host: str | None = None
    model: _Name | None = None

    def target(self) -> Target:
        """Return where to post to, and what; raise ConfigurationError when no workspace is named."""
        own = environ().get(_HOST)
        if (host := self.host or own) is None:
            raise ConfigurationError(
                f"the embedder {self.endpoint!r} names no host and {_HOST} is not set: set it to the workspace's URL"
            )
        root = _workspace(host)
        url = root.copy_with(path=f"/serving-endpoints/{self.endpoint}/invocations")
        default_key = _TOKEN if own is not None and _workspace(own).netloc == root.netloc else None
        return self._target(url, self.model or self.endpoint, default_key)

    def describe(self, probe: Probe) -> DatabricksDescription:
        """Return what ``embedder.json`` says of this endpoint."""
        url = self.target().url
        values = self.model_dump(exclude={"kind", "host"})
        host = f"{url.scheme}://{url.netloc.decode()}"
        return DatabricksDescription(**values, host=host, name=self.endpoint, probe=probe)


class OpenAIDescription(OpenAIPlace):
    """What ``embedder.json`` says of an endpoint that speaks OpenAI's protocol."""

    kind: Literal["openai"] = "openai"
    name: _Name
    probe: Probe

    def open(self, opening: Opening) -> RemoteModel:
        """Return the model that asks the endpoint."""
        return RemoteModel(self.target(), opening.tokenizer(self.max_tokens), opening.endpoints, self.probe)


class DatabricksDescription(DatabricksPlace):
    """What ``embedder.json`` says of a serving endpoint."""

    kind: Literal["databricks"] = "databricks"
    name: _Name
    probe: Probe

    def open(self, opening: Opening) -> RemoteModel:
        """Return the model that asks the endpoint."""
        return RemoteModel(self.target(), opening.tokenizer(self.max_tokens), opening.endpoints, self.probe)


def save_remote(
    place: RemotePlace,
    folder: Path,
    tokenizer: bytes,
    endpoints: Mapping[str, EndpointAccess],
) -> Path:
    """Ask an endpoint for the vector of the probe, write its embedder to ``folder`` and return that.

    ``tokenizer`` is the content of a ``tokenizer.json``, which only measures lengths. Raises ConfigurationError when
    the endpoint gives another number of dimensions, and what asking it raises.
    """
    target = place.target()
    model = RemoteModel(target, open_tokenizer(tokenizer, folder, place.max_tokens), endpoints, None)
    vector = model.ask_once(PROBE_TEXT)
    if vector.size != place.dimension:
        raise ConfigurationError(
            f"{target.place} gives vectors of {vector.size} numbers, the embedder's dimension is {place.dimension}: "
            f"write {vector.size}, or `shorten: true` where the model can give fewer"
        )
    described = place.describe(Probe.of(vector))
    values = {"kind": described.kind, **described.model_dump(mode="json", exclude_defaults=True)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TOKENIZER).write_bytes(tokenizer)
    (folder / DESCRIPTION).write_text(
        json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return folder


def _workspace(host: str) -> httpx.URL:
    """Return the root of a workspace's URL, written with or without https://."""
    url = base_url(host if "://" in host else f"https://{host}", "", "Databricks workspace")
    return url.copy_with(path="/")
