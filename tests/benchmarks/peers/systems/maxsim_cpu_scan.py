from __future__ import annotations

from pathlib import Path

import maxsim_cpu
import numpy as np

from peers.protocol import Documents, FloatArray
from peers.systems import arrays


class Adapter:
    """maxsim-cpu, which scores and has no index: its call for documents of several lengths scores all of them."""

    def build(self, documents: Documents, folder: Path) -> None:
        arrays.save(documents, folder)

    def open(self, folder: Path) -> None:
        self._documents = list(arrays.load(folder))

    def search(self, query: FloatArray, k: int) -> list[int]:
        scores = maxsim_cpu.maxsim_scores_variable(query, self._documents)
        return arrays.best(np.asarray(scores, dtype=np.float32), k)
