"""Every error this package raises on purpose.

    LlmopsError
    ├── TransientError                 trying again later may help
    │   ├── ServiceUnavailable         Postgres, MLflow, Airflow or an LLM does not answer
    │   ├── RateLimited                an LLM endpoint asks to wait
    │   └── WriteConflict              another writer changed the same table first
    └── TerminalError                  trying again changes nothing
        ├── ConfigurationError         a file, key or value that a person wrote
        ├── InvalidRequest             a question or a value in a request that is out of bounds
        ├── MissingInput               a folder, table, model or release that is not there
        ├── ParseError                 one document that cannot be read
        ├── QualityGateFailed          documents that must not be merged
        ├── SourceFailed               a source that could not be read or was held back; the others were merged
        ├── EmbedderMismatch           a query and an index, or a table and a vector, of different embedders
        ├── IntegrityError             content that differs from its digest
        │   └── SignatureInvalid       a signature that does not verify
        ├── LanguageModelError         an answer of an LLM endpoint that cannot be used
        ├── EmbeddingError             an answer of an endpoint of embeddings that cannot be used
        ├── BudgetExceeded             a run that would use or cost more than it may
        ├── NotApproved                a release without a valid approval
        ├── StaleRelease               production moved since the gate compared with it
        ├── NotConfirmed               replicas that did not follow a promotion, which was taken back
        └── StackError                 a local process that cannot be started or stopped

A message says what is wrong (values by ``!r``), where, and what to do next.
"""

from __future__ import annotations


class LlmopsError(Exception):
    """Base of all errors of this package."""


class TransientError(LlmopsError):
    """Trying again later may help; the retry table retries these."""


class ServiceUnavailable(TransientError):
    """A service this process depends on does not answer."""


class RateLimited(TransientError):
    """An endpoint asked the caller to wait.

    ``retry_after`` is the number of seconds it asked for, or None.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class WriteConflict(TransientError):
    """Another writer changed the same table first."""


class TerminalError(LlmopsError):
    """Trying again changes nothing; the retry table fails these at once."""


class ConfigurationError(TerminalError):
    """A file, key or value that a person wrote is wrong."""


class InvalidRequest(TerminalError):
    """A question, or a value in a request, is empty, too long or otherwise out of bounds."""


class MissingInput(TerminalError):
    """A folder, table, model or release that should be there is not."""


class ParseError(TerminalError):
    """One document cannot be read; it goes to quarantine with this message as its reason."""


class QualityGateFailed(TerminalError):
    """Documents failed an expectation and must not be merged."""


class SourceFailed(TerminalError):
    """A source could not be read, or its documents were held back; those of the other sources were merged."""


class EmbedderMismatch(TerminalError):
    """Vectors of two different embedders would meet."""


class IntegrityError(TerminalError):
    """Content differs from the digest that pins it."""


class SignatureInvalid(IntegrityError):
    """A signature does not verify."""


class LanguageModelError(TerminalError):
    """A language model endpoint answered something that cannot be used."""


class EmbeddingError(TerminalError):
    """An endpoint of embeddings answered something that cannot be used."""


class BudgetExceeded(TerminalError):
    """A run would use more tokens, or cost more, than its budget; what was embedded until then is kept."""


class NotApproved(TerminalError):
    """A release has no valid approval of exactly its hash."""


class StaleRelease(TerminalError):
    """Production is no longer the release that the gate compared with."""


class NotConfirmed(TerminalError):
    """Not every replica answered with a release in time, so its promotion was taken back."""


class StackError(TerminalError):
    """A local process cannot be started or stopped."""
