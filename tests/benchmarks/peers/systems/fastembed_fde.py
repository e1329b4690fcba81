from __future__ import annotations

from pathlib import Path

import numpy as np
from fastembed.postprocess import Muvera

from peers.protocol import Documents, FloatArray
from peers.systems import arrays
from peers.systems.fde_scan import FDEScan


class Adapter:
    """fastembed's FDEs with their defaults, which are the paper's: 20 repetitions, 5 hyperplanes, 16 values: 10,240-d.

    fastembed leaves search and reranking to a vector database. Here NumPy scans the FDEs, in float32.
    """

    def build(self, documents: Documents, folder: Path) -> None:
        encoder = Muvera(documents.dimension)
        fdes = np.empty((len(documents), encoder.embedding_size), dtype=np.float32)
        for i, document in enumerate(documents):
            fdes[i] = encoder.process_document(document)
        np.save(folder / "fdes.npy", fdes)
        arrays.save(documents, folder)

    def open(self, folder: Path) -> None:
        self._index = FDEScan(folder)

    def search(self, query: FloatArray, k: int) -> list[int]:
        if not hasattr(self, "_encoder"):
            self._encoder = Muvera(query.shape[1])
        return self._index.search(query, self._encoder.process_query(query).astype(np.float32), k)
