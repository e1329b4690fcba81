from __future__ import annotations

from pathlib import Path

import torch
from fast_plaid import search

from peers.protocol import Documents, FloatArray


class Adapter:
    """fast-plaid with all its defaults, on the CPU: 4-bit residuals, 8 probes, 4,096 documents scored in full.

    Its parallel search on the CPU serves several queries at once, so one query gets PyTorch's threads.
    """

    def build(self, documents: Documents, folder: Path) -> None:
        index = search.FastPlaid(index=str(folder), device="cpu")
        index.create(documents_embeddings=[torch.from_numpy(document) for document in documents])
        index.close()

    def open(self, folder: Path) -> None:
        self._index = search.FastPlaid(index=str(folder), device="cpu")

    def search(self, query: FloatArray, k: int) -> list[int]:
        found = self._index.search(torch.from_numpy(query)[None], top_k=k, show_progress=False)
        return [int(i) for i, _ in found[0]]
