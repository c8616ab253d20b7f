"""An embedder that remembers: answers quote the same passages again and again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmops.embedding._embedder import Embedder
from llmops.embedding._meter import Meter

__all__ = ["RememberingEmbedder"]

_REMEMBERED = 20_000


class RememberingEmbedder(Embedder):
    """Embeds each text once and keeps the vectors of the texts used last, about 30 MB of them.

    A text's vector depends on the text alone, so what is remembered equals what would be computed.
    It may be used from several threads.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._memory: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def _vectors(self, texts: Sequence[str], meter: Meter | None) -> NDArray[np.float32]:
        with self._lock:
            known = {text: self._memory[text] for text in texts if text in self._memory}
        unknown = [text for text in dict.fromkeys(texts) if text not in known]
        if unknown:
            known.update(zip(unknown, super()._vectors(unknown, meter), strict=True))
        with self._lock:
            for text in known:
                self._memory[text] = known[text]
                self._memory.move_to_end(text)
            while len(self._memory) > _REMEMBERED:
                self._memory.popitem(last=False)
        return (
            np.stack([known[text] for text in texts]) if texts else np.empty((0, self.dimension), np.float32)
        )
