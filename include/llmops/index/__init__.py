"""Index generations: chunks with vectors and words in Postgres, in step with the chunks table, and searched.

A generation is what one embedder and one chunker made. It is never edited to another embedder: a query
whose embedder differs is refused, and a new embedder gets a generation of its own beside the old one.
"""

from llmops.index._contents import indexed_documents
from llmops.index._dump import dump, vector_signature
from llmops.index._filters import EVERYTHING, Access, Everything
from llmops.index._follow import follow
from llmops.index._generations import (
    Generation,
    create_generation,
    drop_generation,
    find_generation,
    generation_id,
    generations,
    mark,
    require_fingerprint,
)
from llmops.index._plan import BuildPlan, plan
from llmops.index._search import MAX_CANDIDATES, Hit, Mode, search
from llmops.index._sync import SyncCounts, sync
from llmops.index._vectors import index_progress

__all__ = [
    "EVERYTHING",
    "MAX_CANDIDATES",
    "Access",
    "BuildPlan",
    "Everything",
    "Generation",
    "Hit",
    "Mode",
    "SyncCounts",
    "create_generation",
    "drop_generation",
    "dump",
    "find_generation",
    "follow",
    "generation_id",
    "generations",
    "index_progress",
    "indexed_documents",
    "mark",
    "plan",
    "require_fingerprint",
    "search",
    "sync",
    "vector_signature",
]
