"""Keep LanceDB: it finds candidates by their FDE vectors and filters them. muvera ranks them by exact MaxSim.

    python examples/recipes/lancedb_stage_one.py
    python examples/recipes/lancedb_stage_one.py "where are the winter olympics" --most-words 120

Needs lancedb. It runs in this process, without a network. docs/vector-databases.md says how to choose the settings.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import lancedb
import pyarrow as pa

from muvera_core import FDEConfig, FixedDimensionalEncoder, Hit, MuveraIndex, TokenEmbeddings
from muvera_core.evaluation.collections import read_beir

DATA = Path(__file__).parents[1] / "data" / "nq-gold"
QUESTION = "what was the city of beijing previously known as"


class Passages:
    """Passages whose FDE vectors and metadata are in a LanceDB table, and whose tokens are in an index."""

    def __init__(self, folder: Path, index: MuveraIndex) -> None:
        self.index = index
        self.fde = FixedDimensionalEncoder(FDEConfig.for_dimension(index.encoder.dimension))
        vector = pa.list_(pa.float32(), self.fde.output_dimension)
        self.schema = pa.schema({"id": pa.string(), "n_words": pa.int64(), "vector": vector})
        self.table = lancedb.connect(folder).create_table("passages", schema=self.schema, exist_ok=True)

    def add(self, texts: Sequence[str], ids: Sequence[str]) -> None:
        """Add or replace passages. If it fails in between, call it again: the index encodes no text twice."""
        self.index.add(texts, ids)  # first, so that all that LanceDB finds can be ranked
        tokens = self.index.get_embeddings(ids)  # without texts that have nothing to match
        vectors = self.fde.encode_documents(TokenEmbeddings.from_list(list(tokens.values())))
        n_words = {id: len(text.split()) for id, text in zip(ids, texts, strict=True)}
        rows = [
            {"id": id, "n_words": n_words[id], "vector": vector} for id, vector in zip(tokens, vectors, strict=True)
        ]
        merge = self.table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        merge.execute(pa.Table.from_pylist(rows, self.schema))

    def delete(self, ids: Sequence[str]) -> None:
        """Delete passages. Unknown ids are skipped."""
        quoted = ", ".join("'" + id.replace("'", "''") + "'" for id in ids)
        self.table.delete(f"id IN ({quoted})")
        self.index.delete(ids)  # last, for the same reason

    def search(self, query: str, k: int = 3, n_candidates: int = 100, where: str | None = None) -> list[Hit]:
        """The best passages that LanceDB's filter, an SQL condition, admits."""
        [vector] = self.fde.encode_queries(self.index.encoder.encode_queries([query]))
        found = self.table.search(vector).distance_type("cosine").limit(n_candidates).select(["id", "_distance"])
        if where is not None:
            found = found.where(where, prefilter=True)
        return self.index.rerank(query, found.to_arrow()["id"].to_pylist(), k)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", nargs="?", default=QUESTION)
    parser.add_argument("--most-words", type=int, default=1000)
    arguments = parser.parse_args()
    collection = read_beir(DATA)
    texts, ids = collection.texts[:60], collection.ids[:60]
    with tempfile.TemporaryDirectory() as folder, MuveraIndex.create(Path(folder) / "tokens.muvera") as index:
        passages = Passages(Path(folder) / "lancedb", index)
        passages.add(texts, ids)
        passages.delete(ids[-1:])
        for hit in passages.search(arguments.question, where=f"n_words <= {arguments.most_words}"):
            print(f"{hit.normalized_score:.3f} {hit.id}: {(hit.text or '')[:90]}")
        print(f"{passages.table.count_rows()} vectors, {len(index)} passages with tokens")


if __name__ == "__main__":
    main()
