"""A few chunks about a pottery, a searcher over them, and chains that answer from them."""

from __future__ import annotations

from typing import Any

import numpy as np

from llmops.chain import Chain, ChatGenerator, ExtractiveGenerator, HybridRetrieval, NoRetrieval
from llmops.index import Hit
from support.hash_embedder import HashEmbedder

PROMPT = """You answer from the documents and cite them like [1].
If they do not answer the question, say exactly: {refusal}

{context}

Question: {question}"""
BARE_PROMPT = "Be brief.\n\n{question}"


def hit(name: str, text: str, *headings: str, score: float = 0.5) -> Hit:
    """Return a chunk of the document ``name``."""
    return Hit(
        chunk_id=f"chunk-{name}",
        document_id=f"document-{name}",
        document_version=f"version-{name}",
        source="guide",
        path=name,
        title=name,
        heading_path=headings or (name,),
        text=text,
        position=0,
        score=score,
    )


KILN = hit(
    "kiln.start",
    "On cold days the chamber is damp. Open the lower damper before you light the burner. "
    "Warm the chamber at 80 degrees for 45 minutes:\n\n"
    "```python\nkiln = Kiln()\nkiln.warm(80, minutes=45)\n```\n",
    "Kiln",
    "Starting the kiln",
)
GLAZE = hit("glaze", "- A glaze is ground glass in water.\n- Stir the glaze before every use.\n", "Glaze")
CLAY = hit("clay", "Clay shrinks by a tenth when it is fired. Wedge it to drive out the air.", "Clay")
CHUNKS = [KILN, GLAZE, CLAY]


class Shelf:
    """Searches a list of chunks by cosine; ``questions`` remembers what was searched, ``fail`` breaks it."""

    def __init__(self, chunks: list[Hit] | None = None, embedder: HashEmbedder | None = None) -> None:
        self.embedder = embedder or HashEmbedder(256)
        self.chunks = CHUNKS if chunks is None else chunks
        self.questions: list[str] = []
        self.fail: Exception | None = None

    def __call__(self, question: str, vector: Any) -> list[Hit]:
        if self.fail:
            raise self.fail
        self.questions.append(question)
        if not self.chunks:
            return []
        vectors = self.embedder.embed([f"{' '.join(c.heading_path)} {c.text}" for c in self.chunks])
        return [self.chunks[i] for i in np.argsort(-(vectors @ vector), kind="stable")]


def extractive_chain(shelf: Shelf | None = None, **settings: Any) -> Chain:
    """Return a chain that quotes the shelf's chunks."""
    shelf = shelf or Shelf()
    generator = ExtractiveGenerator(**settings)
    return Chain(generator, HybridRetrieval(), PROMPT, embedder=shelf.embedder, searcher=shelf)  # type: ignore[arg-type]


def chat_chain(url: str, shelf: Shelf | None = None, prompt: str = PROMPT, **settings: Any) -> Chain:
    """Return a chain that asks the language model at ``url`` about the shelf's chunks."""
    shelf = shelf or Shelf()
    generator = ChatGenerator(url=url, model="small", **settings)
    return Chain(generator, HybridRetrieval(), prompt, embedder=shelf.embedder, searcher=shelf)  # type: ignore[arg-type]


def bare_chain(url: str, **settings: Any) -> Chain:
    """Return a chain that asks the language model at ``url`` and nothing else."""
    generator = ChatGenerator(url=url, model="small", **settings)
    return Chain(generator, NoRetrieval(), BARE_PROMPT, embedder=None, searcher=None)
