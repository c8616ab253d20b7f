"""One file is an assistant: ``include/assistants/<name>.yaml``, composed of the sections of the packages below."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field, model_validator

from llmops.chain import ExtractiveGenerator, Generator, HybridRetrieval, Retrieval
from llmops.corpus import Chunker, Source
from llmops.errors import ConfigurationError
from llmops.evaluation import Case, GateRules, load_cases
from llmops.quality import QualityRules
from llmops.settings import Environment, Section, assistant_files, merge, read_yaml, validate
from llmops.training import EmbedderChoice, OnnxEmbedder, TrainingSpec

__all__ = ["Approval", "Assistant", "load_assistant"]


class Approval(Section):
    """Who may approve a release, how long they have, and how long their approval lasts until promotion (hours)."""

    approvers: Annotated[tuple[str, ...], Field(min_length=1)]
    deadline_hours: Annotated[float, Field(gt=0, le=24 * 30)] = 24
    valid_hours: Annotated[float, Field(gt=0, le=24 * 30)] = 24

    @property
    def deadline(self) -> timedelta:
        """Return how long the approvers have."""
        return timedelta(hours=self.deadline_hours)


class Assistant(Section):
    """Everything a person decides about one assistant.

    ``evaluation_cases`` is a JSON Lines file beside the assistant's own; None means that cases are
    derived from the documents' headings, and every report says so.
    """

    name: str
    description: str
    sources: Annotated[tuple[Source, ...], Field(min_length=1)] | tuple[()] = ()
    quality: QualityRules = QualityRules()
    chunker: Chunker = Chunker()
    embedder: EmbedderChoice = OnnxEmbedder()
    prompt: Annotated[str, Field(min_length=1, max_length=20_000)]
    generator: Generator = ExtractiveGenerator()
    retrieval: Retrieval = HybridRetrieval()
    evaluation_cases: str | None = None
    gate: GateRules
    approval: Approval
    training: TrainingSpec = TrainingSpec()

    @model_validator(mode="after")
    def _sections_agree(self) -> Assistant:
        names = [source.name for source in self.sources]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"two sources are called {repeated}: give each source a name of its own")
        if self.retrieval.kind == "none" and self.generator.kind == "extractive":
            raise ValueError(
                "generator kind 'extractive' answers from retrieved chunks, so it needs retrieval; "
                "use generator kind 'chat', or retrieval kind 'hybrid'"
            )
        if self.retrieval.kind != "none" and not self.sources:
            raise ValueError("retrieval needs documents: name at least one source")
        return self

    def cases(self) -> tuple[Case, ...]:
        """Return the evaluation cases of the file, () when they are derived from the documents."""
        if self.evaluation_cases is None:
            return ()
        beside = [file.parent / self.evaluation_cases for file in assistant_files(self.name)]
        existing = [path for path in beside if path.is_file()]
        if not existing:
            raise ConfigurationError(
                f"assistant {self.name!r}: evaluation_cases names {self.evaluation_cases!r}, but {beside[0]} "
                "does not exist: write it, or leave the key out to derive cases from the documents"
            )
        return tuple(load_cases(existing[-1]))


def load_assistant(name: str, environment: Environment) -> Assistant:
    """Return one assistant with the environment's overrides laid over its file.

    Raises ConfigurationError that names the file and every wrong key.
    """
    files = assistant_files(name)
    values: dict[str, Any] = {}
    for file in files:
        values = merge(values, read_yaml(file))
    values = merge(values, environment.assistant_overrides)
    if values.get("name", name) != name:
        raise ConfigurationError(
            f"{files[-1]}: name is {values['name']!r}; leave it out, the file's name is the name"
        )
    return validate(Assistant, {**values, "name": name}, files[-1])
