from __future__ import annotations

from pathlib import Path

import numpy as np
from lateweave import maxsim_scores_packed

from peers.protocol import Documents, FloatArray
from peers.systems import arrays


class Adapter:
    """LateWeave, which orders candidates of other systems: its packed MaxSim kernel scores all documents."""

    def build(self, documents: Documents, folder: Path) -> None:
        arrays.save(documents, folder)

    def open(self, folder: Path) -> None:
        self._documents = arrays.load(folder)
        self._lengths = np.diff(self._documents.offsets)

    def search(self, query: FloatArray, k: int) -> list[int]:
        return arrays.best(maxsim_scores_packed(query, self._documents.vectors, self._lengths), k)
