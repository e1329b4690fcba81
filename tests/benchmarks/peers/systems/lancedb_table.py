from __future__ import annotations

from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa

from peers.protocol import Documents, FloatArray


class Adapter:
    """A LanceDB table with a column of several vectors per row and the index that its guide makes: cosine, IVF-PQ.

    Its default search ranks by what the index estimates. ``nprobes`` and ``refine_factor`` are its knobs for recall:
    more partitions, and more candidates that are compared with the stored vectors.
    """

    def __init__(self, nprobes: int | None = None, refine_factor: int | None = None) -> None:
        self._nprobes, self._refine_factor = nprobes, refine_factor

    def build(self, documents: Documents, folder: Path) -> None:
        tokens = pa.FixedSizeListArray.from_arrays(pa.array(documents.vectors.ravel()), documents.dimension)
        column = pa.ListArray.from_arrays(pa.array(documents.offsets.astype(np.int32)), tokens)
        rows = pa.table({"number": pa.array(np.arange(len(documents))), "vector": column})
        table = lancedb.connect(folder).create_table("documents", rows)
        table.create_index(metric="cosine", vector_column_name="vector")

    def open(self, folder: Path) -> None:
        self._table = lancedb.connect(folder).open_table("documents")

    def search(self, query: FloatArray, k: int) -> list[int]:
        search = self._table.search(query).limit(k).select(["number"])
        if self._nprobes is not None:
            search = search.nprobes(self._nprobes)
        if self._refine_factor is not None:
            search = search.refine_factor(self._refine_factor)
        return [int(i) for i in search.to_arrow()["number"].to_pylist()]
