"""The generator that asks a language model behind any OpenAI-compatible URL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from llmops.chain._answer import REFUSAL, Draft, Inquiry, Responder
from llmops.chain._prompt import AnswerReader, PromptTemplate, context
from llmops.endpoints import find_key
from llmops.errors import ConfigurationError
from llmops.llm import ChatEndpoint, Completion, EndpointLimits, check_url
from llmops.settings import Section

if TYPE_CHECKING:
    from llmops.chain._retrieval import Retrieval
    from llmops.embedding import Embedder

__all__ = ["ChatGenerator"]

_OURS = {"model", "messages", "stream", "stream_options", "n", "tools"}


class ChatGenerator(Section):
    """Gives the retrieved chunks and the question to a language model and reads the citations in its answer.

    ``url`` is the base URL (``https://host/v1``); ``key_file`` holds its key, relative to the checkout or
    absolute. ``options`` are added to each request's body as they are.
    """

    kind: Literal["chat"] = "chat"
    url: str
    model: Annotated[str, Field(min_length=1, max_length=200)]
    key_file: str | None = None
    max_tokens: Annotated[int, Field(ge=1, le=100_000)] = 800
    temperature: Annotated[float, Field(ge=0, le=2)] | None = 0.0
    options: Mapping[str, Any] = Field(default_factory=dict)
    context_characters: Annotated[int, Field(ge=500, le=1_000_000)] = 16_000
    timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 60
    attempts: Annotated[int, Field(ge=1, le=10)] = 4

    @field_validator("url")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        try:
            check_url(value)
        except ConfigurationError as error:
            raise ValueError(str(error)) from error
        return value

    @field_validator("options")
    @classmethod
    def _options_of_the_model(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        if taken := sorted(_OURS & value.keys()):
            raise ValueError(f"{taken} cannot be set here: they are what the request is made of")
        return value

    def prepare(self, prompt: str, retrieval: Retrieval, embedder: Embedder | None) -> Responder:
        """Return what answers with this model; raise ConfigurationError for a wrong prompt or key file."""
        template = PromptTemplate(prompt, with_context=retrieval.kind != "none")
        key = find_key(self.key_file)
        limits = EndpointLimits(timeout=self.timeout_seconds, attempts=self.attempts)
        endpoint = ChatEndpoint(self.url, self.model, key=key, limits=limits)
        return _ChatResponder(self, template, endpoint, retrieves=retrieval.kind != "none")


class _ChatResponder:
    def __init__(
        self, generator: ChatGenerator, template: PromptTemplate, endpoint: ChatEndpoint, *, retrieves: bool
    ) -> None:
        self._template = template
        self._endpoint = endpoint
        self._retrieves = retrieves
        self._characters = generator.context_characters
        sampling = {} if generator.temperature is None else {"temperature": generator.temperature}
        self._options = {"max_tokens": generator.max_tokens, **sampling, **generator.options}

    def respond(self, inquiry: Inquiry) -> Draft:
        if self._retrieves and not inquiry.hits:
            return Draft(REFUSAL, refused=True)
        text, known = context(inquiry.hits, self._characters)
        messages = self._template.messages(inquiry.question, text)
        completion = self._endpoint.complete(messages, options=self._options, timeout=inquiry.seconds)
        reader = AnswerReader(known if self._retrieves else None)
        reader.feed(completion.text)
        reader.finish()
        return _draft(reader, completion)

    def stream(self, inquiry: Inquiry) -> Iterator[str | Draft]:
        if self._retrieves and not inquiry.hits:
            yield REFUSAL
            yield Draft(REFUSAL, refused=True)
            return
        text, known = context(inquiry.hits, self._characters)
        messages = self._template.messages(inquiry.question, text)
        reader = AnswerReader(known if self._retrieves else None)
        for item in self._endpoint.stream(messages, options=self._options, timeout=inquiry.seconds):
            shown = reader.feed(item) if isinstance(item, str) else reader.finish()
            if shown:
                yield shown
            if isinstance(item, Completion):
                yield _draft(reader, item)

    def close(self) -> None:
        self._endpoint.close()


def _draft(reader: AnswerReader, completion: Completion) -> Draft:
    return Draft(
        text=reader.text,
        cited=() if reader.refused else tuple(reader.cited),
        refused=reader.refused,
        usage=completion.usage,
        finish_reason=completion.finish_reason,
        invalid_citations=reader.invalid,
    )
