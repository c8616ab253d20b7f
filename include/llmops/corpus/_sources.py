"""Every kind of source."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from llmops.corpus._delta_table import DeltaTableSource
from llmops.corpus._directory import DirectorySource
from llmops.corpus._git import GitSource
from llmops.corpus._object_store import ObjectStoreSource
from llmops.corpus._packages import PackagesSource
from llmops.corpus._website import WebsiteSource

__all__ = ["AnySource", "Source"]

AnySource = (
    PackagesSource | DirectorySource | GitSource | ObjectStoreSource | WebsiteSource | DeltaTableSource
)
Source = Annotated[AnySource, Field(discriminator="kind")]
"""Where documents come from; ``kind`` says which."""
