from __future__ import annotations

from pathlib import Path
from typing import Any

from muvera_core import MuveraError, MuveraIndex
from muvera_core.encoders import PrecomputedEmbeddings
from peers.protocol import Documents, FloatArray, SkippedError


class Adapter:
    """muvera with its defaults; after ``optimize``; or with tokens in few bits. Its settings are the arguments.

    Documents have ids and no texts. ``optimize`` gets no example queries and no texts to make some of, so it tunes with
    runs of stored tokens: the other systems see no texts either. A token format that the installed version does not
    know is a reason to skip the row.
    """

    def __init__(self, token_precision: Any = "int8", target_recall: float | None = None) -> None:
        self._token_precision, self._target_recall = token_precision, target_recall

    def build(self, documents: Documents, folder: Path) -> None:
        with self._create(documents.dimension, folder) as index:
            index.add_embeddings(list(documents), [str(i) for i in range(len(documents))])
            if self._target_recall is not None:
                index.optimize(self._target_recall)
        (folder / "dimension").write_text(str(documents.dimension))

    def open(self, folder: Path) -> None:
        dimension = int((folder / "dimension").read_text())
        self._index = MuveraIndex.open(folder / "index", _encoder(dimension), read_only=True)

    def search(self, query: FloatArray, k: int) -> list[int]:
        return [int(hit.id) for hit in self._index.search_embeddings(query, k)]

    def _create(self, dimension: int, folder: Path) -> MuveraIndex:
        try:
            return MuveraIndex.create(folder / "index", _encoder(dimension), token_precision=self._token_precision)
        except MuveraError as error:
            raise SkippedError(f"token_precision={self._token_precision!r}: {error}") from error


def _encoder(dimension: int) -> PrecomputedEmbeddings:
    return PrecomputedEmbeddings(dimension, "benchmark")
