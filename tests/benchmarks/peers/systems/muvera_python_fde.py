from __future__ import annotations

from pathlib import Path

import numpy as np
from muvera import Muvera

from peers.protocol import Documents, FloatArray
from peers.systems import arrays
from peers.systems.fde_scan import FDEScan

_BATCH = 256


class Adapter:
    """muvera-python's FDEs at the paper's setting: 20 repetitions, 5 hyperplanes, 16 values: 10,240-d.

    Its defaults project nothing, which gives 81,920-d; its own table of settings has this one. The library makes FDEs
    only. Here NumPy scans them, in float32.
    """

    def build(self, documents: Documents, folder: Path) -> None:
        encoder = _encoder(documents.dimension)
        fdes = [
            encoder.encode_documents([documents[i] for i in range(start, min(start + _BATCH, len(documents)))])
            for start in range(0, len(documents), _BATCH)
        ]
        np.save(folder / "fdes.npy", np.concatenate(fdes).astype(np.float32))
        arrays.save(documents, folder)

    def open(self, folder: Path) -> None:
        self._index = FDEScan(folder)

    def search(self, query: FloatArray, k: int) -> list[int]:
        if not hasattr(self, "_encoder"):
            self._encoder = _encoder(query.shape[1])
        return self._index.search(query, self._encoder.encode_queries([query])[0].astype(np.float32), k)


def _encoder(dimension: int) -> Muvera:
    return Muvera(
        num_repetitions=20,
        num_simhash_projections=5,
        dimension=dimension,
        projection_type="ams_sketch",
        projection_dimension=16,
    )
