"""Keep Qdrant: it finds candidates by their FDE vectors and filters them. muvera ranks them by exact MaxSim.

    python examples/recipes/qdrant_stage_one.py
    python examples/recipes/qdrant_stage_one.py "where are the winter olympics" --most-words 120

Needs qdrant-client. It uses Qdrant's local mode, so there is no server and no network. docs/vector-databases.md says
how to choose the settings.
"""

from __future__ import annotations

import argparse
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qdrant_client import QdrantClient, models

from muvera_core import FDEConfig, FixedDimensionalEncoder, Hit, MuveraIndex, TokenEmbeddings
from muvera_core.evaluation.collections import read_beir

DATA = Path(__file__).parents[1] / "data" / "nq-gold"
QUESTION = "what was the city of beijing previously known as"


class Passages:
    """Passages whose FDE vectors and metadata are in Qdrant, and whose tokens are in an index."""

    def __init__(self, client: QdrantClient, index: MuveraIndex) -> None:
        self.client, self.index = client, index
        self.fde = FixedDimensionalEncoder(FDEConfig.for_dimension(index.encoder.dimension))
        if not client.collection_exists("passages"):
            size = self.fde.output_dimension
            settings = models.VectorParams(size=size, distance=models.Distance.COSINE)
            client.create_collection("passages", vectors_config=settings)

    def add(self, texts: Sequence[str], ids: Sequence[str], payloads: Sequence[Mapping[str, Any]]) -> None:
        """Add or replace passages. If it fails in between, call it again: the index encodes no text twice."""
        self.index.add(texts, ids)  # first, so that all that Qdrant finds can be ranked
        tokens = self.index.get_embeddings(ids)  # without texts that have nothing to match
        vectors = self.fde.encode_documents(TokenEmbeddings.from_list(list(tokens.values())))
        given = dict(zip(ids, payloads, strict=True))
        points = [
            models.PointStruct(id=point_id(id), vector=vector.tolist(), payload={**given[id], "id": id})
            for id, vector in zip(tokens, vectors, strict=True)
        ]
        self.client.upsert("passages", points)

    def delete(self, ids: Sequence[str]) -> None:
        """Delete passages. Unknown ids are skipped."""
        self.client.delete("passages", models.PointIdsList(points=[point_id(id) for id in ids]))
        self.index.delete(ids)  # last, for the same reason

    def search(self, query: str, k: int = 3, n_candidates: int = 100, filter: models.Filter | None = None) -> list[Hit]:
        """The best passages that Qdrant's filter admits."""
        [vector] = self.fde.encode_queries(self.index.encoder.encode_queries([query]))
        found = self.client.query_points(
            "passages", query=vector.tolist(), query_filter=filter, limit=n_candidates, with_payload=["id"]
        )
        return self.index.rerank(query, [(point.payload or {})["id"] for point in found.points], k)


def point_id(id: str) -> str:
    """Qdrant's points have numbers or UUIDs."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, id))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", nargs="?", default=QUESTION)
    parser.add_argument("--most-words", type=int, default=1000)
    arguments = parser.parse_args()
    collection = read_beir(DATA)
    texts, ids = collection.texts[:60], collection.ids[:60]
    with tempfile.TemporaryDirectory() as folder, MuveraIndex.create(Path(folder) / "tokens.muvera") as index:
        client = QdrantClient(path=str(Path(folder) / "qdrant"))
        passages = Passages(client, index)
        passages.add(texts, ids, [{"n_words": len(text.split())} for text in texts])
        passages.delete(ids[-1:])
        short = models.FieldCondition(key="n_words", range=models.Range(lte=arguments.most_words))
        for hit in passages.search(arguments.question, filter=models.Filter(must=[short])):
            print(f"{hit.normalized_score:.3f} {hit.id}: {(hit.text or '')[:90]}")
        print(f"{client.count('passages').count} vectors, {len(index)} passages with tokens")
        client.close()


if __name__ == "__main__":
    main()
