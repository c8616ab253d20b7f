"""The kinds of generators an assistant can name."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from llmops.chain._chat import ChatGenerator
from llmops.chain._extractive import ExtractiveGenerator

__all__ = ["Generator"]

Generator = Annotated[ExtractiveGenerator | ChatGenerator, Field(discriminator="kind")]
