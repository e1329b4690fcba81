from __future__ import annotations

from pathlib import Path

import torch
from xtr_warp.search import XTRWarp

from peers.protocol import Documents, FloatArray


class Adapter:
    """xtr-warp-rs with all its defaults; how widely it searches, it derives from the index and the query.

    It estimates similarities that it has not computed. That is made for models that are trained for it, such as XTR,
    and these tokens are not from such a model.
    """

    def build(self, documents: Documents, folder: Path) -> None:
        XTRWarp(str(folder)).create([torch.from_numpy(document) for document in documents], "cpu", show_progress=False)

    def open(self, folder: Path) -> None:
        self._index = XTRWarp(str(folder)).load("cpu")

    def search(self, query: FloatArray, k: int) -> list[int]:
        threads = torch.get_num_threads()
        found = self._index.search(torch.from_numpy(query)[None], k, num_threads=threads, show_progress=False)
        return [int(i) for i, _ in found[0]]
