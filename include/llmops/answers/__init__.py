"""The answer log: every answer is a row opened before its first byte, and feedback lands on that row.

Functions take either a Postgres URL or the pool of a resident service (``open_pool``). All of them raise
ServiceUnavailable when Postgres does not answer: what cannot be logged must not be answered.
"""

from llmops.answers._feedback import Feedback, FeedbackRecord, read_feedback, record_feedback
from llmops.answers._log import (
    AnswerChunk,
    AnswerOutcome,
    AnswerRecord,
    close_answer,
    open_answer,
    read_answer,
    read_answers,
)
from llmops.answers._pool import open_pool

__all__ = [
    "AnswerChunk",
    "AnswerOutcome",
    "AnswerRecord",
    "Feedback",
    "FeedbackRecord",
    "close_answer",
    "open_answer",
    "open_pool",
    "read_answer",
    "read_answers",
    "read_feedback",
    "record_feedback",
]
