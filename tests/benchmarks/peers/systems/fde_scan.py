"""An index around a library that makes FDEs only: a scan of them finds candidates, and exact MaxSim orders those."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from peers.protocol import FloatArray
from peers.systems import arrays

N_CANDIDATES = 200


class FDEScan:
    """Searches the FDEs and tokens in a folder, in float32, with NumPy. 200 candidates are compared exactly."""

    def __init__(self, folder: Path) -> None:
        self._documents, self._fdes = arrays.load(folder), np.load(folder / "fdes.npy")

    def search(self, query: FloatArray, fde: FloatArray, k: int) -> list[int]:
        """Numbers of the ``k`` best documents. ``fde`` is the query's encoding, shape (dimension of an FDE,)."""
        candidates = arrays.best(self._fdes @ fde, N_CANDIDATES)
        tokens = [self._documents[i] for i in candidates]
        starts = np.cumsum([0, *map(len, tokens[:-1])])
        order = arrays.best(arrays.maxsim(query, np.concatenate(tokens), starts), k)
        return [candidates[i] for i in order]
