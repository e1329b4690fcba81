from __future__ import annotations

from pathlib import Path

import numpy as np
import tachiom

from peers.protocol import Documents, FloatArray, SkippedError


class Adapter:
    """TACHIOM with all its defaults for building and searching, which it derives from the number of tokens.

    Its clustering needs the vocabulary id of every token. Ours are one for each distinct word piece. It takes
    tokens in float16, as bits. One query runs on one thread; more threads only serve more queries.
    """

    def build(self, documents: Documents, folder: Path) -> None:
        if documents.token_ids is None:
            raise SkippedError("its clustering needs the vocabulary id of every token, which these inputs do not have")
        index = tachiom.Tachiom.build_from_arrays(
            documents.vectors.astype(np.float16).view(np.uint16),
            documents.token_ids.astype(np.uint32),
            np.diff(documents.offsets).astype(np.int32),
        )
        index.save(str(folder / "index.bin"))

    def open(self, folder: Path) -> None:
        self._index = tachiom.Tachiom.load(str(folder / "index.bin"))

    def search(self, query: FloatArray, k: int) -> list[int]:
        scores, found = self._index.search(query, k)
        return [int(i) for i in found[np.isfinite(scores)]]
