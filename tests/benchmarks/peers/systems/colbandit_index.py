from __future__ import annotations

from pathlib import Path

from colbandit import ColBandit

from peers.protocol import Documents, FloatArray


class Adapter:
    """Col-Bandit with the defaults that its paper deploys. It prunes among all documents and rescores the last ones.

    Its threads serve several queries at once, so one query runs on one.
    """

    def build(self, documents: Documents, folder: Path) -> None:
        ColBandit().index(list(documents)).save(str(folder / "index.npz"))

    def open(self, folder: Path) -> None:
        self._index = ColBandit.load(str(folder / "index.npz"))

    def search(self, query: FloatArray, k: int) -> list[int]:
        found, _ = self._index.search(query, k)
        return [int(i) for i in found]
