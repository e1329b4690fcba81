from __future__ import annotations

from pathlib import Path

import numpy as np

from peers.protocol import Documents, FloatArray
from peers.systems import arrays

_TOKENS = 65_536


class Adapter:
    """Exact MaxSim with every document in NumPy: float32 tokens in memory, one matrix product per 65,536 tokens.

    float32 is the fastest format for NumPy. Whole documents form a block that is large enough for the product to take
    nearly all the time, and small enough for memory.
    """

    def build(self, documents: Documents, folder: Path) -> None:
        arrays.save(documents, folder)

    def open(self, folder: Path) -> None:
        self._documents = arrays.load(folder)
        offsets = self._documents.offsets
        bounds = np.unique(np.searchsorted(offsets, np.arange(0, offsets[-1], _TOKENS)))
        self._blocks = list(zip(bounds, [*bounds[1:], len(self._documents)], strict=True))

    def search(self, query: FloatArray, k: int) -> list[int]:
        offsets, vectors = self._documents.offsets, self._documents.vectors
        scores = [
            arrays.maxsim(query, vectors[offsets[low] : offsets[high]], offsets[low:high] - offsets[low])
            for low, high in self._blocks
        ]
        return arrays.best(np.concatenate(scores), k)
